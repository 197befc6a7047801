"""``compliance.yaml``: what a person must state of a version, strict and versioned. A field that is missing or blank counts as empty.

Whoever cannot say something writes that, "not applicable" for instance; only an empty field blocks a promotion.
"""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tasks.registry.compliance.hazards import ASSESSED, HAZARDS
from tasks.runtime.errors import did_you_mean
from tasks.runtime.params import Params, check

FORM = Path("compliance.yaml")
MAX_CHARACTERS = 20_000
# What XML 1.0 cannot hold.
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _printable(text: str) -> str:
    if _UNPRINTABLE.search(text):
        raise ValueError("it has a control character; type it anew")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"it has more than {MAX_CHARACTERS:,} characters")
    return text.strip()


Text = Annotated[str, AfterValidator(_printable)]


def _asks(question: str) -> str:
    field: str = Field("", description=question)
    return field


class Assessment(Params):
    """What a person says of a hazard."""

    severity: Text = _asks("how severe the harm is")
    probability: Text = _asks("how probable the harm is, and how that is known")
    residual_risk: Text = _asks("what is done about it, and whether the risk that stays is acceptable")


def _known_hazards(hazards: dict[str, Assessment]) -> dict[str, Assessment]:
    if unknown := sorted(hazards.keys() - HAZARDS.keys()):
        hint = did_you_mean(unknown[0], list(HAZARDS)) or f"; there are {', '.join(HAZARDS)}"
        raise ValueError(f"there is no hazard {unknown[0][:50]!r}{hint}")
    return hazards


class Form(Params):
    """The form. Each field says what is asked."""

    format: Literal[1]
    responsible: Text = _asks("who filled this in and answers for it: name, role, date")
    developer_name: Text = _asks("who developed the model")
    developer_contact: Text = _asks("how to reach them")
    funding: Text = _asks("who paid for the development")
    third_parties: Text = _asks("what others contributed: data, services, review")
    stakeholders: Text = _asks("who was consulted: clinicians, patients, administrators")
    release_stage: Text = _asks("for instance research, pilot or deployed")
    availability: Text = _asks("in which countries and sites it is available")
    regulatory_status: Text = _asks("approvals that it has, or that it has none")
    intended_use: Text = _asks("what it is to be used for, and at which step of the work")
    patient_population: Text = _asks("which patients it is to be used for")
    intended_users: Text = _asks("who is to use it")
    decision_role: Text = _asks("whether it informs, augments or replaces decisions")
    how_to_use: Text = _asks("instructions for use, or where they are")
    out_of_scope: Text = _asks("tasks, settings and populations for which users are cautioned against it")
    output_value: Text = _asks("what its output is worth to the user")
    risks_and_limitations: Text = _asks("known risks, inappropriate uses and limitations besides the measured ones")
    biases_and_ethics: Text = _asks("known biases and ethical considerations")
    clinical_risk_level: Text = _asks("the clinical risk, and by which scale")
    data_selection: Text = _asks("how the raw data was obtained, labelled and selected before it came to the pipeline")
    input_variables: Text = _asks(
        "whether the text states race, ethnicity, language, sexual orientation, gender identity, sex, date of birth, social "
        "determinants of health or health status, and whether that is used"
    )
    demographics: Text = _asks("how the people in the training data represent those it is used for")
    relevance: Text = _asks("how the training data resembles the setting it is used in")
    fairness_approach: Text = _asks("what was done so that output is fair")
    bias_mitigation: Text = _asks("what was done to manage, reduce or remove bias")
    internal_fairness: Text = _asks("fairness on test data of the same source, if anybody measured it")
    external_data: Text = _asks("data, setting or place of a validation outside the source of the training data")
    external_party: Text = _asks("who conducted it")
    external_demographics: Text = _asks("who the people in that data are")
    external_process: Text = _asks("how it was conducted")
    external_validity: Text = _asks("its results")
    external_fairness: Text = _asks("fairness on that data")
    outcome_evaluation: Text = _asks("references to evaluations of its use on outcomes of patients")
    monitoring_validity: Text = _asks("how, and how often, validity is monitored")
    local_validity: Text = _asks("validity on data of the site that uses it")
    monitoring_fairness: Text = _asks("how, and how often, fairness is monitored")
    local_fairness: Text = _asks("fairness on data of the site that uses it")
    update_process: Text = _asks("how, and how often, it is updated")
    correction: Text = _asks("how soon performance is corrected when a risk shows")
    interfaces: Text = _asks("hardware and software outside it that it works with")
    forms_of_supply: Text = _asks("in which forms it is given to users: download, service, part of a product")
    target_hardware: Text = _asks("on which hardware it is to run")
    illustrations: Text = _asks("of a product that it is part of: photographs, markings, layout, or where they are")
    user_interface: Text = _asks("what the user sees and does")
    design_rationale: Text = _asks("why it was designed so, for whom, and which trade-offs were chosen")
    human_oversight: Text = _asks("who oversees it, by which measures, and what helps them to read its output")
    planned_changes: Text = _asks("changes that are planned from the start, and how compliance is kept")
    cybersecurity: Text = _asks("measures of the systems that it runs in")
    metrics_rationale: Text = _asks("why the metrics fit the use")
    risk_management: Text = _asks("the risk management system: process, scales, criteria of acceptance")
    other_hazards: Text = _asks("hazards of this use that the table has not")
    standards: Text = _asks("harmonised standards that are applied, or other specifications and solutions instead")
    declaration: Text = _asks("the EU declaration of conformity, where it is, or that there is none")
    post_market: Text = _asks("the plan that watches it in use")
    publications: Text = _asks("peer-reviewed publications about it")
    consent: Text = _asks("how patients consent or are told")
    hazards: Annotated[dict[str, Assessment], AfterValidator(_known_hazards)] = Field({}, description="each hazard, assessed")


