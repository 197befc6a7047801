"""The shape that the project promises: who imports whom, what dvc.yaml lists, what the pages tell a user to type."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from ruamel.yaml import YAML

from flows.dvc_process import stages
from flows.pipeline import Stage
from tasks.stage import STAGES

ROOT = Path(__file__).resolve().parent.parent
GUARD = "check_params"  # no stage of the pipeline, though DVC needs it to be one
# No stage depends on them, as they change none of its bytes: logging and the signing of passports do not retrain.
NO_BYTES = ("tasks.tracking", "tasks.signature")
MAY_IMPORT = {
    "model": {"model"},
    "tasks": {"tasks", "model"},
    "flows": {"flows", "tasks"},
    "serve": {"serve", "model", "tasks"},
}
ONLY_IMPORTERS = {
    "prefect": {"flows.pipeline", "flows.new_data", "flows.dvc_process", "flows.notices", "flows.review", "flows.watch", "flows.deploy"},
    "mlflow": {"tasks.tracking", "tasks.versions", "tasks.pyfunc_model"},  # the latter runs in MLflow, beside a version's weights
    "great_expectations": {"tasks.expectations"},
}
MODEL_STANDS_ON = {"torch", "numpy", "tiktoken", "tokenizers", "safetensors", "gguf", "jinja2"}


def modules() -> dict[str, Path]:
    files = [path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


def test_packages_do_nothing_when_they_are_imported() -> None:
    assert not [path for package in MAY_IMPORT for path in (ROOT / package).rglob("__init__.py") if path.read_text()]


def imported(path: Path, *, as_program: bool = True) -> Iterator[str]:
    """Every module that a file imports, anywhere in it; without those that it needs only when it is run as a program."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if as_program or not ast.unparse(node).startswith("if __name__ ==")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def closure(module: str, seen: set[str], first: str = "") -> set[str]:
    """The modules of the project that run when ``first`` does."""
    first = first or module
    known = modules()
    if module in known and module not in NO_BYTES and module not in seen:
        seen.add(module)
        for other in imported(known[module], as_program=module == first):
            closure(other, seen, first)
    return seen


@pytest.mark.parametrize("stage", [GUARD, *STAGES])
def test_a_stages_code_dependencies_are_its_import_closure(stage: str) -> None:
    listed = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]["deps"]
    known = modules()
    seen = closure(f"tasks.{stage}", {"tasks.run"})
    for section in STAGES if stage == GUARD else ():  # by name: read_params
        closure(f"tasks.params.{section}", seen)
    wanted = {known[m].relative_to(ROOT).as_posix() for m in seen}
    wanted |= {"model/decode.c"} if "model/native.py" in wanted else set()
    wanted |= {f.relative_to(ROOT).as_posix() for f in ROOT.glob("tasks/deidentify/*.csv") if "tasks/deidentify/forms.py" in wanted}
    wanted |= {f.relative_to(ROOT).as_posix() for f in ROOT.glob("tasks/evaluation/*.csv") if "tasks/evaluation/behaviour.py" in wanted}
    assert {path for path in listed if path.endswith((".py", ".c", ".csv"))} == wanted


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_follow_the_arrows(module: str) -> None:
    package = module.split(".", maxsplit=1)[0]
    for name in imported(modules()[module]):
        top = name.split(".")[0]
        if top in MAY_IMPORT:
            assert top in MAY_IMPORT[package], f"{module} imports {name}"
        if top in ONLY_IMPORTERS:
            assert module in ONLY_IMPORTERS[top], f"{module} imports {name}"


def test_the_model_library_stands_on_few_packages() -> None:
    standard = __import__("sys").stdlib_module_names
    tops = {name.split(".")[0] for module, path in modules().items() if module.startswith("model") for name in imported(path)}
    assert tops - standard - {"model"} <= MODEL_STANDS_ON


def test_one_name_for_stage_module_function_and_params() -> None:
    sections = YAML(typ="safe").load(ROOT / "params.yaml")
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert set(STAGES) == set(sections) == set(pipeline) - {GUARD}
    for stage, definition in pipeline.items():
        assert definition["cmd"].startswith(f"exec python -m tasks.run {stage} ")
        assert definition.get("params", []) == ([stage] if stage != GUARD else [])


def test_every_stage_comes_after_the_check_of_all_params() -> None:
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert "params.yaml" in pipeline[GUARD]["deps"]
    for stage in STAGES:
        assert set(pipeline[GUARD]["outs"]) <= set(pipeline[stage]["deps"]), stage


def test_the_flow_runs_every_stage_after_those_it_depends_on() -> None:
    definitions = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    made: set[str] = {"data", *definitions.pop(GUARD)["outs"]}
    for stage in stages():
        needed = {dep for dep in definitions[stage]["deps"] if not dep.endswith((".py", ".c", ".csv"))}
        assert needed <= made, stage
        made |= {out if isinstance(out, str) else next(iter(out)) for out in definitions[stage]["outs"]}
    assert set(stages()) == set(definitions) == set(get_args(Stage))
    assert stages("shard") == ["base", "preprocess", "augment", "shard"]


def test_the_commands_of_readme_and_docs_exist() -> None:
    readme = "".join(page.read_text() for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.M))
    for target in re.findall(r"(?:^    |`)make ([a-z-]+)", readme, flags=re.M):
        assert target in targets, f"make {target}"
    for module in re.findall(r"python -m ((?:model|tasks|flows)\.\w+)", readme):
        assert module in modules(), module
        assert '__name__ == "__main__"' in modules()[module].read_text(), module


def test_every_tracked_file_is_ours_to_publish() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert not [f for f in files if f.startswith(("artifacts/", "data/", ".cache/")) or f.endswith((".gguf", ".safetensors", ".bin"))]
