"""The pipeline as a Prefect flow: ``python -m flows.pipeline``, or a deployment of prefect.yaml.

One task per DVC stage. A task asks DVC whether its stage is up to date and, if not, runs ``dvc repro --single-item`` in a process
group of its own, which ends with the flow however that ends. DVC alone decides what runs; the flow takes no hyper-parameters.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # while Prefect is imported; main() takes it

from flows import prefect_address

prefect_address.forget_dead_server()  # before Prefect reads its settings

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.states import Completed, Failed, State

from flows import notices, review, watch
from flows.dvc_process import GUARD, ROOT, dvc_lines, free_stale_locks, has_remote, is_up_to_date, stages
from flows.revision import NotThere, Unusable, check_out
from tasks.runtime import chain
from tasks.runtime.digests import files_in
from tasks.runtime.permissions import close_to_others
from tasks.runtime.processes import INTERRUPTED, end_with_parent, interrupts_held, take_interrupts
from tasks.runtime.settings import prefect_home

Stage = Literal["base", "preprocess", "augment", "shard", "finetune", "validate", "register"]
DATA = "data.dvc"
# What DVC prints when it did not run a stage's command.
RESTORED = ("is cached - skipping run", "didn't change, skipping")
# What DVC prints when a stage ended with EX_TEMPFAIL: what it needs did not answer (tasks/stage.py).
TEMPORARY = f"exited with {os.EX_TEMPFAIL}"
# data/ is still that of the commit before: DVC's remote did not answer. What data/ holds is in DVC's cache then.
TO_PULL = Path(".cache/data-to-pull")
_PROGRESS = re.compile(r": (\[[#.]+\] )?\d+ %, [\d,]+ of [\d,]+ ")
UNAVAILABLE = "Unavailable"
NONE: Mapping[str, Task[[], State[Any]]] = {}
LINES_TOLD = 6  # of a failed stage's output, in its state

# Where a flow runs, not what it makes: a deployment's job_variables may say other numbers.
HOURS = float(os.environ.get("PIPELINE_TIMEOUT_HOURS", "24"))
DELAYS = [float(seconds) for seconds in os.environ.get("PIPELINE_RETRY_SECONDS", "60,300,900").split(",")]
OPTIONS: dict[str, Any] = {
    "timeout_seconds": HOURS * 3600,
    "on_failure": [watch.failed],
    "on_crashed": [notices.ended_badly],
    "on_cancellation": [notices.ended_badly],
}


def _may_go_by_itself(_task: object, _run: object, state: State[Any]) -> bool:
    """Whether a failure is of what the task needs, and not of what it was given: only then another attempt is worth it."""
    return state.name == UNAVAILABLE


RETRIED: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": len(DELAYS),
    "retry_delay_seconds": DELAYS,
    "retry_condition_fn": _may_go_by_itself,
}


@flow(name="pipeline", **OPTIONS)
def pipeline(through: Stage = "register", force: bool = False, revision: str = "") -> State[Any]:
    """Version what is in ``data/``, then bring the stages up to date, in the order of their graph.

    Args:
        through: the last stage; with it come those that it needs.
        force: run the stages again although nothing changed.
        revision: a branch, which is brought to what its remote has, or a commit to work with; with it come that commit's data.
            Empty: code and data as they are here.
    """
    prepare()
    if revision and not (state := code(revision, return_state=True)).is_completed():
        return Failed(name=state.name, message=state.message)
    return bring_all_up_to_date(through, force=force)


def prepare() -> None:
    """What every flow does first: it stands in the project, which is closed to others, ends with its worker, and nothing dead holds it up.

    ``ValueError`` where another account of the machine could decide what runs here.
    """
    os.chdir(ROOT)
    close_to_others(prefect_home())
    if "PREFECT__FLOW_RUN_ID" in os.environ:  # set by a worker
        end_with_parent()
    watch.watch()
    free_stale_locks()


def bring_all_up_to_date(through: str, *, force: bool = False, after: Mapping[str, Task[[], State[Any]]] = NONE) -> State[Any]:
    """Params and data first, then stage after stage until one fails, ``after`` it a further task; then what a person wants to see of it."""
    if not Path("data").exists():
        return Failed(message="data/ is missing: run 'dvc pull', or 'python -m tasks.corpus data', or put your own files there")
    decided = review.registration()
    for state in _states(through, force, after):
        if not state.is_completed():
            return Failed(name=state.name, message=state.message)
    if through == "register":
        review.publish()
        notices.decided(decided, review.registration())
    return Completed(message="every stage is up to date" if through == "register" else f"{through} is up to date")


def _states(through: str, force: bool, after: Mapping[str, Task[[], State[Any]]]) -> Iterator[State[Any]]:
    yield params(return_state=True)
    yield version_data(return_state=True)
    for stage in stages(through):
        yield dvc_stage.with_options(task_run_name=stage)(stage, force, return_state=True)
        if stage in after:
            yield after[stage](return_state=True)


@task(task_run_name="code", **RETRIED)
def code(revision: str) -> State[Any]:
    """Take a git revision, and the data that belongs to it where DVC has a remote."""
    try:
        check_files()
        if Path("data").exists() and not TO_PULL.exists() and not is_up_to_date(DATA):
            raise Unusable(f"data/ holds what {DATA} does not know; 'dvc add data' and commit it, or run without a revision")
        done = check_out(revision)
        if not is_up_to_date(DATA):
            TO_PULL.parent.mkdir(exist_ok=True)
            TO_PULL.touch()
            _run(["pull" if has_remote() else "checkout", DATA])
        TO_PULL.unlink(missing_ok=True)
    except Unusable as error:
        return Failed(message=str(error))
    except (NotThere, subprocess.CalledProcessError) as error:
        return Failed(name=UNAVAILABLE, message=f"{revision} or its data could not be fetched: {error}")
    return Completed(message=done)


@task(task_run_name="params", cache_policy=NO_CACHE)
def params() -> State[Any]:
    """Check params.yaml as a whole, while the outputs of every stage are still there."""
    return _bring_up_to_date(GUARD, ["repro", "--single-item", GUARD], ran="Checked")


@task(task_run_name="data", cache_policy=NO_CACHE)
def version_data() -> State[Any]:
    """Take a changed raw corpus into data.dvc; says whether it changed."""
    try:
        check_files()
    except Unusable as error:
        return Failed(message=str(error))
    return _bring_up_to_date(DATA, ["repro", DATA], ran="Versioned")


def check_files() -> None:
    """``Unusable`` where data/ holds what DVC leaves out or would wait for without end."""
    try:
        for _ in files_in(Path("data")) if Path("data").exists() else ():
            pass
    except ValueError as error:
        raise Unusable(str(error)) from None


@task(**RETRIED)
def dvc_stage(stage: str, force: bool = False) -> State[Any]:
    """``Cached``: nothing to do. ``Restored``: DVC knew the result. ``Completed``: the stage's command ran."""
    arguments = ["repro", "--single-item", *(["--force"] if force else []), stage]
    return _bring_up_to_date(stage, arguments, ran="Completed", force=force)


