"""Runs a stage: paths from the command line, params from ``params.yaml``, outputs whole or not at all, and its record.

A stage is a plain function ``def shard(documents: Path, shards: Out, *, params: ShardParams) -> Summary``. It knows nothing of
DVC, Prefect or MLflow; dvc.yaml alone says which paths it gets, the last of them the file of its record.
"""

import importlib
import inspect
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks import record
from tasks.lifetime import end_with_parent
from tasks.local import close_to_others

STAGES = ("base", "preprocess", "augment", "shard", "finetune", "validate", "register")
PARAMS = Path("params.yaml")

_OUT, _PRIVATE = "out", "private"
Out = Annotated[Path, _OUT]  # a path that the stage writes; every other path is read
PrivateOut = Annotated[Path, _OUT, _PRIVATE]  # one that stays on this machine: no record, cache or tracker knows it


class Params(BaseModel):
    """A section of ``params.yaml``: no unknown keys, no silent conversions, no changes."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Summary:
    """What a stage tells about its run: numbers, numbers per step, and those of its outputs that a person reads."""

    metrics: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)  # each with "step"
    reports: tuple[str, ...] = ()  # names of the stage's Out parameters
    record: str = ""  # the record's id, where the tracker was told of the run while it went on


Stage = Callable[..., Summary]


class Unavailable(ValueError):
    """Something outside of this process does not answer: the same run may succeed later, with nothing changed."""


def read_params(path: Path = PARAMS) -> dict[str, Params]:
    """Every section of ``params.yaml``, checked; ``ValueError`` names each key that is unknown, missing or ill-typed.

    All stages' sections are checked before any stage works, so a typo in the last one is found at once.
    """
    try:
        raw = YAML(typ="safe").load(path)  # YAML 1.2, as DVC reads it: 3e-4 is a number
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; run from the repository's directory") from None
    except YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected one section per stage: {', '.join(STAGES)}")
    problems = [f"unknown section {name!r}" for name in raw if name not in STAGES]
    problems += [f"section {name!r} is missing" for name in STAGES if name not in raw]
    sections = {}
    for name in STAGES:
        if name in raw:
            try:
                # JSON mode is strict about types and still takes a list for a tuple, which is all that YAML can write.
                sections[name] = _params_model(name).model_validate_json(json.dumps(raw[name], default=str))
            except ValidationError as error:
                problems += [f"{'.'.join([name, *map(str, e['loc'])])}: {e['msg'].lower()}" for e in error.errors()]
    if problems:
        raise ValueError(f"{path}: " + "; ".join(problems))
    return sections


def _params_model(name: str) -> type[Params]:
    # By name: a static import would make every section's model a dependency of every stage. These modules import nothing heavy, as
    # each stage reads them all.
    return getattr(importlib.import_module(f"tasks.params.{name}"), f"{name.capitalize()}Params")


def run_stage(stage: Stage, *, record: bool = True) -> None:
    """The ``__main__`` of a stage's module; exits with one line and status 1 for what its user can mend, or 75 (EX_TEMPFAIL of
    sysexits.h) for what may go by itself.

    ``record=False``: the stage keeps no record, and its command line ends with its own paths.
    """
    name = stage.__name__
    end_with_parent()
    try:
        close_to_others()
        _run(stage, [Path(argument) for argument in sys.argv[1:]], keep_record=record)
    except (ValueError, OSError) as error:
        if os.environ.get("TRACEBACK"):
            traceback.print_exc()
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL if isinstance(error, Unavailable) else 1)


def _run(stage: Stage, arguments: list[Path], *, keep_record: bool) -> None:
    name, hints = stage.__name__, get_type_hints(stage, include_extras=True)
    parameters = [p for p in inspect.signature(stage).parameters if p != "params"]
    wanted = [*parameters, "record"] if keep_record else parameters
    if len(arguments) != len(wanted):
        raise ValueError(f"usage: python -m tasks.{name} {' '.join(wanted)}  (dvc.yaml has the paths)")
    paths = dict(zip(parameters, arguments, strict=False))
    marks = {p: getattr(hints[p], "__metadata__", ()) for p in parameters}
    outs = {p: path for p, path in paths.items() if _OUT in marks[p]}
    inputs = {p: path for p, path in paths.items() if p not in outs}
    params = read_params()[name]
    if absent := [str(path) for path in inputs.values() if not path.exists()]:
        raise ValueError(f"{', '.join(absent)} is missing; run 'dvc repro {name}', which makes what a stage needs")
    started = record.start(name, params.model_dump(mode="json"), inputs) if keep_record else None
    partial = {p: path.with_name(f".{path.name}.partial") for p, path in outs.items()}
    try:
        for path in partial.values():
            _remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
        summary = stage(**inputs, **partial, params=params)
        for p, path in outs.items():
            _remove(path)
            partial[p].rename(path)
    finally:
        for path in partial.values():
            _remove(path)
    if started:
        told = {p: path for p, path in outs.items() if _PRIVATE not in marks[p]}
        reports = [str(outs[p]) for p in summary.reports]
        record.finish(started, arguments[-1], told, summary.metrics, summary.history, reports, known_as=summary.record)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