def questions() -> dict[str, str]:
    """What is asked, by the field's key; of hazards as ``hazards.<name>.<key>``."""
    asked = {key: str(info.description) for key, info in Form.model_fields.items() if key not in ("format", "hazards")}
    of_hazard = {key: str(info.description) for key, info in Assessment.model_fields.items()}
    return asked | {f"hazards.{name}.{key}": f"{hazard.hazard}: {of_hazard[key]}" for name, hazard in HAZARDS.items() for key in ASSESSED}


def statements(form: Form) -> dict[str, str]:
    """What a person stated, by the keys of ``questions``; empty text where nothing."""
    stated = form.model_dump(exclude={"format", "hazards"})
    for name in HAZARDS:
        assessment = form.hazards.get(name, Assessment())
        stated |= {f"hazards.{name}.{key}": getattr(assessment, key) for key in ASSESSED}
    return stated


def empty_fields(form: Form) -> list[str]:
    """The keys of the fields that a person must still fill in."""
    return [key for key, text in statements(form).items() if not text]


def text_here() -> str:
    """The text of the form in this directory; the empty form where there is none."""
    return FORM.read_text(encoding="utf-8") if FORM.exists() else empty_form()


def parse(text: str, called: str = str(FORM)) -> Form:
    """The form; ``ValueError`` names the file and each field that is unknown or ill-typed."""
    try:
        raw = YAML(typ="safe").load(text)
    except YAMLError as error:
        mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
        raise ValueError(f"{called} is not YAML{f': see line {mark.line + 1}' if mark else ''}") from None
    form, problems = check("compliance", Form, raw)
    if form is None:
        raise ValueError(f"{called}: " + "; ".join(problems))
    return form


def empty_form() -> str:
    """The form with every field empty, as YAML with a comment on each."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# What a person states of a version; docs/compliance.md says how it is used. Where something does not apply, write that."
    yield "format: 1"
    asked = questions()
    for key, question in asked.items():
        if not key.startswith("hazards."):
            yield from (
                "",
                *textwrap.wrap(question[0].upper() + question[1:], 118, initial_indent="# ", subsequent_indent="# "),
                f'{key}: ""',
            )
    yield from ("", "# Of each hazard: how severe and how probable the harm is, and whether the risk that stays is acceptable.", "hazards:")
    for name, hazard in HAZARDS.items():
        yield from (f"  # {hazard.hazard}", f"  {name}:", *(f'    {key}: ""' for key in ASSESSED))