def _bring_up_to_date(target: str, arguments: list[str], *, ran: str, force: bool = False) -> State[Any]:
    if not force and is_up_to_date(target):
        return Completed(name="Cached", message=f"{target} is up to date")
    lines: list[str] = []
    try:
        _run(arguments, lines)
    except subprocess.CalledProcessError:
        name = UNAVAILABLE if any(TEMPORARY in line for line in lines) else "Failed"
        return Failed(
            name=name, message=f"{target} failed:\n" + "\n".join([line for line in lines if not _PROGRESS.search(line)][-LINES_TOLD:])
        )
    if target == DATA:
        get_run_logger().warning("the raw corpus changed; data.dvc has its new version")
    if not any(words in line for line in lines for words in RESTORED):
        return Completed(name=ran, message=f"{target} is up to date now")
    try:
        chain.check(stages=[target])
    except ValueError as error:
        return Failed(message=f"what DVC restored of {target} is not what it was: {error}")
    return Completed(name="Restored", message=f"{target} is up to date now")


def _run(arguments: list[str], lines: list[str] | None = None) -> None:
    """DVC, its lines into the run's log and into ``lines``."""
    logger = get_run_logger()
    for line in dvc_lines(arguments):
        logger.info(line)
        if lines is not None:
            lines.append(line)


def main() -> None:
    """Run the pipeline once from the command line; exit status 1 where it fails, 130 after Ctrl-C."""
    try:
        with interrupts_held():
            get_client(sync_client=True)  # Prefect's temporary server, where none is named; Ctrl-C is for us, who end it last
        take_interrupts()
        result = pipeline(return_state=True)
    except KeyboardInterrupt:
        print("pipeline: stopped by Ctrl-C; what is done stays, and the next run goes on from there", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if not result.is_completed():
        sys.exit(f"pipeline: {result.message}")


if __name__ == "__main__":
    main()
