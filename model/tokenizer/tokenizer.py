"""A checkpoint's tokenizer: text to ids and back, the chat template, where a text begins and an answer ends.

Text never becomes a control token, whatever it contains: only the template and ``prompt`` insert those. It knows nothing of models.
"""

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from model.checkpoint.json_file import read_json
from model.tokenizer import chat_template
from model.tokenizer.vocabulary import LLAMA3_CHAT_TEMPLATE, Vocabulary, from_tiktoken_file, from_tokenizer_json

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
ROLES = ("system", "user", "assistant")
TIKTOKEN_FILES: tuple[str, ...] = ("original/tokenizer.model", "tokenizer.model")  # in Hugging Face's layout and in Meta's
LLAMA3_BOS, LLAMA3_ENDS = "<|begin_of_text|>", ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")


@dataclass(frozen=True)
class Placeholder:
    """Marks where a message's content goes in a compiled chat template, stripped where the template strips it."""

    message: int  # index
    stripped: bool  # at both ends
    end_stripped: bool = False  # at its end alone, as in Llama 2's first turn with a system message


@dataclass(frozen=True)
class Segment:
    """A part of a compiled chat template: a control token, or text with placeholders for messages' contents."""

    control: int | None  # id
    text: tuple[str | Placeholder, ...]
    supervised: bool  # belongs to an assistant's answer, its end-of-turn token included


@dataclass(frozen=True)
class Settings:
    """Settings of a tokenizer: the ids in front of a text, those that end an answer, the chat template."""

    prefix: tuple[int, ...]
    stop_ids: tuple[int, ...]
    bos: str
    eos: str
    template: str | None


