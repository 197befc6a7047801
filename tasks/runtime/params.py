"""``params.yaml``: its file, and what every section of it is: strict, and fixed once it is read."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from tasks.runtime.errors import did_you_mean

PARAMS = Path("params.yaml")
TAG = re.compile(r"<\w+>")  # tells the forms of a value apart that may have several, and is no key
# Keys that an older params.yaml may have, and their names now. An index in a list is left out.
RENAMED = {
    "preprocess.other": "preprocess.ood",
    "preprocess.deidentify.plantings": "preprocess.deidentify.injections",
    "validate.wording": "validate.boilerplate",
    "register.guarded": "register.guardrails",
    "register.primary.gain": "register.primary.min_improvement",
    "register.thresholds.most": "register.thresholds.max",
    "register.thresholds.least": "register.thresholds.min",
}


class Params(BaseModel):
    """A section of ``params.yaml``: no unknown keys, no silent conversions, no changes."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


Section = TypeVar("Section", bound=Params)


def read_section(name: str, model: type[Section], path: Path = PARAMS) -> Section:
    """One section of ``params.yaml``, checked; ``ValueError`` names each of its keys that is unknown, missing or ill-typed."""
    raw = load(path)
    if name not in raw:
        raise ValueError(f"{path}: section {name!r} is missing")
    section, problems = check(name, model, raw[name])
    if section is None:
        raise ValueError(f"{path}: " + "; ".join(problems))
    return section


def load(path: Path) -> dict[str, Any]:
    """The sections as they are written; ``ValueError`` where the file is missing, is not YAML or has no sections."""
    try:
        raw = YAML(typ="safe").load(path)  # YAML 1.2, as DVC reads it: 3e-4 is a number
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; run from the repository's directory") from None
    except YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected one section per stage")
    return raw


def check(name: str, model: type[Section], raw: object) -> tuple[Section | None, list[str]]:
    """The section, or what is wrong with it."""
    try:
        # JSON mode is strict about types and still takes a list for a tuple, which is all that YAML can write.
        return model.model_validate_json(json.dumps(raw, default=str)), []
    except ValidationError as error:
        return None, [_problem(name, model, e) for e in error.errors()]


def _problem(section: str, model: type[Params], error: Any) -> str:
    """What pydantic says of a value, with the path of its key; of an unknown key, its new name or which one may be meant."""
    where, message = tuple(step for step in error["loc"] if not TAG.fullmatch(str(step))), str(error["msg"])
    message = message[:1].lower() + message[1:]
    key = ".".join([section, *map(str, where)])
    if error["type"] == "extra_forbidden":
        if new_name := RENAMED.get(".".join([section, *(step for step in where if isinstance(step, str))])):
            return f"{key} was renamed: {new_name}"
        valid_keys = _keys(model, where[:-1])
        message = "unknown key" + (did_you_mean(where[-1], valid_keys) or f"; there are {', '.join(valid_keys)}")
    elif error["type"] == "literal_error":
        message += did_you_mean(error["input"], re.findall(r"'([^']*)'", error["ctx"]["expected"]))
    return f"{key}: {message}"


def _keys(kind: Any, where: Iterable[str | int]) -> list[str]:
    """The keys that a model has where a path of keys and places in lists leads to."""
    steps = list(where)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _keys(kind.model_fields[str(steps[0])].annotation, steps[1:]) if steps else list(kind.model_fields)
    # Of dict[str, X], tuple[X, ...] and X | None, what a step leads to is some X.
    rest = steps if type(None) in get_args(kind) else steps[1:]
    return next((keys for part in get_args(kind) if (keys := _keys(part, rest))), [])
