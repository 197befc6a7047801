"""The regulator's folder of a registered version: of any, also an older one, and a newer one that is added where the form was filled in."""

import getpass
import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.checkpoint.config import read_config
from tasks.registry import audit, tracking, versions
from tasks.registry.base_terms import base_terms
from tasks.registry.compliance import form
from tasks.registry.compliance.evidence import Compared, Evidence
from tasks.registry.compliance.files import write_compliance
from tasks.registry.compliance.names import DOCUMENT, FOLDER, FORM_TAG, LATER_TAG
from tasks.registry.lineage.passport import COPY, FILE
from tasks.registry.standards.export import passport_of
from tasks.runtime.digests import sha256
from tasks.runtime.params import PARAMS, load

if TYPE_CHECKING:
    from tasks.registry.tracking import MlflowClient

MAX_NAMED = 5  # empty fields


def export(which: str, folder: Path) -> list[Path]:
    """Write it to a new directory, with the form that is here; the files. ``ValueError`` where there is no such version, the directory is
    there, or the form is none."""
    if folder.exists():
        raise ValueError(f"{folder} exists; give a name that does not")
    client = tracking.connect()
    write_compliance(folder, _evidence(client, versions.find(client, which)), form.text_here())
    return sorted(folder.iterdir())


def compared_with(client: "MlflowClient", name: str, champion: Mapping[str, Any] | None) -> Compared | None:
    """What a decision compared with. ``champion``: as the decision names it."""
    if champion is None:
        return None
    number = int(champion["version"])
    try:
        version = versions.version_of(client, name, str(number))
        return Compared(number, _passport(client, version))
    except (ValueError, OSError):
        return Compared(number, None)


def tags_of(form_text: str) -> dict[str, str]:
    """What a version with a folder of this form carries."""
    return {FORM_TAG: hashlib.sha256(form_text.encode()).hexdigest()}


def empty_fields() -> list[str]:
    """The fields that the form in this directory leaves empty: all of them where there is no form."""
    return form.empty_fields(form.parse(form.text_here()))


def add_newest(client: "MlflowClient", version: Any) -> None:
    """Give a version a folder with the form in this directory, unless it has one.

    ``ValueError`` names the fields that are empty: then nothing is added.
    """
    if empty := empty_fields():
        named = ", ".join(empty[:MAX_NAMED]) + (f" and {len(empty) - MAX_NAMED} more" if len(empty) > MAX_NAMED else "")
        raise ValueError(
            f"params.yaml: register.compliance is required, and {form.FORM} leaves {len(empty)} fields empty: {named}; "
            f"'python -m tasks.registry compliance {version.version} FOLDER' writes the form with all of them"
        )
    text = form.text_here()
    expected = tags_of(text)
    if version.tags.get(FORM_TAG) == expected[FORM_TAG]:
        return
    number = 2 + sum(bool(LATER_TAG.fullmatch(tag)) for tag in version.tags)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / f"{FOLDER}-{number}"
        write_compliance(folder, _evidence(client, version), text)
        client.log_artifacts(version.run_id, str(folder), folder.name)
        digest = sha256(folder / DOCUMENT)
    # The tag with the form's digest last: without it the folder is written again.
    for tag, value in ({f"compliance.{number}.sha256": digest} | expected).items():
        client.set_model_version_tag(version.name, version.version, tag, value)
    why = f"{form.FORM} was filled in: {FOLDER}-{number}"
    audit.append(client, version.name, "compliance", version.version, who=getpass.getuser(), why=why, evidence=digest)


def _evidence(client: "MlflowClient", version: Any) -> Evidence:
    """What is known of a registered version."""
    document = _passport(client, version)
    decision = json.loads(_artifact(client, version, "decision-1.json").read_bytes())
    source = str((document["stages"].get("base", {}).get("params") or {}).get("source", ""))
    config = read_config(_artifact(client, version, f"{COPY}config.json").parent)
    has_params = PARAMS.name in document["artifacts"]
    return Evidence(
        document=document,
        terms=base_terms(source, family=config.family.name, vocabulary=config.vocab_size),
        comparisons=decision.get("comparisons") or [],
        compared=compared_with(client, version.name, decision.get("champion")),
        gate=load(_artifact(client, version, PARAMS.name)).get("register", {}) if has_params else {},
    )


def _passport(client: "MlflowClient", version: Any) -> dict[str, Any]:
    return passport_of(version, _artifact(client, version, FILE).parent)


def _artifact(client: "MlflowClient", version: Any, name: str) -> Path:
    """One file: a server would send the weights with the folder."""
    return versions.artifact(client, str(version.run_id), name)
