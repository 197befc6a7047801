"""Variants of train documents with another question and the same answer: ``python -m tasks.augment``.

The answer is what training teaches, so it is never touched; a variant keeps its original's group and split and names it as its
parent. Nothing is drawn at random: which document gets which variant follows from the seed and its id.
"""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from pydantic import Field

from tasks.documents import Document, content_id, read_documents, share, write_documents
from tasks.stage import Out, Params, Summary, run_stage

# Other ways to ask the question of a kind. {topic} is the name that the question is about.
BY_KIND = {
    "hpo-definition": ("What does {topic} mean?", "Can you explain what {topic} is?", "Define {topic}.", "What is meant by {topic}?"),
    "hpo-synonyms": ("What is {topic} also called?", "Which synonyms are there for {topic}?", "How else is {topic} named?"),
    "hpo-kinds": ("Which forms of {topic} are known?", "List the kinds of {topic}.", "What does {topic} comprise?"),
    "disease-signs": (
        "What are the signs and symptoms of {topic}?",
        "How does {topic} present?",
        "What are the clinical features of {topic}?",
    ),
    "disease-course": ("What is the inheritance and onset of {topic}?", "How is {topic} passed on, and at what age does it start?"),
    "icd10cm": ("What is the ICD-10-CM code for {topic}?", "How is {topic} coded in ICD-10-CM?", "Give the ICD-10-CM code of {topic}."),
}
# The same for questions of tables, by what they ask. "What is (are) X ?" is MedQuAD's wording.
BY_WORDING = (
    (r"What are the symptoms of (?P<topic>[^?]+?) ?\?", ("How does {topic} present?", "What are the signs of {topic}?")),
    (r"What are the treatments for (?P<topic>[^?]+?) ?\?", ("How is {topic} treated?", "Which treatments are there for {topic}?")),
    (r"What causes (?P<topic>[^?]+?) ?\?", ("What are the causes of {topic}?", "Why does {topic} occur?")),
    (r"How to diagnose (?P<topic>[^?]+?) ?\?", ("How is {topic} diagnosed?",)),
    (r"How to prevent (?P<topic>[^?]+?) ?\?", ("How can {topic} be prevented?",)),
    (r"Is (?P<topic>[^?]+?) inherited ?\?", ("Can {topic} be inherited?",)),
    # Last, and not for "What is the dose of …", which asks for something else than what it is.
    (r"What (?:is \(are\)|is|are) (?P<topic>(?!the )[^?]+?) ?\?", ("Can you explain {topic}?", "What does {topic} mean?")),
)
# Words and numbers that a variant may neither lose nor gain.
PROTECTED = re.compile(
    r"\d+(?:[.,]\d+)?|\b(?:no|not|never|without|absent|left|right|hyper\w*|hypo\w*|increased?|decreased?|high|low)\b", re.I
)


class AugmentParams(Params):
    seed: int
    share: float = Field(ge=0, le=1)  # of the train documents that get a variant


def augment(documents: Path, variants: Out, *, params: AugmentParams) -> Summary:
    """Write the variants of the train split; originals stay where they are."""
    made, train, methods = [], 0, Counter[str]()
    for document in read_documents(documents, "train"):
        train += 1
        if share(params.seed, "chosen", document.id) < params.share and (copy := variant(document, params.seed)):
            made.append(copy)
            methods[copy.method] += 1
    variants.mkdir(parents=True)
    write_documents(made, variants)
    print(f"{len(made):,} variants of {train:,} train documents: {', '.join(f'{n:,} {m}' for m, n in sorted(methods.items())) or 'none'}")
    return Summary(
        metrics={"train_documents": float(train), "variants": float(len(made))} | {f"variants_{m}": float(n) for m, n in methods.items()}
    )


def variant(document: Document, seed: int) -> Document | None:
    """One other way to ask a document's question, or None where no method fits without changing what is asked.

    The method is ``paraphrase``, or ``synonym`` where the topic is called by another of its names as well.
    """
    wordings, topic = _wordings(document)
    if not wordings:
        return None
    wording = _pick(wordings, seed, "wording", document.id)
    # A question for other names must not hold one, and a definition that ends in a lay name would be asked by it.
    aliases = [a for a in document.aliases if a.lower() not in document.answer.lower()] if document.kind != "hpo-synonyms" else []
    named = _pick((topic, *aliases), seed, "name", document.id)
    question = wording.format(topic=named)
    if question == document.question or protected(question) != protected(document.question):
        return None
    method = "paraphrase" if named == topic else "synonym"
    key = content_id(document.id, method, question)
    return replace(document, id=key, question=question, topic=named, method=method, parent=document.id)


def protected(text: str) -> Counter[str]:
    """The numbers, negations, sides and directions in a text, with how often each stands there."""
    return Counter(match.lower() for match in PROTECTED.findall(text))


def _wordings(document: Document) -> tuple[tuple[str, ...], str]:
    if document.kind in BY_KIND:
        return BY_KIND[document.kind], document.topic
    for pattern, wordings in BY_WORDING:
        if match := re.fullmatch(pattern, document.question):
            return wordings, match["topic"]
    return (), ""


def _pick(choices: tuple[str, ...], seed: int, purpose: str, key: str) -> str:
    return choices[int(share(seed, purpose, key) * len(choices))]


if __name__ == "__main__":
    run_stage(augment)
