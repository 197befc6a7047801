"""The form that an answer must have, as requests of OpenAI's API say it."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from serve.strict import Ignored, JsonSchemaField, Strict


class JsonSchemaFormat(Strict):
    """The ``json_schema`` of a ``response_format``."""

    name: Ignored = None
    description: Ignored = None
    strict: bool = False  # answers fit the schema in any case
    json_schema: JsonSchemaField = Field(alias="schema")


class ResponseFormat(Strict):
    """OpenAI's ``response_format``."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    own_schema: JsonSchemaField | None = Field(None, alias="schema", description="llama.cpp's place of it")
    grounded: bool = Field(False, description="our own: numbers and strings of the answer must stand in the user's messages or the prompt")

    @model_validator(mode="after")
    def check_schema(self) -> "ResponseFormat":
        """``ValueError`` where a schema is missing, or has no use."""
        given = (self.json_schema is not None) + (self.own_schema is not None)
        if given != 1 and self.type == "json_schema":
            raise ValueError("the type json_schema has one json_schema")
        if self.type == "text" and self.grounded:
            raise ValueError("the type text has nothing that could be grounded")
        if self.type == "text" and given:
            raise ValueError("the type text has no schema")
        return self

    @property
    def schema_of_answers(self) -> Mapping[str, Any] | None:
        """The JSON Schema that answers must fit; ``None``: they may be any text."""
        schema = self.json_schema.json_schema if self.json_schema else self.own_schema
        return {"type": "object"} if schema is None and self.type == "json_object" else schema
