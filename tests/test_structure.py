"""The shape that the project promises: who imports whom, what dvc.yaml lists, what the pages tell a user to type."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import get_args

import pytest
from ruamel.yaml import YAML

from flows.dvc_process import stages
from flows.pipeline import Stage
from tasks.evaluation.run import SCORING
from tasks.finetune import CODE
from tasks.params import STAGES

ROOT = Path(__file__).resolve().parent.parent
GUARD = "check_params"  # no stage of the pipeline, though DVC needs it to be one
# The architecture: who may import whom. The stages, stage.py and params.py are "tasks"; nothing imports bench, and tests import all.
ARROWS = {
    "model": set(),
    "tasks.runtime": {"model"},  # of it system/, which knows no torch
    "tasks.corpus": {"model", "tasks.runtime"},
    "tasks.training": {"model", "tasks.runtime", "tasks.corpus"},
    "tasks.evaluation": {"model", "tasks.runtime", "tasks.corpus"},
    "tasks.registry": {"model", "tasks.runtime", "tasks.corpus", "tasks.training", "tasks.evaluation"},
    "tasks": {"model", "tasks.runtime", "tasks.corpus", "tasks.training", "tasks.evaluation", "tasks.registry"},
    "flows": {"tasks.runtime", "tasks.evaluation", "tasks.registry"},
    "serve": {"model", "tasks.runtime", "tasks.evaluation", "tasks.registry"},
    "medllama": {"model", "serve", "tasks.runtime", "tasks.training", "tasks.registry"},
}
# No stage depends on them, as they change none of its bytes: logging, forecasts and the signing of passports do not retrain.
NO_BYTES = ("tasks.forecast", "tasks.registry.tracking", "tasks.registry.lineage.signature")
# It imports the models of all sections; a stage imports its own.
ALL_SECTIONS = "tasks.params"
ONLY_IMPORTERS = {
    "prefect": {"flows.pipeline", "flows.new_data", "flows.dvc_process", "flows.notices", "flows.review", "flows.watch", "flows.deploy"},
    # The last one runs in MLflow, beside a version's weights.
    "mlflow": {"tasks.registry.tracking", "tasks.registry.versions", "tasks.registry.logged_models", "tasks.registry.pyfunc_model"},
    "great_expectations": {"tasks.corpus.expectations"},
}
MODEL_STANDS_ON = {"torch", "numpy", "tiktoken", "tokenizers", "safetensors", "gguf", "jinja2", "bitsandbytes", "llguidance"}


def modules() -> dict[str, Path]:
    files = [
        path
        for package in ("model", "tasks", "flows", "serve", "medllama")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "__init__.py"
    ]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


def room(module: str) -> str:
    return max((name for name in ARROWS if f"{module}.".startswith(f"{name}.")), key=len)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def closure(module: str, seen: set[str]) -> set[str]:
    """The modules of the project that decide what a stage writes."""
    known = modules()
    if module in known and module not in NO_BYTES and module not in seen:
        seen.add(module)
        for other in imported(known[module]) if module != ALL_SECTIONS else ():
            closure(other, seen)
    return seen


# What must stand before torch is imported, from wherever.
FIRST = {"model": ["from model.system.openmp import set_defaults", "set_defaults()"], "tasks": ["from model.system import openmp"]}


def test_every_package_says_what_it_is_for_and_imports_nothing() -> None:
    packages = sorted({parent for path in modules().values() for parent in path.parents if ROOT in parent.parents} | {ROOT / "bench"})
    for package in packages:
        tree = ast.parse((package / "__init__.py").read_text())
        assert ast.get_docstring(tree) and list(map(ast.unparse, tree.body[1:])) == FIRST.get(package.name, []), package


@pytest.mark.slow
@pytest.mark.parametrize("stage", [*STAGES[:-1], GUARD])
def test_a_stages_code_dependencies_are_the_code_that_it_runs(stage: str) -> None:
    code = {ROOT / name for name in dependencies(stage) if name.startswith(("model", "tasks"))}
    known = modules()
    starts = [f"tasks.{stage}"] if stage != GUARD else ["tasks.stage", *imported(known[ALL_SECTIONS])]
    run = {known[name] for start in starts for name in closure(start, {"tasks.__main__"})}
    missing = {path for path in run if not code & {path, *path.parents}}
    assert not missing
    listed = {path for path in known.values() if code & {path, *path.parents}}
    # A folder spares the list of its files; what it holds beyond them runs a stage again for nothing. Most has shard.
    assert len(listed - run) <= 45, sorted(listed - run)
    assert not [path for path in code if not path.exists() or not any(path in (file, *file.parents) for file in run)]


def test_the_list_of_code_is_one_that_people_read() -> None:
    assert sum(name.startswith(("model", "tasks")) for stage in (*STAGES, GUARD) for name in dependencies(stage)) <= 98


@pytest.mark.slow
def test_what_a_training_state_and_a_score_hold_for_misses_no_code() -> None:
    known, rooms = modules(), ("model", "tasks.training", "tasks.evaluation", "tasks.corpus")
    for stage, code in (("finetune", CODE), ("validate", SCORING)):
        run = {known[name] for name in closure(f"tasks.{stage}", set()) if room(name) in rooms and name not in CHOOSES_ITEMS}
        assert not {path for path in run if not set(code) & {path, *path.parents}}, stage


# What they choose is another digest's matter: that of the items.
CHOOSES_ITEMS = ("tasks.corpus.documents", "tasks.corpus.augmentation.paraphrase", "tasks.corpus.extraction.definitions")


def dependencies(stage: str) -> list[str]:
    return list(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"][stage]["deps"])


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_follow_the_arrows(module: str) -> None:
    for name in set(imported(modules()[module])):
        top = name.split(".")[0]
        if top in ("tasks", "flows", "serve", "model", "medllama", "bench", "tests"):
            assert top not in ("bench", "tests"), f"{module} imports {name}"
            assert room(name) in ARROWS[room(module)] | {room(module)} or name == "tasks", f"{module} imports {name}"
        if top in ONLY_IMPORTERS:
            assert module in ONLY_IMPORTERS[top], f"{module} imports {name}"
    if module.removeprefix("tasks.") in STAGES:
        assert not {f"tasks.{stage}" for stage in STAGES} & set(imported(modules()[module])), "a stage imports another"


def test_no_module_imports_itself_through_others() -> None:
    known = modules()
    graph = {module: {name for name in imported(path) if name in known and name != module} for module, path in known.items()}
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " → ".join([*way[way.index(module) :], module])
        if module not in done:
            for name in sorted(graph[module]):
                walk(name, (*way, module))
            done.add(module)

    for module in sorted(graph):
        walk(module, ())


# Names of our own for what the field has a word for, and names that say nothing of what they hold.
RETIRED = set(
    "beginnings held reused going Row Where narrow of_weight of_out recompute readied adapted keep_memory StoredLinear misfits fitting "
    "skeleton Slot Piece ended_by Ended tell told Asked ChatAsked Said How Reply openings FullError LateError Trust panel apart "
    "examine retention most Summary team alone Place place places judge judged invariance wording wordings reworded facts fate weak "
    "corpus_wide look_alikes plantings finder Finder Found planted carrier Stretch Spill Tally ours theirs guarded gain carry_out "
    "looks_only found what wanted made some answer_nats general_nats".split()
)


def bound(tree: ast.AST) -> Iterator[str]:
    """Every name that a module binds: variables, parameters, attributes, functions, classes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def test_names_are_the_fields_words() -> None:
    names = {f"{module}: {name}": name for module, path in modules().items() for name in bound(ast.parse(path.read_text()))}
    retired = {where for where, name in names.items() if name in RETIRED or name.startswith(("MOST_", "FEWEST_"))}
    assert retired == {"tasks.registry.lineage.passport: made"}  # a key of the passport's format


