"""``compliance.json``: all forms of a version in one document, and its JSON Schema."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from tasks.registry.compliance import form as forms
from tasks.registry.compliance.ai_act import QUESTIONS, TITLES
from tasks.registry.compliance.chai import model_card
from tasks.registry.compliance.changes import ChangeLog, change_log
from tasks.registry.compliance.entries import Entry, Strict, answer
from tasks.registry.compliance.evidence import Evidence
from tasks.registry.compliance.hazards import AssessedHazard, assessed
from tasks.registry.compliance.hti1 import ATTRIBUTES

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
SCHEMA_ID = "urn:medllama:compliance:1"


class Version(Strict):
    """Which version it is about."""

    name: str
    number: int
    registered: str


class Section(Strict):
    """A numbered section of Annex IV."""

    number: int
    title: str
    entries: list[Entry] = Field(min_length=1)


class Compliance(Strict):
    """The document. ``files``: SHA-256 of the files that stand beside it."""

    format: Literal[1]
    version: Version
    form: Sha256
    to_be_filled_in: list[str]  # keys of compliance.yaml
    hti_1: list[Entry] = Field(min_length=31, max_length=31)
    eu_ai_act_annex_iv: list[Section] = Field(min_length=9, max_length=9)
    hazards: list[AssessedHazard] = Field(min_length=1)
    change_log: ChangeLog
    chai_applied_model_card: dict[str, Any]
    files: dict[str, Sha256]


def compliance(evidence: Evidence, form_text: str) -> Compliance:
    """The document without the digests of the files beside it. ``ValueError`` where the form is none."""
    form = forms.parse(form_text)
    stated = forms.statements(form)
    version = evidence.document["version"]
    return Compliance(
        format=1,
        version=Version(name=version["name"], number=version["number"], registered=version["made"]),
        form=hashlib.sha256(form_text.encode()).hexdigest(),
        to_be_filled_in=forms.empty_fields(form),
        hti_1=[answer(question, evidence, stated) for question in ATTRIBUTES],
        eu_ai_act_annex_iv=list(_annex(evidence, stated)),
        hazards=list(assessed(evidence, stated)),
        change_log=change_log(evidence),
        chai_applied_model_card=model_card(evidence, stated),
        files={},
    )


def _annex(evidence: Evidence, stated: Mapping[str, str]) -> list[Section]:
    return [
        Section(number=number, title=TITLES[number], entries=[answer(question, evidence, stated) for question in asked])
        for number, asked in QUESTIONS.items()
    ]


def schema() -> dict[str, Any]:
    """The JSON Schema of the document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **Compliance.model_json_schema()}
