"""``make gpu-check`` as far as a CPU goes: all sides of a case of generation, and of one of training, in tiny sizes."""

import json
import subprocess
from pathlib import Path

import pytest
from helpers.project import ROOT

SIDES = {
    "8b generation, 1": ["ours", "hugging face", "hugging face, growing cache"],
    "8b lora, 4096": ["ours", "hugging face", "hugging face, compiled"],
}


@pytest.mark.slow
@pytest.mark.parametrize("case", ["8b generation, 1", pytest.param("8b lora, 4096", marks=pytest.mark.campaign)])
def test_the_check_for_a_gpu_runs_in_tiny_sizes(tmp_path: Path, case: str) -> None:
    command = ["bench/gpu-check", "--tiny", "--out", str(tmp_path), "--cases", case]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = tmp_path.glob("*.json")
    results = json.loads(path.read_text())["results"]
    assert [(r["case"], r["side"]) for r in results] == [(case, side) for side in SIDES[case]]
    assert all(r["tokens_per_second"] > 0 for r in results)
    assert result.stdout.count("ours / hugging face") == 1 and "passed" in result.stdout
