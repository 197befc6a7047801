"""What loading a large checkpoint adds to the memory of a process."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.project import ROOT

from model.checkpoint import meta_file
from model.checkpoint.config import config_json
from model.checkpoint.hf import save_weights
from model.checkpoint.json_file import write_json
from model.checkpoint.shapes import parameter_shapes
from model.config import SIZES, LlamaConfig

BIG = replace(SIZES["llama-3.2-1b"], n_layers=15, vocab_size=32000, tied=False, max_seq_len=64)  # 2.1 GB in bfloat16

LOAD = """
import sys
from pathlib import Path
import torch
from model.checkpoint.load import load_model
def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024
before = memory("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # resets the peak
model = load_model(Path(sys.argv[1]), dtype=torch.bfloat16)
print(memory("VmHWM") - before)
"""


def state(config: LlamaConfig) -> dict[str, torch.Tensor]:
    return {name: torch.full(shape, 0.01, dtype=torch.bfloat16) for name, shape in parameter_shapes(config)}


@pytest.mark.system
@pytest.mark.parametrize("layout", ["hf", "meta"])
def test_loading_adds_little_more_than_the_files_size(tmp_path: Path, layout: str) -> None:
    if layout == "hf":
        save_weights(state(BIG), tmp_path, dtype=torch.bfloat16)
        write_json(tmp_path / "config.json", config_json(BIG, torch.bfloat16))
    else:
        meta_file.write(tmp_path, state(BIG), BIG)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    process = subprocess.run([sys.executable, "-c", LOAD, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    print(f"{int(process.stdout) / size:.3f} of {size / 1e9:.2f} GB")
    for path in tmp_path.iterdir():
        path.unlink()
    assert int(process.stdout) <= 1.15 * size
