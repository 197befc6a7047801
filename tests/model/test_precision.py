"""In which precision matrix products run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.precision import use_bf16

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.mark.parametrize("limit", ["avx2", "default"])
def test_a_processor_that_is_limited_has_no_products_in_bfloat16(limit: str) -> None:
    code = "import torch; from model.precision import use_bf16; print(use_bf16(torch.device('cpu'), 'auto'))"
    environment = os.environ | {"ATEN_CPU_CAPABILITY": limit, "PYTHONPATH": str(ROOT)}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "False"


def test_what_is_asked_for_is_not_overruled() -> None:
    assert use_bf16(CPU, "bfloat16") and not use_bf16(CPU, "float32")
