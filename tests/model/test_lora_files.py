"""Files of an adapter that are unknown, damaged, cut off or missing: what is wrong is named, and the model is as it was."""

import json
from pathlib import Path

import pytest
import torch
from helpers.adapters import LORA, adapted
from helpers.builders import TINY, random_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from model import lora


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save is \['lm_head'\]"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern is"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern is"),
        ({"layers_to_transform": [0]}, r"layers_to_transform is \[0\]"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"not_invented_yet": "odd"}, "not_invented_yet is 'odd'"),
        ({"use_dora": "yes"}, "use_dora is 'yes'"),
        ({"r": 1e9}, "rank must be a whole number"),
        ({"r": None}, "rank must be a whole number"),
        ({"lora_alpha": "16"}, "alpha must be a number"),
        ({"lora_dropout": [0.1]}, "dropout must be a number"),
        ({"target_modules": ".*_proj"}, "target_modules is '.*_proj'"),
        ({"target_modules": ["query_key_value"]}, "unknown targets .'query_key_value'"),
        ({"r": 1 << 24}, r"q_proj\.lora_A\.weight is \[4, 32\], not \[16777216, 32\]"),
        ({"r": 5}, r"q_proj\.lora_B\.weight is \[32, 4\], not \[32, 5\]"),
        ({"use_dora": True}, r"missing: base_model\.model\.model\.layers\.0\.self_attn\.q_proj\.lora_magnitude_vector"),
        ({"target_modules": ["q_proj"]}, r"not in the model: base_model\.model\.model\.layers\.0\.self_attn\.v_proj\.lora_A\.weight"),
    ],
)
def test_settings_that_are_not_supported_or_do_not_fit_are_named(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    lora.save(adapted(LORA, steps=0), tmp_path / "adapter", base="tiny")
    path = tmp_path / "adapter" / lora.CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    refused(tmp_path / "adapter", message)


@pytest.mark.parametrize("setting", ["peft_type", "r", "lora_alpha", "target_modules"])
def test_a_missing_setting_is_named(setting: str, tmp_path: Path) -> None:
    lora.save(adapted(LORA, steps=0), tmp_path / "adapter", base="tiny")
    path = tmp_path / "adapter" / lora.CONFIG
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != setting}))
    refused(tmp_path / "adapter", f"{lora.CONFIG}: {setting} missing")


NAME = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({NAME: None}, f"missing: {NAME}"),
        ({NAME: torch.zeros(4, 16)}, rf"of another shape: {NAME} is \[4, 16\], not \[16, 4\]"),
        ({NAME: torch.zeros(16, 4, dtype=torch.int32)}, rf"not floats: {NAME} \(I32\)"),
        ({NAME: torch.full((16, 4), float("nan"))}, f"not finite everywhere: {NAME}"),
        ({f"{NAME}.more": torch.zeros(1)}, f"not in the model: {NAME}.more"),
    ],
    ids=["missing", "shape", "integers", "nan", "extra"],
)
def test_damaged_tensors_are_named(changes: dict[str, Tensor | None], message: str, tmp_path: Path) -> None:
    lora.save(adapted(LORA, steps=0), tmp_path / "adapter", base="tiny")
    path = tmp_path / "adapter" / lora.WEIGHTS
    tensors = load_file(path) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)
    refused(tmp_path / "adapter", message)


def test_files_that_are_missing_or_cut_off_are_named(tmp_path: Path) -> None:
    directory = tmp_path / "adapter"
    lora.save(adapted(LORA, steps=0), directory, base="tiny")
    path = directory / lora.WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    refused(directory, "adapter_model.safetensors is not a whole safetensors file")
    path.unlink()
    refused(directory, "adapter_model.safetensors is missing")
    (directory / lora.CONFIG).unlink()
    refused(directory, "adapter_config.json is missing")


def refused(directory: Path, message: str) -> None:
    """With this message, and the model is as it was."""
    model = random_model(TINY)
    with pytest.raises(ValueError, match=message):
        lora.load(model, directory)
    assert not lora.adapters(model)
