"""Directories of architectures that are not built here are refused in one sentence that names what they are."""

from pathlib import Path

import pytest
from transformers import AutoConfig

from model.checkpoint.convert import inspect

OTHERS = (
    *("apertus", "bert", "bloom", "cohere2", "deepseek_v3", "exaone4", "falcon", "gemma", "gemma2", "glm4", "gpt2", "gpt_neox", "gpt_oss"),
    *("llama4_text", "mamba2", "mixtral", "mpt", "olmo", "olmo3", "olmoe", "opt", "phi", "qwen2_moe", "qwen3_moe", "stablelm", "t5"),
)


@pytest.mark.parametrize("model_type", OTHERS)
def test_another_architecture_is_refused_in_a_sentence(model_type: str, tmp_path: Path) -> None:
    AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"config.json: model_type is '{model_type}'; supported are ") as error:
        inspect(tmp_path)
    assert len(str(error.value).splitlines()) == 1
