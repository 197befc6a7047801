"""Tools: how a chat offers them to the model, and how its calls become OpenAI's.

Calls and results are text in the form of Hermes' and Qwen's chat templates, so that every template can carry them.
"""

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from model.generation.grammar import CALL, CALL_END, ToolCalls
from model.tokenizer.tokenizer import Message, Tokenizer
from serve.strict import JsonSchemaField, Lenient, Strict, Text

MAX_TOOLS = 64
ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
_INTRODUCTION = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{tools}\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{{"name": <function-name>, "arguments": <args-json-object>}}\n</tool_call>'
)


class Function(Lenient):
    """A function that the model may call; ``parameters`` is a JSON Schema."""

    name: ToolName
    description: Text = ""
    parameters: JsonSchemaField = Field(default_factory=dict)
    strict: bool = False  # true: a schema of which a part cannot be demanded is refused; false: that part is not demanded


class Tool(Lenient):
    """OpenAI's ``tools``; only functions are supported."""

    type: Literal["function"]
    function: Function


class NamedFunction(Strict):
    """The name of a function."""

    name: ToolName


class NamedTool(Strict):
    """A ``tool_choice`` that demands one function."""

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Literal["none", "auto", "required"] | NamedTool


class CalledFunction(Lenient):
    """A call's function; ``arguments`` is JSON."""

    name: ToolName
    arguments: Text

    @field_validator("arguments")
    @classmethod
    def check_arguments(cls, arguments: str) -> str:
        """``ValueError`` for what is no JSON object."""
        try:
            valid = isinstance(json.loads(arguments or "{}"), dict)
        except (ValueError, RecursionError):
            valid = False
        if not valid:
            raise ValueError("arguments are a JSON object as text")
        return arguments or "{}"


class PastCall(Lenient):
    """A call in an earlier answer."""

    id: str = ""
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None  # clients that put an answer together from a stream may leave it


def offered(tools: Sequence[Tool], choice: ToolChoice | None) -> list[Tool]:
    """The tools that may be called; ``ValueError`` for a choice that names none of them, or demands one where there is none."""
    if choice == "none":
        return []
    if isinstance(choice, NamedTool):
        tools = [tool for tool in tools if tool.function.name == choice.function.name]
        if not tools:
            raise ValueError("tool_choice names a function that is not among the tools")
    if choice == "required" and not tools:
        raise ValueError("tool_choice demands a call, and there are no tools")
    return list(tools)


def grammar(
    tools: Sequence[Tool], choice: ToolChoice | None, tokenizer: Tokenizer, *, parallel: bool, answer: Mapping[str, Any] | None
) -> ToolCalls:
    """What an answer with these tools must fit; ``answer``: the JSON Schema of one that calls none."""
    functions = [tool.function for tool in tools]
    is_named = isinstance(choice, NamedTool)
    return ToolCalls(
        {function.name: function.parameters for function in functions},
        tokenizer,
        required=is_named or choice == "required",
        several=parallel and not is_named,
        strict=[function.name for function in functions if function.strict],
        answer=answer,
    )


def is_read(template: str) -> bool:
    """Whether a chat template writes tools and calls itself, in the form that answers have here."""
    return "tools" in template and CALL.strip() in template


def introduced(messages: Sequence[Message], tools: Sequence[Tool]) -> list[Message]:
    """The messages with a description of the tools at the end of the system message."""
    described = "\n".join(json.dumps({"type": "function", "function": _described(tool)}, ensure_ascii=False) for tool in tools)
    introduction = _INTRODUCTION.format(tools=described)
    if messages and messages[0]["role"] == "system":
        first = {"role": "system", "content": f"{messages[0]['content']}\n\n{introduction}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": introduction}, *messages]


def call_text(content: str, calls: Sequence[PastCall]) -> str:
    """An earlier answer with its calls, as the model wrote it."""
    written = (f'{CALL}{{"name":{json.dumps(call.function.name)},"arguments":{call.function.arguments}}}{CALL_END}' for call in calls)
    return "\n".join(part for part in (content, *written) if part)


def result_text(results: Sequence[str]) -> str:
    """The results of calls, as the next user message holds them."""
    return "\n".join(f"<tool_response>\n{result}\n</tool_response>" for result in results)


def parse_calls(text: str) -> list[dict[str, Any]]:
    """OpenAI's ``tool_calls`` of an answer; empty where it is text, or its last call was cut off."""
    calls = []
    for part in text.split(CALL)[1:] if text.startswith(CALL) else []:
        try:
            call = json.loads(part.partition(CALL_END)[0])
            function = {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
        except (ValueError, KeyError, TypeError, RecursionError):
            return []
        calls.append({"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function})
    return calls


def _described(tool: Tool) -> Mapping[str, Any]:
    return {name: value for name, value in tool.function.model_dump(exclude={"strict"}).items() if value}