def test_public_names_have_docstrings() -> None:
    """In every package four of five at least."""
    documented: dict[str, list[bool]] = {}
    for module, path in modules().items():
        for node in public(ast.parse(path.read_text()).body):
            documented.setdefault(room(module), []).append(ast.get_docstring(node) is not None)
    shares = {package: sum(has) / len(has) for package, has in documented.items()}
    assert all(share >= 0.8 for share in shares.values()), shares


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """The public functions and classes of a module, with the methods of the latter."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def test_modules_are_short() -> None:
    lines = {module: len(path.read_text().splitlines()) for module, path in modules().items()}
    assert not {module: n for module, n in lines.items() if n > (200 if module.removeprefix("tasks.") in STAGES else 350)}


def test_the_model_library_stands_on_few_packages() -> None:
    standard = __import__("sys").stdlib_module_names
    tops = {name.split(".")[0] for module, path in modules().items() if module.startswith("model") for name in imported(path)}
    assert tops - standard - {"model"} <= MODEL_STANDS_ON


def test_one_name_for_stage_module_function_and_params() -> None:
    sections = YAML(typ="safe").load(ROOT / "params.yaml")
    pipeline = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    assert set(STAGES) == set(sections) == set(pipeline) - {GUARD}
    for stage, definition in pipeline.items():
        assert definition["cmd"].startswith(f"exec python -m tasks {stage} ")
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
        needed = {dep for dep in definitions[stage]["deps"] if not dep.startswith(("model", "tasks"))}
        assert needed <= made, stage
        made |= {out if isinstance(out, str) else next(iter(out)) for out in definitions[stage]["outs"]}
    assert set(stages()) == set(definitions) == set(get_args(Stage))
    assert stages("shard") == ["base", "preprocess", "augment", "shard"]


def test_the_commands_of_readme_and_docs_exist() -> None:
    readme = "".join(page.read_text() for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")))
    targets = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), flags=re.M))
    for target in re.findall(r"(?:^    |^|`)make ([a-z-]+)", readme, flags=re.M):
        assert target in targets, f"make {target}"
    known = modules()
    for module, command in re.findall(r"python -m ((?:model|tasks|flows|serve)(?:\.\w+)*)(?: ([a-z]+)\b)?", readme):
        path = known.get(f"{module}.__main__") or known[module]
        assert '__name__ == "__main__"' in path.read_text(), module
        if f"{module}.__main__" in known and module not in ("tasks.corpus", "tasks.evaluation", "serve"):
            assert f"def {command}" in path.read_text(), f"{module} {command}"


def test_every_tracked_file_is_ours_to_publish() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert not [f for f in files if f.startswith(("artifacts/", "data/", ".cache/")) or f.endswith((".gguf", ".safetensors", ".bin"))]


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    declared = {re.split(r"[\[<>=~! ;]", name)[0].lower().replace("_", "-") for name in wanted}
    distributions = packages_distributions()
    ours = {"model", "tasks", "flows", "serve", "medllama", "setup", "bench", "helpers"}
    build = {"hatchling"}  # which builds the wheel, in an environment of its own
    files = [
        *modules().values(),
        *(ROOT / "bench").glob("*.py"),
        *(path for path in (ROOT / "tests").rglob("*.py") if path.parent.name != "clients"),
    ]
    missing = set()
    debian = {"eventlet", "swift"}  # of a program that runs under the system's Python
    for path in files:
        for top in {name.split(".")[0] for name in imported(path)} - sys.stdlib_module_names - ours - build - debian:
            names = {name.lower().replace("_", "-") for name in distributions.get(top, [top])}
            if not names & declared:
                missing.add(f"{path.relative_to(ROOT)}: {top}")
    assert not missing


def test_what_a_client_imports_is_in_its_lock() -> None:
    clients = sorted((ROOT / "tests" / "clients").glob("*_client.py"))
    assert clients
    for path in clients:
        locked = set(re.findall(r"^([a-z0-9-]+)==", path.with_name(path.name.replace("_client.py", ".lock")).read_text(), flags=re.M))
        used = {name.split(".")[0] for file in (path, path.with_name("checks.py")) for name in imported(file)} - sys.stdlib_module_names
        for name in (top.replace("_", "-") for top in used - {"checks"}):
            assert name in locked or any(package.startswith(f"{name}-") for package in locked), f"{path.name}: {name}"


# Imported where a setting asks for it, which says what to install.
ON_DEMAND = {"transformers", "onnxruntime", "lm_eval", "datasets", "PyKCS11", "openlineage"}


def test_what_runs_needs_no_extra_of_tests() -> None:
    """``make run`` installs the dependencies with the extras registry and pipeline."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = [
        *project["dependencies"],
        *(name for extra in ("registry", "pipeline") for name in project["optional-dependencies"][extra]),
    ]
    declared = {re.split(r"[\[<>=~! ;]", name)[0].lower().replace("_", "-") for name in installed}
    distributions = packages_distributions()
    for module, path in modules().items():
        for top in (
            {name.split(".")[0] for name in imported(path)} - sys.stdlib_module_names - {"model", "tasks", "flows", "serve", "medllama"}
        ):
            names = {name.lower().replace("_", "-") for name in distributions.get(top, [top])}
            assert names & declared or top in ON_DEMAND | {"hatchling"}, f"{module} imports {top}"
