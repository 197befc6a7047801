"""Runs a stage: paths from the command line, params from ``params.yaml``, outputs whole or not at all, and its record.

A stage is a plain function ``def shard(documents: Path, shards: Out, *, params: ShardParams) -> StageResult``. It knows nothing of
DVC, Prefect or MLflow; dvc.yaml alone says which paths it gets, the last of them the file of its record.
"""

import inspect
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, get_type_hints

from tasks import forecast
from tasks.params import read_params
from tasks.runtime import chain, disk, record
from tasks.runtime.ahead import Call, started_ahead
from tasks.runtime.errors import Unavailable
from tasks.runtime.files import whole
from tasks.runtime.params import Params
from tasks.runtime.permissions import close_to_others
from tasks.runtime.processes import INTERRUPTED, asked_to_stop, end_with_parent, take_interrupts

# Imports mlflow, which costs seconds: in a process of its own, while the stage works. Logging must not make a stage run again.
TRACKING = "tasks.registry.tracking"
_OUT, _PRIVATE = "out", "private"
Out = Annotated[Path, _OUT]  # a path that the stage writes; every other path is read
PrivateOut = Annotated[Path, _OUT, _PRIVATE]  # one that stays on this machine: no record, cache or tracker knows it


@dataclass(frozen=True)
class StageResult:
    """What a stage reports of its run: metrics, metrics per step, and which of its outputs a person reads."""

    metrics: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)  # each with "step"
    reports: tuple[str, ...] = ()  # names of the stage's Out parameters
    record: str = ""  # the record's id, where the tracker has the run already
    partly: bool = False  # an earlier run had done some of the work, or all: what this one took says nothing of a whole one


Stage = Callable[..., StageResult]


def check_params(checked: Out) -> StageResult:
    """The first stage of dvc.yaml. Every stage reads all sections of params.yaml before it works, and so does this one; it has no other
    work. Every other stage depends on its output, which never changes: so nothing runs again for it, and where it fails DVC stops before
    it has removed an output of any other stage.
    """
    checked.write_text("every section of params.yaml is valid\n", encoding="utf-8")
    return StageResult()


def run_stage(stage: Stage, *, record: bool = True) -> None:
    """The ``__main__`` of a stage's module; exits with one line and status 1 for what its user can fix, 75 (EX_TEMPFAIL of
    sysexits.h) for what may pass by itself, or 130 after Ctrl-C.

    ``record=False``: the stage keeps no record, and its command line ends with its own paths.
    """
    name = stage.__name__
    end_with_parent()
    try:
        take_interrupts()
        close_to_others()
        _run(stage, [Path(argument) for argument in sys.argv[1:]], keep_record=record)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not disturb the way out
        _exit(f"{name}: stopped by Ctrl-C; nothing half-written is left, and the next run starts {name} again", INTERRUPTED)
    except (ValueError, OSError) as error:
        if os.environ.get("TRACEBACK"):
            traceback.print_exc()
        status = os.EX_TEMPFAIL if isinstance(error, Unavailable) else INTERRUPTED if asked_to_stop() == signal.SIGINT else 1
        _exit(f"{name}: {error}", status)


def _exit(sentence: str, status: int) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(status)


@dataclass(frozen=True)
class _Paths:
    """What a stage was called with, by parameter, and the path of its record where it keeps one."""

    inputs: dict[str, Path]
    outs: dict[str, Path]
    private: frozenset[str]  # of the outs, those that no record knows
    record: Path | None


def _run(stage: Stage, arguments: list[Path], *, keep_record: bool) -> None:
    name = stage.__name__
    try:
        paths = _paths(stage, arguments, keep_record=keep_record)
        params = read_params()
        if os.environ.get("PASSPORT_KEY"):  # a key that cannot sign is better told before a model is trained
            from tasks.registry.lineage.signature import check_key

            check_key()
        if absent := [str(path) for path in paths.inputs.values() if not path.exists()]:
            raise ValueError(f"{', '.join(absent)} is missing; run 'dvc repro {name}', which makes what a stage needs")
        given = {"params": params[name]} if name in params else {}
        work = forecast.work_of(name, params) if name in params else None
        started = None
        if paths.record:
            started = record.start(name, params[name].model_dump(mode="json"), paths.inputs)
            chain.check_inputs(started.inputs, paths.record.parent)
        if work:
            print(forecast.announce(name, params), flush=True)
    except (ValueError, OSError):
        _bring_back(name)
        raise
    with started_ahead(TRACKING) if started else nullcontext() as call:
        result = _work(stage, paths, given)
        if started and paths.record and call:
            _keep_record(started, paths.record, paths, result)
            _log(name, call)
    if work and not result.partly:
        forecast.remember(name, work)
    if sentence := disk.short_of_room(paths.outs.values(), Path(".dvc/cache")):
        print(f"{name}: {sentence}", flush=True)


def _log(name: str, call: Call) -> None:
    """Hand the records that wait over to the tracking store, if it answers; the stage's work is done and counts whatever goes wrong."""
    try:
        call("replay_pending")
    except OSError as error:
        print(f"{name}: its record waits in {record.PENDING} for the next run: {error}", flush=True)


def _keep_record(started: record.Started, path: Path, paths: _Paths, result: StageResult) -> None:
    public_outs = {p: out for p, out in paths.outs.items() if p not in paths.private}
    reports = [str(paths.outs[p]) for p in result.reports]
    with disk.told_when_full(_written(paths)):
        record.finish(started, path, public_outs, result.metrics, result.history, reports, known_as=result.record)


def _paths(stage: Stage, arguments: list[Path], *, keep_record: bool) -> _Paths:
    hints = get_type_hints(stage, include_extras=True)
    parameters = [p for p in inspect.signature(stage).parameters if p != "params"]
    expected = [*parameters, "record"] if keep_record else parameters
    if len(arguments) != len(expected):
        raise ValueError(f"usage: python -m tasks.{stage.__name__} {' '.join(expected)}  (dvc.yaml has the paths)")
    paths = dict(zip(parameters, arguments, strict=False))
    marks = {p: getattr(hints[p], "__metadata__", ()) for p in parameters}
    outs = {p: path for p, path in paths.items() if _OUT in marks[p]}
    inputs = {p: path for p, path in paths.items() if p not in outs}
    return _Paths(inputs, outs, frozenset(p for p in outs if _PRIVATE in marks[p]), arguments[-1] if keep_record else None)


def _work(stage: Stage, paths: _Paths, given: dict[str, Params]) -> StageResult:
    """Run the stage on temporary names, which get the outputs' names when it is done; after an error nothing half-written stays."""
    with ExitStack() as stack:
        partial = {}
        for parameter, path in paths.outs.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial[parameter] = stack.enter_context(whole(path))
        with disk.told_when_full(_written(paths)):  # here, while what was written still fills the disk
            return stage(**paths.inputs, **partial, **given)


def _written(paths: _Paths) -> list[Path]:
    return [*paths.outs.values(), record.PENDING, Path("mlflow.db"), Path(tempfile.gettempdir())]


def _bring_back(name: str) -> None:
    """DVC has removed the outputs of the stage by now (it sets DVC_STAGE); where the stage did not begin, they must not be lost."""
    if os.environ.get("DVC_STAGE", "").rpartition(":")[2] == name and (back := chain.bring_back(name)):
        print(f"{name}: did not begin; what DVC had removed is back: {', '.join(back)}", file=sys.stderr)
