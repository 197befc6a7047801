"""A run looks whether its state was set by somebody else, and then ends: what a run's page says and what its processes do stay one.

A run that was stopped for a while (a suspended machine, SIGSTOP, a network that was cut) is called crashed by the automation of
flows/deploy.py; by then another run may work here. Who pauses a run, or sets its state by hand, wants it to stop, too.
"""

import contextvars
import os
import threading
import time
from logging import Logger, LoggerAdapter
from typing import Any
from uuid import uuid4

import httpx
from prefect import Flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.logging import get_logger
from prefect.logging.handlers import APILogHandler
from prefect.states import Cancelled, Crashed, State

from flows import notices

SECONDS = 10.0  # between two looks
GRACE = 5.0  # in which this process learns of a state that it set itself
AGAIN = "start it again, and training goes on from its last whole state"
STOPPED = "it stopped then, with its processes"
LOST_PLACE = f"the Prefect server held its place no longer, as it did not hear of the run for minutes; it stopped then; {AGAIN}"
BEGUN = time.monotonic()


def watch() -> None:
    """From now on, in the background, as long as the run of the current context goes on."""
    context = FlowRunContext.get()
    if context and context.flow_run:
        looking = contextvars.copy_context()
        arguments = (_look, context.flow_run, context.flow.name if context.flow else "", get_run_logger())
        threading.Thread(target=looking.run, args=arguments, daemon=True, name="watch").start()


def failed(flow: Flow[Any, Any], run: FlowRun, state: State[Any]) -> None:
    """A hook of flows. A run that loses its place among those that may run at once is cancelled by Prefect's client, which takes that
    for the end of its time: a run that had time left did not time out."""
    limit = flow.timeout_seconds
    if state.name == "TimedOut" and limit and "exceeded timeout" in (state.message or "") and time.monotonic() - BEGUN < limit:
        state = Crashed(message=LOST_PLACE)
        _set(run, state, get_logger("watch"))
    notices.ended_badly(flow, run, state)


def _look(run: FlowRun, flow: str, logger: "Logger | LoggerAdapter[Any]") -> None:
    heard, silence = time.time(), 0.0  # by the clock on the wall, which goes on while a machine sleeps
    while not _has_ended(run.state):
        time.sleep(SECONDS)
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(run.id).state
        except (httpx.HTTPError, PrefectException, OSError):  # a later look will do
            continue
        heard, silence = time.time(), max(silence, time.time() - heard)
        if not _has_ended(state):
            continue
        time.sleep(GRACE)
        if state and not _has_ended(run.state):
            _end(run, _truth(run, state, silence), f"{flow} {run.name}", logger)


def _has_ended(state: State[Any] | None) -> bool:
    return state is not None and (state.is_final() or state.is_paused())


def _truth(run: FlowRun, state: State[Any], silence: float) -> State[Any]:
    """What the run's state must say when the run has stopped for the state that somebody else set."""
    details, name = state.state_details, state.name
    if state.is_paused() and not run.deployment_id:  # nobody would take it up again
        return Cancelled(message=f"was paused, which a run without a deployment cannot be; {STOPPED}; {AGAIN}")
    if state.is_paused():
        details = details.model_copy(update={"pause_reschedule": True})  # a worker starts it when it is resumed
        name, message = "Suspended", f"was suspended; {STOPPED}; when it is resumed, training goes on from its last whole state"
    elif state.type == StateType.CRASHED:
        long = f" for {silence:.0f} s" if silence > 2 * SECONDS else ""
        message = f"was silent{long} and was called crashed; {STOPPED}; {AGAIN}"
    else:
        message = f"was called {str(state.name).lower()} while it ran; {STOPPED}; {AGAIN}"
    return state.model_copy(update={"id": uuid4(), "name": name, "message": message, "state_details": details})


def _end(run: FlowRun, state: State[Any], subject: str, logger: "Logger | LoggerAdapter[Any]") -> None:
    """Tell it in the log, in the state and by a notice, and end this process; DVC and its stage end with it (runtime/processes.py)."""
    try:
        logger.error(f"this run {state.message}")
        _set(run, state, logger)
        notices.send(f"{subject}: {str(state.name).lower()}", state.message or "")
        APILogHandler().flush()
    finally:
        # A worker would call a run crashed that ends with another status; a shell should see that it did not complete.
        os._exit(0 if run.deployment_id else 1)


def _set(run: FlowRun, state: State[Any], logger: "Logger | LoggerAdapter[Any]") -> None:
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, state, force=True)
    except (httpx.HTTPError, PrefectException, OSError) as error:
        logger.error(f"the state of this run could not be put right: {type(error).__name__}")
