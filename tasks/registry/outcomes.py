"""What a decision leads to: the version becomes champion at once, waits for something, or never; and promotion on a person's word.

Who is champion, and how that is recorded, is promotion.py's matter.
"""

from enum import StrEnum
from typing import Any

from tasks.registry import audit, promotion, tracking, versions
from tasks.registry.compliance.export import add_newest, empty_fields
from tasks.registry.params import RegisterParams
from tasks.runtime.params import read_section

PROMOTABLE = ("first", "better")


class Outcome(StrEnum):
    """What a decision led to. The value is the text of the version's tag ``decision.<n>.outcome``."""

    PROMOTED = "promoted"
    KEPT = "kept"
    REFUSED = "refused"
    TAINTED = "tainted"
    NEEDS_ALLOW_DIRTY = "waits for --allow-dirty"
    NEEDS_REASON = "waits for --why, as another version became champion meanwhile"
    NEEDS_COMPLIANCE = "waits for compliance.yaml"
    NEEDS_SIGN_OFF = "waits for sign-off"


CLOSED = (Outcome.REFUSED, Outcome.TAINTED, Outcome.PROMOTED)  # outcomes after which the version is no challenger


def apply_decision(
    client: tracking.MlflowClient,
    name: str,
    version: str,
    number: int,
    decision: dict[str, Any],
    *,
    sign_off: bool,
    compliance: bool = False,
) -> str:
    """Do once what a decision leads to, and write it on the version as ``decision.<n>.outcome``: the text of an ``Outcome``.

    ``sign_off``: a person promotes; ``compliance``: no field of the regulator's folder may be empty.
    """
    tags = client.get_model_version(name, version).tags
    if earlier := tags.get(f"decision.{number}.outcome"):
        return earlier
    outcome = _outcome(client, name, version, decision, tags, _demanded(sign_off=sign_off, compliance=compliance))
    if outcome is Outcome.PROMOTED:
        if compliance:
            add_newest(client, client.get_model_version(name, version))
        evidence = tags.get(f"decision.{number}.sha256", "")
        promotion.promote(client, name, version, who="register", why=f"decision {number}: {decision['reasons'][0]}", evidence=evidence)
    newest = str(version) == str(versions.versions_of(client, name)[-1].version)
    if outcome not in CLOSED and newest and str(version) not in promotion.champions(audit.events(client, name)):
        client.set_registered_model_alias(name, promotion.CHALLENGER, version)
    client.set_model_version_tag(name, version, f"decision.{number}.outcome", outcome.value)
    return outcome.value


def _outcome(
    client: tracking.MlflowClient, name: str, version: str, decision: dict[str, Any], tags: dict[str, str], demanded: Outcome
) -> Outcome:
    """``demanded``: the outcome where nothing else stands against a promotion."""
    if decision["verdict"] == "refused":
        return Outcome.REFUSED
    if decision["verdict"] not in PROMOTABLE:
        return Outcome.KEPT
    if tags.get("tainted"):
        return Outcome.TAINTED
    if tags.get("code.dirty") != "false":
        return Outcome.NEEDS_ALLOW_DIRTY
    if str(versions.aliases(client, name).get(promotion.CHAMPION, "")) not in (_compared(decision), str(version)):
        return Outcome.NEEDS_REASON
    return demanded


def _demanded(*, sign_off: bool, compliance: bool) -> Outcome:
    """What the params wait for."""
    if compliance and empty_fields():
        return Outcome.NEEDS_COMPLIANCE
    return Outcome.NEEDS_SIGN_OFF if sign_off else Outcome.PROMOTED


def _compared(decision: dict[str, Any]) -> str:
    """The version that was champion when a decision was made; empty where there was none."""
    return str((decision["champion"] or {}).get("version", ""))


def promote_by_hand(name: str, which: str, *, by: str, why: str, allow_dirty: bool) -> str:
    """Promote on a person's word; ``ValueError`` says what stands against it."""
    client = tracking.connect()
    version = versions.find(client, which)
    if version.name != name:
        raise ValueError(f"{which} is not of {name}, the model of params.yaml")
    promotion.mark_tainted(client, name, promotion.withdrawn())
    version = client.get_model_version(name, version.version)
    label = f"{name} version {version.version}"
    number, decision = promotion.latest_decision(client, version)
    reasons = " ".join(decision["reasons"])
    if tainted := version.tags.get("tainted"):
        raise ValueError(f"{label} is tainted and cannot be promoted: {tainted}")
    if decision["verdict"] == "refused":
        raise ValueError(f"{label} was refused by decision {number} and cannot be promoted: {reasons}")
    if decision["verdict"] not in PROMOTABLE and not why:
        raise ValueError(f"{label} was not found better by decision {number}: {reasons} If it is to be champion all the same, say --why")
    compared, present = _compared(decision), str(versions.aliases(client, name).get(promotion.CHAMPION, ""))
    if present not in (compared, str(version.version)) and not why:
        then = f"version {compared}" if compared else "no champion"
        raise ValueError(f"{label} was compared with {then}, and version {present or 'none'} is champion now; say --why")
    if version.tags.get("code.dirty") != "false" and not allow_dirty:
        raise ValueError(f"{label} was made with uncommitted code and cannot be rebuilt from its commit; --allow-dirty promotes it anyway")
    if read_section("register", RegisterParams).compliance == "required":
        add_newest(client, version)
    evidence = version.tags[f"decision.{number}.sha256"]
    word = f"signed off on decision-{number}.json ({evidence[:12]})" + (f": {why}" if why else "")
    audit.append(client, name, "sign-off", version.version, who=by, why=word, evidence=evidence)
    promotion.promote(client, name, version.version, who=by, why=word + (" (dirty allowed)" if allow_dirty else ""), evidence=evidence)
    client.set_model_version_tag(name, version.version, f"decision.{number}.outcome", Outcome.PROMOTED.value)
    return version.version
