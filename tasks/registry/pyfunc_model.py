"""A registered version as an MLflow pyfunc: prompts in, texts out. It is stored as code beside the weights and runs from there.

It knows of this project only ``model/``, of which the version carries a copy. Before it runs that, it compares the files with the passport
beside them, and the weights while they are read. Whether the passport is the registered one, ``python -m tasks.registry verify`` says.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

# What predict's params may say, with what holds where they do not.
PARAMS = {"max_new_tokens": 128, "temperature": 0.0, "top_p": 1.0, "seed": 0, "chat": True}
BATCH = 8


class MedicalModel(PythonModel):
    """Takes a list of texts, or a table with them in its one column; gives a list of texts."""

    def load_context(self, context: Any) -> None:
        """Compare the files with the passport, then load the model; ``ValueError`` where a file differs."""
        del context  # the checkpoint directory is the one that this file stands in
        directory = Path(__file__).parent
        weights = compared(directory)
        from model.generation.completion import Llama  # the version's own copy, which must not run before it was compared

        self.llama = Llama.build(directory, max_batch_size=BATCH, weights_sha256=weights)

    # Without hints: MLflow would take them for the signature.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """One text per prompt. ``model_input``: a list of texts or a table with one column; ``params``: some of ``PARAMS``."""
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
            batch = prompts[start : start + BATCH]
            if chosen["chat"]:
                completions = self.llama.chat_completion([[{"role": "user", "content": prompt}] for prompt in batch], **settings)
            else:
                completions = self.llama.text_completion(batch, **settings)
            texts += [completion.text for completion in completions]
        return texts


def compared(directory: Path) -> dict[str, str]:
    """The digests of the weights, once everything else in a version is exactly what its passport lists; ``ValueError`` where not."""
    document = json.loads((directory / "passport.json").read_bytes())
    listed, alternatives = document["artifacts"], document["alternatives"]
    expected = {name.removeprefix("checkpoint/"): digest for name, digest in listed.items() if name.startswith("checkpoint/")}
    weights = {name: digest for name, digest in expected.items() if name.endswith(".safetensors")}
    present = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()}
    differing = set(expected) ^ (set(present) - {"passport.json", "passport.sig", "model.sig"})
    differing |= {name for name, path in present.items() if path.is_symlink() or not path.is_file()}
    for name in set(expected) - set(weights) - differing:
        allowed = (expected[name], *alternatives.get(f"checkpoint/{name}", ()))
        if hashlib.sha256(present[name].read_bytes()).hexdigest() not in allowed:
            differing.add(name)
    if differing:
        raise ValueError(f"this version is not what its passport says: {', '.join(sorted(differing)[:5])}")
    return weights


set_model(MedicalModel())
