"""A checkpoint's tokenizer: text to ids and back, the chat template, where a text begins and an answer ends.

Text never becomes a control token, whatever it contains: only the template and ``prompt`` place those. It knows nothing of models.
"""

import codecs
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from model.checkpoint.json_file import read_json
from model.tokenizer import chat_template
from model.tokenizer.vocabulary import LLAMA3_CHAT_TEMPLATE, Vocabulary, from_ranks, from_tokenizer_json

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
ROLES = ("system", "user", "assistant")
RANKS_FILES: tuple[str, ...] = ("original/tokenizer.model", "tokenizer.model")  # in Hugging Face's layout and in Meta's
LLAMA3_BOS, LLAMA3_ENDS = "<|begin_of_text|>", ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")


@dataclass(frozen=True)
class Slot:
    """Where a message's content stands in a rendered chat, stripped where the template says so."""

    message: int
    stripped: bool  # at both ends
    end_stripped: bool = False  # at its end alone, as in Llama 2's first turn with a system message


@dataclass(frozen=True)
class Piece:
    """A part of a rendered chat: a control token, or text with slots for messages' contents."""

    control: int | None
    text: tuple[str | Slot, ...]
    supervised: bool  # belongs to an assistant's answer, its end-of-turn token included


@dataclass(frozen=True)
class Settings:
    """What the files beside a vocabulary say: the ids in front of a text, those that end an answer, the chat template."""

    prefix: tuple[int, ...]
    stop_ids: tuple[int, ...]
    bos: str
    eos: str
    template: str | None


class Tokenizer:
    """``n_vocab`` ids; ``special`` maps control tokens to theirs; ``prefix`` stands before a text; ``stop_ids`` end an answer."""

    def __init__(self, vocabulary: Vocabulary, settings: Settings, *, digest: str):
        self._vocabulary = vocabulary
        self._settings = settings
        self._skeleton = lru_cache(256)(self._render_skeleton)  # orders of roles come from clients, too
        self.special = vocabulary.special
        self.n_vocab = vocabulary.size
        self.stop_ids = settings.stop_ids
        self.prefix = settings.prefix
        self.bos, self.eos, self.template = settings.bos, settings.eos, settings.template
        self.digest = digest

    @classmethod
    def from_path(cls, path: Path) -> "Tokenizer":
        """The tokenizer of a checkpoint directory, a ``tokenizer.json`` with the files beside it, or Llama 3's ranks file.

        ``ValueError`` names the file and what in it cannot be used.
        """
        if path.is_dir():
            found = next((path / name for name in ("tokenizer.json", *RANKS_FILES) if (path / name).exists()), None)
            if found is None:
                raise ValueError(f"{path} holds no tokenizer: neither tokenizer.json nor a ranks file tokenizer.model")
            path = found
        if not path.exists():
            raise ValueError(f"{path} is missing; a tokenizer is a directory, a tokenizer.json or a ranks file")
        if path.suffix == ".json":
            source = read_json(path)
            vocabulary = from_tokenizer_json(source, path)
            settings = _settings(source, vocabulary.special, path.parent)
        else:
            vocabulary = from_ranks(path)
            settings = _ranks_settings(vocabulary.special, path.parent)
        return cls(vocabulary, settings, digest=_digest(path, settings))

    def encode(self, text: str) -> list[int]:
        """Ids of text that goes on after other text; ``decode`` gives it back. A string that looks like a control token is
        encoded as the characters it consists of."""
        return self._vocabulary.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._vocabulary.encode_batch(texts)

    def prompt(self, text: str) -> list[int]:
        """Ids of a text from its beginning, with the beginning-of-text token and the blank before it that the model was trained
        with, as ``transformers`` gives them for running text."""
        return [*self.prefix, *self.encode(self._vocabulary.lead(text, first=True) + text)]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; incomplete UTF-8 becomes U+FFFD, control tokens their names."""
        return self.decode_bytes(ids).decode(errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return self._vocabulary.decode_bytes(ids)

    def skeleton(self, roles: tuple[str, ...], *, answer_next: bool = False) -> tuple[Piece, ...]:
        """The chat template rendered for messages of these roles, with slots for their contents.

        ``answer_next`` adds the turn marker after which the model answers. The part before an answer is cut off from it
        here, so that training sees the very ids that generation starts from.
        """
        return self._skeleton(roles, answer_next)

    def running_text(self, message: int) -> tuple[Piece, ...]:
        """A text that is no chat, the content of this message: after what stands before a text, ended by the end-of-text token."""
        lead = self._vocabulary.lead("text", first=True)
        text = (lead, Slot(message, stripped=False)) if lead else (Slot(message, stripped=False),)
        controls = [Piece(i, (), supervised=False) for i in self.prefix]
        return (*controls, Piece(None, text, supervised=True), Piece(self.stop_ids[0], (), supervised=True))

    def chat_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation up to the point where the assistant answers."""
        ids: list[int] = []
        for piece in self.skeleton(tuple(m["role"] for m in messages), answer_next=True):
            ids += [piece.control] if piece.control is not None else self.encode(fill(piece, [m["content"] for m in messages]))
        return ids

    def _render_skeleton(self, roles: tuple[str, ...], answer_next: bool) -> tuple[Piece, ...]:
        pieces: list[Piece] = []
        done = ""
        for number, role in enumerate(roles):
            if role not in ROLES:
                raise ValueError(f"message {number} has the unknown role {role!r}; roles are {', '.join(ROLES)}")
            if role != "assistant":
                continue
            before, after = self._render(roles[:number], True), self._render(roles[: number + 1], False)
            if not before.startswith(done) or not after.startswith(before):
                raise ValueError("the chat template rewrites earlier turns when a turn is added; such a template cannot be trained on")
            pieces += self._pieces(before[len(done) :], supervised=False)
            answer = self._pieces(after[len(before) :], supervised=True)
            # What the template writes after the end-of-turn token is not for the model to say.
            end = max((i for i, p in enumerate(answer) if p.control is not None), default=len(answer) - 1)
            pieces += answer[: end + 1] + [replace(p, supervised=False) for p in answer[end + 1 :]]
            done = after
        whole = self._render(roles, answer_next)
        if not whole.startswith(done):
            raise ValueError("the chat template rewrites earlier turns when a turn is added; such a template cannot be trained on")
        return tuple(self._with_leads(pieces + self._pieces(whole[len(done) :], supervised=False)))

    def _with_leads(self, pieces: list[Piece]) -> Iterable[Piece]:
        for before, piece in zip([None, *pieces], pieces, strict=False):
            if piece.control is None and (before is None or before.control is not None):
                start = piece.text[0] if isinstance(piece.text[0], str) else "content"
                lead = self._vocabulary.lead(start, first=before is None)
                yield replace(piece, text=(lead, *piece.text) if lead else piece.text)
            else:
                yield piece

    def _render(self, roles: tuple[str, ...], answer_next: bool) -> str:
        template = self._settings.template
        if template is None:
            raise ValueError("the checkpoint has no chat template; add chat_template to its tokenizer_config.json")
        if not roles:
            return ""
        messages = [{"role": role, "content": _slot(i)} for i, role in enumerate(roles)]
        known = {"bos_token": self._settings.bos, "eos_token": self._settings.eos, "tools": None, "documents": None}
        return chat_template.render(template, {"messages": messages, "add_generation_prompt": answer_next} | known)

    def _pieces(self, rendered: str, *, supervised: bool) -> list[Piece]:
        controls = sorted(self.special, key=len, reverse=True)
        pattern = "(" + "|".join(map(re.escape, controls)) + ")" if controls else r"(?!)"
        pieces = []
        for part in re.split(pattern, rendered):
            if part in self.special:
                pieces.append(Piece(self.special[part], (), supervised))
            elif part:
                pieces.append(Piece(None, tuple(_with_slots(part)), supervised))
        return pieces


