"""A registered version as an MLflow pyfunc: prompts in, texts out. It is stored as code beside the weights and runs from there.

It knows of this project only ``model/``, of which the version carries a copy.
"""

from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

from model.completion import Llama

# What predict's params may say, with what holds where they do not.
PARAMS = {"max_new_tokens": 128, "temperature": 0.0, "top_p": 1.0, "seed": 0, "chat": True}
BATCH = 8


class MedicalModel(PythonModel):
    """Takes a list of texts, or a table with them in its one column; gives a list of texts."""

    def load_context(self, context: Any) -> None:
        del context  # the checkpoint directory is the one that this file stands in
        self.llama = Llama.build(Path(__file__).parent, max_batch_size=BATCH)

    # Without hints: MLflow would take them for the signature.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        del context
        chosen = PARAMS | (params or {})
        prompts = [str(prompt) for prompt in (model_input.iloc[:, 0] if hasattr(model_input, "columns") else model_input)]
        settings = {
            "max_gen_len": chosen["max_new_tokens"],
            "temperature": chosen["temperature"],
            "top_p": chosen["top_p"],
            "seed": chosen["seed"],
        }
        texts = []
        for start in range(0, len(prompts), BATCH):
            some = prompts[start : start + BATCH]
            if chosen["chat"]:
                found = self.llama.chat_completion([[{"role": "user", "content": prompt}] for prompt in some], **settings)
            else:
                found = self.llama.text_completion(some, **settings)
            texts += [completion.text for completion in found]
        return texts


set_model(MedicalModel())
