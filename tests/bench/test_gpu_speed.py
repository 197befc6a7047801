"""``make gpu-check`` as far as a CPU goes: both sides of a case of training and of one of generation, in tiny sizes."""

import json
import subprocess
from pathlib import Path

import pytest
from helpers.project import ROOT

CASES = ("8b lora, 4096", "8b generation, 1")


@pytest.mark.slow
def test_the_check_for_a_gpu_runs_in_tiny_sizes(tmp_path: Path) -> None:
    command = ["bench/gpu-check", "--tiny", "--out", str(tmp_path), "--cases", *CASES]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = tmp_path.glob("*.json")
    results = json.loads(path.read_text())["results"]
    both = [(case, side) for case in CASES for side in ("ours", "hugging face")]
    last = [(CASES[0], "hugging face, compiled"), (CASES[1], "hugging face, growing cache")]
    assert [(r["case"], r["side"]) for r in results] == [*both, *last]
    assert all(r["tokens_per_second"] > 0 for r in results)
    assert result.stdout.count("ours / hugging face") == 2 and "passed" in result.stdout
