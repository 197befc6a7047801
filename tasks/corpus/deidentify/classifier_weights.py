"""Weights of a token classifier as a function from token ids to logits: safetensors through transformers, ONNX through onnxruntime.

Both compute in one thread, so that the result does not depend on the number of cores.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks.corpus.deidentify.entity_models import KEY

SAFETENSORS, ONNX = "model.safetensors", "model.onnx"
Logits: TypeAlias = Callable[[Sequence[int]], NDArray[np.floating[Any]]]  # ids of a window's tokens to an array (token, label)


def read_safetensors(folder: Path, config: Mapping[str, Any]) -> Logits:
    """A model that transformers has a class for, in 32-bit floats; ``ValueError`` where it has none, or the weights are not its."""
    try:
        import torch
        import transformers
        from safetensors.torch import load_file
    except ImportError:
        raise ValueError(f"{KEY}: {SAFETENSORS} is read with transformers, which is not installed; 'make setup-dev' installs it") from None
    try:
        config_class: Any = transformers.CONFIG_MAPPING[config.get("model_type", "")]
        model_class: Any = transformers.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING[config_class]
    except KeyError:
        raise ValueError(f"{KEY}: {folder}: transformers has no token classifier of model_type {config.get('model_type')!r}") from None
    if config.get("quantization_config"):
        raise ValueError(f"{KEY}: {folder}: its weights are quantized; save it in 32-bit or 16-bit floats")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        # Without a path: from a folder transformers would also follow what other files there name.
        model, problems = model_class.from_pretrained(
            None,
            config=config_class.from_dict(dict(config)),
            state_dict=load_file(folder / SAFETENSORS),
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise ValueError(f"{KEY}: {folder}: {SAFETENSORS} is not of the model that config.json describes ({_line(error)})") from None
    if missing := sorted(problems["missing_keys"]):
        raise ValueError(f"{KEY}: {folder}: {SAFETENSORS} lacks {len(missing)} of the model's tensors, {missing[0]} among them")
    model.eval()

    @contextmanager
    def one_thread() -> Iterator[None]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)

    def logits(ids: Sequence[int]) -> NDArray[np.floating[Any]]:
        with one_thread(), torch.inference_mode():
            tokens = torch.tensor([ids])
            return model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[0].numpy()

    return logits


def read_onnx(folder: Path, config: Mapping[str, Any]) -> Logits:  # noqa: ARG001
    """A model as its graph computes it; ``ValueError`` where onnxruntime does not read it, or it takes other inputs than tokens."""
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(f"{KEY}: {ONNX} is read with onnxruntime, which is not installed; 'make setup-dev' installs it") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ValueError(f"{KEY}: {folder}: onnxruntime does not read {ONNX} ({_line(error)})") from None
    inputs = [entry.name for entry in session.get_inputs()]
    values = {"input_ids": None, "attention_mask": 1, "token_type_ids": 0}
    if unknown := sorted(set(inputs) - values.keys()):
        raise ValueError(f"{KEY}: {folder}: {ONNX} takes {unknown[0]!r}, and not {', '.join(values)} alone")

    def logits(ids: Sequence[int]) -> NDArray[np.floating[Any]]:
        tokens = np.array([ids], np.int64)
        given = {name: tokens if (value := values[name]) is None else np.full_like(tokens, value) for name in inputs}
        return session.run(None, given)[0][0]

    return logits


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
