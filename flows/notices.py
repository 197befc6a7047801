"""Notices to people, through the Prefect block that the setting ``PIPELINE_NOTIFY`` names: ``slack-webhook/team``.

Every block with ``notify`` will do: Slack, Teams, a webhook of your own (``custom-webhook/…``), or ``apprise/…`` below, which takes
any address of Apprise, mail among them. A notice that cannot be delivered is told in the log and stops nothing.
"""

from typing import Any

from prefect import Flow, get_run_logger
from prefect.blocks.core import Block
from prefect.blocks.notifications import AppriseNotificationBlock
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger
from prefect.states import State

from tasks.runtime.settings import setting


class Apprise(AppriseNotificationBlock):
    """An address in Apprise's notation, for example mailtos://user:password@host?to=team@host."""

    _block_type_name = "Apprise"


def ended_badly(flow: Flow[Any, Any], run: FlowRun, state: State[Any]) -> None:
    """A hook of flows: which run, how it ended, and the last lines of the stage that failed."""
    send(f"{flow.name} {run.name}: {(state.name or state.type.value).lower()}", state.message or "")


def decided(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Tell of a decision on a version that was not there before."""
    decision = after.get("decision")
    if decision and (decision["number"], after["version"]) != ((before.get("decision") or {}).get("number"), before.get("version")):
        send(f"{after['name']} version {after['version']}: {decision['outcome']}", "\n".join(decision["reasons"]))


def send(subject: str, body: str) -> None:
    """Through the configured block, if there is one."""
    if not (name := setting("PIPELINE_NOTIFY")):
        return
    try:
        Block.load(name).notify(body, subject)  # type: ignore[union-attr]
    except Exception as error:  # whatever a block, its service or the network does: the run counts
        _logger().warning(f"the notice '{subject}' could not be sent through {name}: {type(error).__name__}")


def _logger() -> Any:
    try:
        return get_run_logger()
    except MissingContextError:  # in a hook
        return get_logger("notices")