class TextStream:
    """Text of ids that come one by one: only whole characters, the bytes of an unfinished one wait."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(self._tokenizer.decode_bytes([token]))

    def finish(self) -> str:
        """U+FFFD where the last character is not finished."""
        return self._decoder.decode(b"", final=True)


def fill(piece: Piece, contents: Sequence[str]) -> str:
    """The text of a piece with the messages' contents in their slots."""
    return "".join(part if isinstance(part, str) else _content(part, contents) for part in piece.text)


def _content(slot: Slot, contents: Sequence[str]) -> str:
    content = contents[slot.message]
    return content.strip() if slot.stripped else content.rstrip() if slot.end_stripped else content


def _settings(source: dict[str, Any], special: dict[str, int], directory: Path) -> Settings:
    """From ``tokenizer_config.json``, ``generation_config.json`` and ``chat_template.jinja``, those that are there."""
    config, generation = (_optional(directory / name) for name in ("tokenizer_config.json", "generation_config.json"))
    try:
        bos, eos = (_name(config.get(f"{which}_token")) for which in ("bos", "eos"))
        ends = generation.get("eos_token_id")
        stop_ids = {int(i) for i in (ends if isinstance(ends, list) else [ends]) if i is not None}
        stop_ids |= {special[name] for name in (eos, *LLAMA3_ENDS) if name in special}
        prefix = _prefix(source.get("post_processor") or {})
        if not prefix and config.get("add_bos_token") and bos in special:
            prefix = (special[bos],)
        return Settings(prefix, tuple(sorted(stop_ids)), bos, eos, _template(config, directory))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{directory}: the tokenizer's settings cannot be read ({error!r})") from None


def _ranks_settings(special: dict[str, int], directory: Path) -> Settings:
    """Llama 3's, with the chat template that stands beside the ranks file where there is one."""
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
    beside = directory / "chat_template.jinja"  # where transformers 5 writes it
    if beside.exists():
        return beside.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # several, by name
        found = next((t["template"] for t in found if t["name"] == "default"), None)
    return found


def _digest(path: Path, settings: Settings) -> str:
    sha = hashlib.sha256(path.read_bytes())
    sha.update(repr(astuple(settings)).encode())
    return sha.hexdigest()


# Private-use characters around a message's number, only ever seen by the template, between blanks of a kind that templates do not
# write: where those are gone the template strips the content.
_OPEN, _CLOSE, _BLANK = "\ue000", "\ue001", "\u2003"
_SLOT = re.compile(f"({_BLANK}?){_OPEN}([0-9]+){_CLOSE}({_BLANK}?)")


def _slot(index: int) -> str:
    return f"{_BLANK}{_OPEN}{index}{_CLOSE}{_BLANK}"


def _with_slots(text: str) -> Iterable[str | Slot]:
    at = 0
    for found in _SLOT.finditer(text):
        if found.start() > at:
            yield text[at : found.start()]
        yield Slot(int(found[2]), stripped=not found[1] and not found[3], end_stripped=bool(found[1]) and not found[3])
        at = found.end()
    if at < len(text):
        yield text[at:]
