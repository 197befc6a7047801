"""What is taken for an identifier and what becomes of it, as ``params.yaml`` says.

The types are the 18 identifiers of HIPAA's Safe Harbor method, 45 CFR 164.514(b)(2)(i), where one of them falls apart as text does
(an address and its ZIP code); photographs are not text.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from tasks.runtime.params import Params

TYPES = {
    "NAME": "names",
    "FACILITY": "names of hospitals, practices, schools and the like, which are no item of that list",
    "ADDRESS": "geographic units smaller than a state",
    "ZIP": "ZIP codes, of which three digits may stay",
    "DATE": "dates, of which the year may stay",
    "AGE": "ages of 90 and over",
    "PHONE": "telephone numbers",
    "FAX": "fax numbers",
    "EMAIL": "e-mail addresses",
    "SSN": "social security numbers",
    "MRN": "medical record numbers",
    "PLAN": "health plan beneficiary numbers",
    "ACCOUNT": "account numbers",
    "LICENSE": "certificate and license numbers",
    "NPI": "provider numbers, a kind of license number",
    "VEHICLE": "vehicle identifiers and license plates",
    "DEVICE": "device identifiers and serial numbers",
    "URL": "web addresses",
    "IP": "IP addresses",
    "BIOMETRIC": "biometric identifiers",
    "OTHER": "any other unique number or code",
}
# Types by which people whom the data names are looked for: an age identifies nobody by itself.
KNOWN_BY = frozenset(TYPES) - {"AGE"}
# What is clinical in a text and must outlive cleaning. Values come in the order in which they claim a place of a text: those with a label
# of their own before those that a unit or the words around them give away.
VALUES = {
    "ph": "values of pH",
    "vital": "vital signs",
    "lab": "laboratory values",
    "latency": "latencies, velocities and amplitudes of nerves",
    "intake_output": "intake and output",
    "gestational_age": "gestational ages",
    "range": "reference ranges",
    "score": "scores and strengths, n of m",
    "dose": "doses",
    "quantity": "numbers with a unit",
    "decimal": "decimal numbers",
}
CLINICAL = VALUES | {
    "heading": "headings of sections",
    "drug": "drugs",
    "anatomy": "parts of the body",
    "eponym": "signs, diseases and devices named after people",
    "row": "rows of tables, on one line",
    "columns": "rows whose columns are apart",
}
# What the damage of cleaning is measured and limited by.
DAMAGE = (
    {"value": "values of all kinds", "notes": "documents with values, of which one was lost"}
    | CLINICAL
    | {"hard_negatives": "templates that look like identifiers and are none"}
)
# mask: [NAME], or what Safe Harbor lets stand of a ZIP code or age; surrogate: another value that looks alike; keep: as it is.
Action = Literal["mask", "surrogate", "keep"]
# Of dates: year: the year alone; shift: by as many days for all of a group's, which a key decides; keep: as they are.
Dates = Literal["year", "shift", "keep"]


class TokenClassifierParams(Params):
    """A token classifier of the user's in a local folder, as ``preprocess.deidentify.entity_model`` gives it."""

    path: str = Field(min_length=1)
    sha256: str = ""  # of the folder's files, as of base.source; the error for a wrong or missing one gives the right one
    labels: dict[str, str] = Field(min_length=1)  # a type of identifier by label of the model; labels that are not listed are ignored

    @field_validator("labels")
    @classmethod
    def _check_types(cls, labels: dict[str, str]) -> dict[str, str]:
        for label, type_ in labels.items():
            if type_ not in TYPES:
                raise ValueError(f"{label!r} is mapped to {type_!r}, which is no type of identifier; there are {', '.join(TYPES)}")
        return labels


def _form(value: object) -> str:
    return "<folder>" if isinstance(value, dict | TokenClassifierParams) else "<name>"


# A spaCy model by name, or a folder; tags in angle brackets stand in no message.
EntityModelParam = Annotated[Annotated[str, Tag("<name>")] | Annotated[TokenClassifierParams, Tag("<folder>")], Discriminator(_form)]


class DeidentifyParams(Params):
    """The section ``preprocess.deidentify``."""

    entity_model: EntityModelParam  # name==version of an installed spaCy model, or a token classifier; empty: rules alone
    policy: dict[str, Action]  # by type; mask where none is said
    dates: Dates
    allow: tuple[str, ...]  # names and numbers that stay, besides public helplines and medical eponyms
    key_file: str  # 32 or more secret bytes, outside the repository; surrogates and shifted dates are sampled with it
    key_digest: str  # the first 16 hexadecimal digits of its SHA-256: another key is another result
    injections: int = Field(ge=1)  # of every template, to measure recall
    min_recall: dict[str, float]  # by type, of the injected identifiers; the stage fails below it

    @field_validator("policy", "min_recall")
    @classmethod
    def _check_types(cls, by_type: dict[str, object]) -> dict[str, object]:
        if unknown := sorted(set(by_type) - set(TYPES)):
            raise ValueError(f"{unknown[0]!r} is no type of identifier; there are {', '.join(TYPES)}")
        return by_type

    @model_validator(mode="after")
    def _complete(self) -> "DeidentifyParams":
        if "DATE" in self.policy:
            raise ValueError("what becomes of dates is said by 'dates', not by the policy")
        if ("surrogate" in self.policy.values() or self.dates == "shift") and not self.key_file:
            # With public seeds alone anybody could undo a shift.
            raise ValueError("surrogates and shifted dates need a 'key_file': head -c 32 /dev/urandom > ~/deidentify.key")
        return self

    def action(self, type_: str) -> str:
        """What becomes of identifiers of a type: an ``Action``, of dates one of ``Dates``."""
        return self.dates if type_ == "DATE" else self.policy.get(type_, "mask")

    def key(self) -> bytes:
        """The secret; empty where none is needed. ``ValueError`` for a file that is not there, holds too little or is another key."""
        if not self.key_file:
            return b""
        path = Path(self.key_file).expanduser()
        secret = path.read_bytes() if path.is_file() else b""
        if len(secret) < 32:
            raise ValueError(f"params.yaml: preprocess.deidentify.key_file: {path} does not hold 32 bytes or more")
        if (digest := hashlib.sha256(secret).hexdigest()[:16]) != self.key_digest:
            raise ValueError(
                f"params.yaml: preprocess.deidentify.key_digest is not {digest}, as {path} has; if you mean that key, write it"
            )
        return secret
