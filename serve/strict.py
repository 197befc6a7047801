"""What the models of all requests have in common: strict types, texts of whole characters."""

from collections.abc import Iterable
from itertools import chain
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

MAX_DEPTH = 60  # levels of a JSON Schema


def _check_surrogates(text: str) -> str:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("half of a surrogate pair is no character")
    return text


def _check_schema(schema: dict[str, Any]) -> dict[str, Any]:
    level: list[Any] = [schema]
    for _ in range(MAX_DEPTH):
        level = [part for value in level for part in _parts(value)]
        if not level:
            return schema
        for part in level:
            if isinstance(part, str):
                _check_surrogates(part)
    raise ValueError(f"is more than {MAX_DEPTH} levels deep")


def _parts(value: Any) -> Iterable[Any]:
    """The items of a list; the keys and values of an object."""
    return chain(value, value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()


WHOLE_CHARACTERS = AfterValidator(_check_surrogates)
Text = Annotated[str, WHOLE_CHARACTERS]
JsonSchemaField = Annotated[dict[str, Any], AfterValidator(_check_schema)]
Ignored = Any  # concerns OpenAI's service, not the answer


def field_names(model: type[BaseModel]) -> frozenset[str]:
    """The names of all fields of a kind of models, as requests have them."""
    names = {field.alias or name for name, field in model.model_fields.items()}
    return frozenset(names).union(*(field_names(kind) for kind in model.__subclasses__()))


class Lenient(BaseModel):
    """A part of a request, without conversions between types, NaN or infinity.

    Unknown fields change nothing: clients send back what other servers gave them.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def without_nulls(cls, fields: Any) -> Any:
        """Drop fields that are ``null``, so that they get their defaults."""
        return {name: value for name, value in fields.items() if value is not None} if isinstance(fields, dict) else fields


class Strict(Lenient):
    """A part of a request that has no unknown fields."""

    model_config = ConfigDict(extra="forbid")
