"""decode.c computes the same whichever compiler and processor: gcc and clang, with and without AVX, and ARM64's NEON in an emulator."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.project import ROOT

from model.generation import compiled

MAIN = Path(__file__).with_name("decode_main.c")
INT8_MAIN = MAIN.with_name("int8_main.c")
# How it is compiled, and with what it runs.
BUILDS = {
    "clang": (("clang", "-march=native"), ()),
    "x86-64 without AVX": (("gcc", "-march=x86-64"), ()),
    "x86-64 with AVX2": (("gcc", "-march=haswell"), ()),
    "AVX-512 without VNNI": (("gcc", "-march=native", "-mno-avx512vnni"), ()),
    "ARM64 with dot products": (("aarch64-linux-gnu-gcc", "-march=armv8.2-a+dotprod", "-static"), ("qemu-aarch64",)),
    "ARM64": (("aarch64-linux-gnu-gcc", "-mcpu=cortex-a72", "-static"), ("qemu-aarch64",)),
}


def output(folder: Path, main: Path, compiler: tuple[str, ...], runner: tuple[str, ...] = ()) -> str:
    program = folder / "program"
    subprocess.run([*compiler, "-O3", "-fopenmp", f"-I{compiled.SOURCE.parent}", str(main), "-lm", "-o", str(program)], check=True)
    result = subprocess.run([*runner, str(program)], check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-300:]
    return result.stdout


def numbers(folder: Path, compiler: tuple[str, ...], runner: tuple[str, ...] = ()) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return np.array(output(folder, MAIN, compiler, runner).split(), dtype=float)


@pytest.mark.system
@pytest.mark.parametrize("build", BUILDS)
def test_every_compiler_and_processor_computes_the_same(build: str, tmp_path: Path) -> None:
    reference = numbers(tmp_path, ("gcc", "-march=native"))
    compiler, runner = BUILDS[build]
    result = numbers(tmp_path, compiler, runner)
    assert len(result) == len(reference) > 4000 and np.ptp(reference) > 1
    np.testing.assert_allclose(result, reference, rtol=2e-5, atol=2e-5)


@pytest.mark.system
@pytest.mark.parametrize("build", [*BUILDS, "gcc"])
def test_integer_products_are_exact_with_every_compiler_and_processor(build: str, tmp_path: Path) -> None:
    compiler, runner = (BUILDS | {"gcc": (("gcc", "-march=native"), ())})[build]
    assert output(tmp_path, INT8_MAIN, compiler, runner) == "equal\n"


@pytest.mark.system
def test_what_clang_compiled_generates(tmp_path: Path) -> None:
    code = (
        "from helpers.builders import TINY, random_model; from model.generation import compiled;"
        "from model.generation.generate import generate;"
        "loaded = compiled.library(); assert not isinstance(loaded, str), loaded;"
        "print(list(generate(random_model(TINY), [[1, 2, 3], [4]], max_new_tokens=12)))"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    texts = set()
    for compiler in ("gcc", "clang"):
        variables = environment | {"CC": compiler, "XDG_CACHE_HOME": str(tmp_path / compiler)}
        result = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
        texts.add(result.stdout)
    assert len(texts) == 1