class Tokenizer:
    """``n_vocab`` ids; ``special`` maps control tokens to theirs; ``prefix`` comes before a text; ``stop_ids`` end an answer."""

    def __init__(self, vocabulary: Vocabulary, settings: Settings, *, digest: str):
        self._vocabulary = vocabulary
        self._settings = settings
        self._compiled = lru_cache(256)(self._compile)  # bounded: clients choose the orders of roles
        self.special = vocabulary.special
        self.n_vocab = vocabulary.size
        self.stop_ids = settings.stop_ids
        self.prefix = settings.prefix
        self.bos, self.eos, self.template = settings.bos, settings.eos, settings.template
        self.digest = digest

    @classmethod
    def from_path(cls, path: Path) -> "Tokenizer":
        """The tokenizer of a checkpoint directory, a ``tokenizer.json`` with the files beside it, or Llama 3's tiktoken BPE file.

        ``ValueError`` names the file and what in it cannot be used.
        """
        if path.is_dir():
            vocabulary_file = next((path / name for name in ("tokenizer.json", *TIKTOKEN_FILES) if (path / name).exists()), None)
            if vocabulary_file is None:
                raise ValueError(f"{path} holds no tokenizer: neither tokenizer.json nor a tiktoken BPE file tokenizer.model")
            path = vocabulary_file
        if not path.exists():
            raise ValueError(f"{path} is missing; a tokenizer is a directory, a tokenizer.json or a tiktoken BPE file")
        if path.suffix == ".json":
            source = read_json(path)
            vocabulary = from_tokenizer_json(source, path)
            settings = _settings(source, vocabulary.special, path.parent)
        else:
            vocabulary = from_tiktoken_file(path)
            settings = _tiktoken_settings(vocabulary.special, path.parent)
        return cls(vocabulary, settings, digest=_digest(path, settings))

    def encode(self, text: str) -> list[int]:
        """Ids of text that continues other text; ``decode`` gives it back.

        A string that looks like a control token is encoded as the characters it consists of.
        """
        return self._vocabulary.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, as of ``encode``."""
        return self._vocabulary.encode_batch(texts)

    def prompt(self, text: str) -> list[int]:
        """Ids of a plain text from its beginning, as ``transformers`` gives them.

        They include the beginning-of-text token and the blank before the text, where the model was trained with them.
        """
        return [*self.prefix, *self.encode(self._vocabulary.prefix_space(text, first=True) + text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; incomplete UTF-8 becomes U+FFFD, control tokens their names."""
        return self.decode_bytes(ids).decode(errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """UTF-8 bytes of the ids, control tokens as their names; the last character may be incomplete."""
        return self._vocabulary.decode_bytes(ids)

    def compile_chat_template(self, roles: tuple[str, ...], *, add_generation_prompt: bool = False) -> tuple[Segment, ...]:
        """The chat template rendered for messages of these roles, with placeholders for their contents.

        ``add_generation_prompt`` adds the turn marker after which the model answers. A segment ends where an answer begins, so that
        training sees the same ids that generation starts from. ``ValueError`` for an unknown role or a template that fails.
        """
        return self._compiled(roles, add_generation_prompt)

    def plain_text_segments(self, message: int) -> tuple[Segment, ...]:
        """Segments of a plain text, the content of message ``message``: prefix, text, end-of-text token."""
        prefix_space = self._vocabulary.prefix_space("text", first=True)
        text = (prefix_space, Placeholder(message, stripped=False)) if prefix_space else (Placeholder(message, stripped=False),)
        controls = [Segment(i, (), supervised=False) for i in self.prefix]
        return (*controls, Segment(None, text, supervised=True), Segment(self.stop_ids[0], (), supervised=True))

    def chat_prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> list[int]:
        """Ids of a conversation up to the point where the assistant answers, by default after the marker of its turn.

        The template gets the messages as they are, with ``tools`` and other ``arguments``, as in transformers. With
        ``continue_final_message`` the ids end with the content of the last message, which the answer goes on with. ``ValueError`` for a
        template that fails, or does not write that content.
        """
        for index, message in enumerate(messages):
            _check_role(message["role"], index, (*ROLES, "tool"))
        given = {**arguments, "messages": messages, "tools": tools}
        mark = _unused_mark(given)
        marked = _replaced(given, {name: f"{name[:1]}{mark}{name[1:]}" for name in sorted(self.special, key=len, reverse=True)})
        rendered = self._rendered(marked, add_generation_prompt and not continue_final_message)
        if continue_final_message:
            rendered = _up_to_content(rendered, marked["messages"][-1]["content"])
        ids: list[int] = []
        for segment in self._with_prefix_spaces(self._split(rendered)):
            text = "".join(map(str, segment.text)).replace(mark, "")
            ids += [segment.control] if segment.control is not None else self.encode(text)
        return ids

    def _compile(self, roles: tuple[str, ...], add_generation_prompt: bool) -> tuple[Segment, ...]:
        segments: list[Segment] = []
        done = ""
        for index, role in enumerate(roles):
            _check_role(role, index, ROLES)
            if role != "assistant":
                continue
            before, after = self._render(roles[:index], True), self._render(roles[: index + 1], False)
            if not before.startswith(done) or not after.startswith(before):
                raise ValueError("the chat template rewrites earlier turns when a turn is added; such a template cannot be trained on")
            segments += self._segments(before[len(done) :], supervised=False)
            answer = self._segments(after[len(before) :], supervised=True)
            # What the template writes after the end-of-turn token is not for the model to say.
            end = max((i for i, p in enumerate(answer) if p.control is not None), default=len(answer) - 1)
            segments += answer[: end + 1] + [replace(p, supervised=False) for p in answer[end + 1 :]]
            done = after
        whole = self._render(roles, add_generation_prompt)
        if not whole.startswith(done):
            raise ValueError("the chat template rewrites earlier turns when a turn is added; such a template cannot be trained on")
        return tuple(self._with_prefix_spaces(segments + self._segments(whole[len(done) :], supervised=False)))

    def _with_prefix_spaces(self, segments: list[Segment]) -> Iterable[Segment]:
        for before, segment in zip([None, *segments], segments, strict=False):
            if segment.control is None and (before is None or before.control is not None):
                start = segment.text[0] if isinstance(segment.text[0], str) else "content"
                prefix_space = self._vocabulary.prefix_space(start, first=before is None)
                yield replace(segment, text=(prefix_space, *segment.text) if prefix_space else segment.text)
            else:
                yield segment

    def _render(self, roles: tuple[str, ...], add_generation_prompt: bool) -> str:
        if not roles:
            return ""
        messages = [{"role": role, "content": _placeholder(i)} for i, role in enumerate(roles)]
        return self._rendered({"messages": messages, "tools": None}, add_generation_prompt)

    def _rendered(self, values: Mapping[str, Any], add_generation_prompt: bool) -> str:
        template = self._settings.template
        if template is None:
            raise ValueError("the checkpoint has no chat template; add chat_template to its tokenizer_config.json")
        own = {"bos_token": self._settings.bos, "eos_token": self._settings.eos, "documents": None}
        return chat_template.render(template, {**values, **own, "add_generation_prompt": add_generation_prompt})

    def _segments(self, rendered: str, *, supervised: bool) -> list[Segment]:
        parts = self._split(rendered)
        return [replace(p, text=tuple(_with_placeholders(str(p.text[0]))) if p.text else (), supervised=supervised) for p in parts]

    def _split(self, rendered: str) -> list[Segment]:
        """Control tokens and the texts between them."""
        controls = sorted(self.special, key=len, reverse=True)
        pattern = "(" + "|".join(map(re.escape, controls)) + ")" if controls else r"(?!)"
        parts = [part for part in re.split(pattern, rendered) if part]
        return [Segment(self.special[p], (), False) if p in self.special else Segment(None, (p,), False) for p in parts]


class TextStream:
    """Decodes ids one by one into whole characters; the bytes of an incomplete one wait for the next id."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        """The characters that this id completes; may be empty."""
        return self._decoder.decode(self._tokenizer.decode_bytes([token]))

    def finish(self) -> str:
        """U+FFFD where the last character is incomplete, else empty."""
        return self._decoder.decode(b"", final=True)


def _check_role(role: str, index: int, roles: Sequence[str]) -> None:
    if role not in roles:
        raise ValueError(f"message {index} has the unknown role {role!r}; roles are {', '.join(roles)}")


def _unused_mark(values: Any) -> str:
    """A private-use character that stands nowhere in the values; inside of a control token's name it makes text of it."""
    text = json.dumps(values, ensure_ascii=False)
    return next(mark for mark in map(chr, range(0xE000, 0xF8FF)) if mark not in text)


def _replaced(value: Any, names: Mapping[str, str]) -> Any:
    """A value with the names in its strings replaced."""
    if isinstance(value, str):
        for name, other in names.items():
            value = value.replace(name, other)
        return value
    if isinstance(value, Mapping):
        return {key: _replaced(part, names) for key, part in value.items()}
    return [_replaced(part, names) for part in value] if isinstance(value, Sequence) else value


def _up_to_content(rendered: str, content: str) -> str:
    """The text up to the end of a content, which the template may have stripped."""
    for written in (content, content.rstrip(), content.strip()):
        if (at := rendered.rfind(written)) >= 0:
            return rendered[: at + len(written)]
    raise ValueError("the chat template does not write the content of the last message, which cannot be continued")


def render_segment(segment: Segment, contents: Sequence[str]) -> str:
    """The text of a segment, its placeholders replaced by the messages' contents."""
    return "".join(part if isinstance(part, str) else _content(part, contents) for part in segment.text)


def _content(placeholder: Placeholder, contents: Sequence[str]) -> str:
    content = contents[placeholder.message]
    return content.strip() if placeholder.stripped else content.rstrip() if placeholder.end_stripped else content


def _settings(source: dict[str, Any], special: dict[str, int], directory: Path) -> Settings:
    """From ``tokenizer_config.json``, ``generation_config.json`` and ``chat_template.jinja``, where they exist."""
    config, generation = (_optional(directory / name) for name in ("tokenizer_config.json", "generation_config.json"))
    try:
        bos, eos = (_name(config.get(f"{name}_token")) for name in ("bos", "eos"))
        ends = generation.get("eos_token_id")
        stop_ids = {int(i) for i in (ends if isinstance(ends, list) else [ends]) if i is not None}
        stop_ids |= {special[name] for name in (eos, *LLAMA3_ENDS) if name in special}
        prefix = _prefix(source.get("post_processor") or {})
        if not prefix and config.get("add_bos_token") and bos in special:
            prefix = (special[bos],)
        return Settings(prefix, tuple(sorted(stop_ids)), bos, eos, _template(config, directory))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{directory}: the tokenizer's settings cannot be read ({error!r})") from None


def _tiktoken_settings(special: dict[str, int], directory: Path) -> Settings:
    """Llama 3's settings, with the chat template of the file's directory where it has one."""
    template = _template(_optional(directory / "tokenizer_config.json"), directory) or LLAMA3_CHAT_TEMPLATE
    return Settings((special[LLAMA3_BOS],), tuple(special[name] for name in LLAMA3_ENDS), LLAMA3_BOS, LLAMA3_ENDS[0], template)


def _optional(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _name(token: Any) -> str:
    return (token.get("content") if isinstance(token, dict) else token) or ""


def _prefix(processor: dict[str, Any]) -> tuple[int, ...]:
    """Ids that the post-processor of a ``tokenizer.json`` puts in front of a single text."""
    for step in processor.get("processors", [processor]):
        if step.get("type") == "TemplateProcessing":
            names = [part["SpecialToken"]["id"] for part in step["single"][: _text_at(step["single"])]]
            return tuple(i for name in names for i in step["special_tokens"][name]["ids"])
    return ()


def _text_at(single: list[dict[str, Any]]) -> int:
    return next(at for at, part in enumerate(single) if "Sequence" in part)


def _template(config: dict[str, Any], directory: Path) -> str | None:
    template_file = directory / "chat_template.jinja"  # where transformers 5 writes it
    if template_file.exists():
        return template_file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((t["template"] for t in template if t["name"] == "default"), None)
    return template


def _digest(path: Path, settings: Settings) -> str:
    sha = hashlib.sha256(path.read_bytes())
    sha.update(repr(astuple(settings)).encode())
    return sha.hexdigest()


# Private-use characters around a message's index, only ever seen by the template, between blanks of a kind that templates do not
# write: where those are gone the template strips the content.
_OPEN, _CLOSE, _BLANK = "\ue000", "\ue001", "\u2003"
_PLACEHOLDER = re.compile(f"({_BLANK}?){_OPEN}([0-9]+){_CLOSE}({_BLANK}?)")


def _placeholder(index: int) -> str:
    return f"{_BLANK}{_OPEN}{index}{_CLOSE}{_BLANK}"


def _with_placeholders(text: str) -> Iterable[str | Placeholder]:
    at = 0
    for match in _PLACEHOLDER.finditer(text):
        if match.start() > at:
            yield text[at : match.start()]
        yield Placeholder(int(match[2]), stripped=not match[1] and not match[3], end_stripped=bool(match[1]) and not match[3])
        at = match.end()
    if at < len(text):
        yield text[at:]
