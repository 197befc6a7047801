"""A checkpoint's tokenizer: text to ids and back, the chat template, where a text begins and an answer ends.

Text never becomes a control token, whatever it contains: only the template and ``prompt`` insert those. It knows nothing of models.
"""

import codecs
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from model.checkpoint.json_file import read_json
from model.tokenizer import chat_template
from model.tokenizer.segments import Placeholder, Segment, placeholder, render_segment, with_placeholders
from model.tokenizer.vocabulary import LLAMA3_CHAT_TEMPLATE, Vocabulary, from_tiktoken_file, from_tokenizer_json

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
ROLES = ("system", "user", "assistant")
TIKTOKEN_FILES: tuple[str, ...] = ("original/tokenizer.model", "tokenizer.model")  # in Hugging Face's layout and in Meta's
_END = "\uf8ff"  # of a content that is continued; private use
LLAMA3_BOS, LLAMA3_ENDS = "<|begin_of_text|>", ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")


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
        self.special, self.words = vocabulary.added.controls, vocabulary.added.words
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
            settings = _settings(source, vocabulary.added.controls, path.parent)
        else:
            vocabulary = from_tiktoken_file(path)
            settings = _tiktoken_settings(vocabulary.added.controls, path.parent)
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

    def check_chat_template(self) -> None:
        """``ValueError`` for a template that training cannot use: it does more with a content than to write it.

        Contents without blanks at their ends are tried, as those of the corpus are.
        """
        for roles in (("user", "assistant"), ("system", "user", "assistant"), ("user", "assistant", "user", "assistant")):
            contents = [f"{index} \n\nA content of two paragraphs, to be cut." for index in range(len(roles))]
            try:
                segments = self.compile_chat_template(roles)
            except ValueError:
                if len(roles) == 2:  # longer chats may never come
                    raise
                continue
            written = [i for s in segments for i in ([s.control] if s.control is not None else self.encode(render_segment(s, contents)))]
            messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
            if written != self.chat_prompt(messages, add_generation_prompt=False):
                raise ValueError("the chat template cuts or tests what messages say; such a template cannot be trained on")

    def plain_text_segments(self, message: int) -> tuple[Segment, ...]:
        """Segments of a plain text, the content of message ``message``: prefix, text, end-of-text token."""
        prefix_space = self._vocabulary.prefix_space("text", first=True)
        text = (prefix_space, Placeholder(message)) if prefix_space else (Placeholder(message),)
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
        stand_ins = _stand_ins(given, self.special)
        marked = _replaced(given, {name: stand_ins[name[0]] + name[1:] for name in sorted(self.special, key=len, reverse=True)})
        originals = {ord(stand_in): character for character, stand_in in stand_ins.items()}
        rendered = self._up_to_content(marked) if continue_final_message else self._rendered(marked, add_generation_prompt)
        ids: list[int] = []
        for segment in self._with_prefix_spaces(self._split(rendered)):
            text = "".join(map(str, segment.text)).translate(originals)
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
        messages = [{"role": role, "content": placeholder(i)} for i, role in enumerate(roles)]
        return self._rendered({"messages": messages, "tools": None}, add_generation_prompt)

    def _rendered(self, values: Mapping[str, Any], add_generation_prompt: bool) -> str:
        template = self._settings.template
        if template is None:
            raise ValueError("the checkpoint has no chat template; add chat_template to its tokenizer_config.json")
        own = {"bos_token": self._settings.bos, "eos_token": self._settings.eos, "documents": None}
        return chat_template.render(template, {**values, **own, "add_generation_prompt": add_generation_prompt})

    def _up_to_content(self, values: Mapping[str, Any]) -> str:
        """What the template writes up to the end of the last message's content, without its last blanks where it strips them."""
        *before, last = values["messages"]
        rendered = self._rendered({**values, "messages": [*before, {**last, "content": f"{last['content']}{_END} "}]}, False)
        if _END not in rendered or last["content"].strip() not in rendered:
            raise ValueError("the chat template does not write the content of the last message, which cannot be continued")
        written, after = rendered[: (at := rendered.rindex(_END))], rendered[at + 1 :]
        return written if after.startswith(" ") else written.rstrip()

    def _segments(self, rendered: str, *, supervised: bool) -> list[Segment]:
        parts = self._split(rendered)
        return [replace(p, text=tuple(with_placeholders(str(p.text[0]))) if p.text else (), supervised=supervised) for p in parts]

    def _split(self, rendered: str) -> list[Segment]:
        """Control tokens and the texts between them."""
        parts = self._vocabulary.added.cut_at_controls(rendered)
        return [Segment(None, (part,), False) if isinstance(part, str) else Segment(part, (), False) for part in parts]


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


def _stand_ins(values: Any, names: Iterable[str]) -> dict[str, str]:
    """For each character that a name begins with a private-use one that stands nowhere in the values: with it, a name is text."""
    written = set(json.dumps(values, ensure_ascii=False))
    unused = (character for character in map(chr, range(0xE000, ord(_END))) if character not in written)
    return dict(zip(sorted({name[0] for name in names}), unused, strict=False))


def _replaced(value: Any, names: Mapping[str, str]) -> Any:
    """A value with the names in its strings replaced."""
    if isinstance(value, str):
        for name, other in names.items():
            value = value.replace(name, other)
        return value
    if isinstance(value, Mapping):
        return {_replaced(key, names): _replaced(part, names) for key, part in value.items()}
    return [_replaced(part, names) for part in value] if isinstance(value, Sequence) else value


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
