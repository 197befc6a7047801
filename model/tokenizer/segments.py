"""Parts of a chat: control tokens, and text with places for the messages' contents. It knows no tokenizer."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Private-use characters around a message's index, only ever seen by the template, between blanks of a kind that templates do not
# write: where those are gone the template strips the content.
_OPEN, _CLOSE, _BLANK = "\ue000", "\ue001", "\u2003"
_PLACEHOLDER = re.compile(f"({_BLANK}?){_OPEN}([0-9]+){_CLOSE}({_BLANK}?)")


@dataclass(frozen=True)
class Placeholder:
    """Marks where a message's content goes in a compiled chat template, stripped at the ends where the template strips it."""

    message: int  # index
    start_stripped: bool = False
    end_stripped: bool = False


@dataclass(frozen=True)
class Segment:
    """A part of a compiled chat template: a control token, or text with placeholders for messages' contents."""

    control: int | None  # id
    text: tuple[str | Placeholder, ...]
    supervised: bool  # belongs to an assistant's answer, its end-of-turn token included


def render_segment(segment: Segment, contents: Sequence[str]) -> str:
    """The text of a segment, its placeholders replaced by the messages' contents."""
    return "".join(part if isinstance(part, str) else _content(part, contents) for part in segment.text)


def _content(placeholder: Placeholder, contents: Sequence[str]) -> str:
    content = contents[placeholder.message]
    content = content.lstrip() if placeholder.start_stripped else content
    return content.rstrip() if placeholder.end_stripped else content


def placeholder(index: int) -> str:
    """What a template gets as a message's content."""
    return f"{_BLANK}{_OPEN}{index}{_CLOSE}{_BLANK}"


def with_placeholders(text: str) -> Iterable[str | Placeholder]:
    """What a template wrote, its contents found again."""
    at = 0
    for match in _PLACEHOLDER.finditer(text):
        if match.start() > at:
            yield text[at : match.start()]
        yield Placeholder(int(match[2]), start_stripped=not match[1], end_stripped=not match[3])
        at = match.end()
    if at < len(text):
        yield text[at:]
