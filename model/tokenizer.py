"""Text to token ids and back: tiktoken encodings and chat templates of a checkpoint directory.

Text never becomes a control token, whatever it contains: only the chat template places those. It knows nothing of models.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import tiktoken
import tokenizers
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from model.checkpoint import read_json

Message = dict[str, str]  # {"role": "system" | "user" | "assistant", "content": text}
ROLES = ("system", "user", "assistant")

# GPT-2's split pattern (openai/gpt-2, src/encoder.py).
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same behind Hugging Face's Digits(individual_digits=True): a number is split off first, so blanks before it stand alone.
DIGITS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"

# tiktoken needs time quadratic in the length of an unbroken run and panics on a million blanks; Meta's tokenizer.py cuts
# runs at this length too.
MAX_RUN = 25_000
_LONG_RUN = re.compile(rf"\s{{{MAX_RUN},}}|\S{{{MAX_RUN},}}")


@dataclass(frozen=True)
class Piece:
    """A part of a rendered chat: a control token, or text with slots for messages' contents."""

    control: int | None
    text: tuple[str | int, ...]  # literal strings, and the index of the message whose content stands there
    supervised: bool  # belongs to an assistant's answer, its end-of-turn token included


class Tokenizer:
    """``n_vocab`` ids; ``special`` maps control tokens to theirs; ``stop_ids`` end an answer."""

    def __init__(self, vocabulary: dict[str, Any], path: Path, *, stop_ids: Sequence[int], template: str | None, digest: str):
        self._encoding, self.n_vocab = _encoding(vocabulary, path)
        self._template = template
        self._skeleton = cache(self._render_skeleton)
        # Without its control tokens, so that text cannot name them.
        self._without_missing_bytes = cache(lambda: tokenizers.Tokenizer.from_str(json.dumps(vocabulary | {"added_tokens": []})))
        self.special: dict[str, int] = dict(self._encoding._special_tokens)
        self.stop_ids = tuple(stop_ids)
        self.digest = digest

    @classmethod
    def from_directory(cls, directory: Path) -> "Tokenizer":
        """The tokenizer of a checkpoint directory: ``tokenizer.json``, ``tokenizer_config.json``, ``generation_config.json``."""
        vocabulary = read_json(directory / "tokenizer.json")
        config = read_json(directory / "tokenizer_config.json")
        generation = directory / "generation_config.json"
        try:
            special = {token["content"]: int(token["id"]) for token in vocabulary.get("added_tokens", [])}
            eos_token = config.get("eos_token")
            name = eos_token.get("content") if isinstance(eos_token, dict) else eos_token
            stop_ids = {special[name]} if name in special else set()
            eos = read_json(generation).get("eos_token_id") if generation.exists() else None
            stop_ids |= {int(i) for i in (eos if isinstance(eos, list) else [eos]) if i is not None}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{directory}: the tokenizer's special tokens cannot be read ({error!r})") from None
        sha = hashlib.sha256((directory / "tokenizer.json").read_bytes())
        sha.update((config.get("chat_template") or "").encode())
        path, template = directory / "tokenizer.json", config.get("chat_template")
        return cls(vocabulary, path, stop_ids=sorted(stop_ids), template=template, digest=sha.hexdigest())

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; a string that looks like a control token is encoded as the characters it consists of.

        A byte that the vocabulary lacks (SmolLM2 has no 0xF1 and some C0 controls) is left out, as Hugging Face does.
        """
        return [i for part in _split_runs(text) for i in self._known(self._encoding.encode_ordinary(part), part)]

    def encode_batch(self, texts: Sequence[str], threads: int) -> list[list[int]]:
        if any(_LONG_RUN.search(text) for text in texts):
            return [self.encode(text) for text in texts]
        batch = self._encoding.encode_ordinary_batch(list(texts), num_threads=threads)
        return [self._known(ids, text) for ids, text in zip(batch, texts, strict=True)]

    def _known(self, ids: list[int], text: str) -> list[int]:
        """The ids, or where a byte of the text is not in the vocabulary, those of Hugging Face's merges without that byte."""
        if not ids or max(ids) < self.n_vocab:
            return ids
        return self._without_missing_bytes().encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; incomplete UTF-8 becomes U+FFFD, control tokens their names."""
        return self._encoding.decode(list(ids))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return self._encoding.decode_bytes(list(ids))

    def skeleton(self, roles: tuple[str, ...], *, answer_next: bool = False) -> tuple[Piece, ...]:
        """The chat template rendered for messages of these roles, with slots for their contents.

        ``answer_next`` adds the turn marker after which the model answers. The part before an answer is cut off from it
        here, so that training sees the very ids that generation starts from.
        """
        return self._skeleton(roles, answer_next)

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
            pieces += answer[: end + 1] + [Piece(p.control, p.text, False) for p in answer[end + 1 :]]
            done = after
        whole = self._render(roles, answer_next)
        if not whole.startswith(done):
            raise ValueError("the chat template rewrites earlier turns when a turn is added; such a template cannot be trained on")
        return tuple(pieces + self._pieces(whole[len(done) :], supervised=False))

    def _render(self, roles: tuple[str, ...], answer_next: bool) -> str:
        if self._template is None:
            raise ValueError("the checkpoint has no chat template; add chat_template to its tokenizer_config.json")
        if not roles:
            return ""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        messages = [{"role": role, "content": _slot(i)} for i, role in enumerate(roles)]
        names = {f"{name}_token": token for name, token in self._named_specials().items()}
        try:
            return environment.from_string(self._template).render(messages=messages, add_generation_prompt=answer_next, **names)
        except TemplateError as error:
            raise ValueError(f"the chat template failed: {error}") from error

    def _named_specials(self) -> dict[str, str]:
        by_id = {i: token for token, i in self.special.items()}
        return {"eos": by_id.get(self.stop_ids[0], "") if self.stop_ids else "", "bos": self._bos()}

    def _bos(self) -> str:
        return next((t for t in ("<|begin_of_text|>", "<s>") if t in self.special), "")

    def _pieces(self, rendered: str, *, supervised: bool) -> list[Piece]:
        controls = sorted(self.special, key=len, reverse=True)
        pattern = "(" + "|".join(map(re.escape, controls)) + ")" if controls else r"(?!)"
        pieces = []
        for part in re.split(pattern, rendered):
            if part in self.special:
                pieces.append(Piece(self.special[part], (), supervised))
            elif part:
                text = [int(p[1:-1]) if p[:1] == _OPEN else p for p in re.split(f"({_OPEN}[0-9]+{_CLOSE})", part) if p]
                pieces.append(Piece(None, tuple(text), supervised))
        return pieces


def fill(piece: Piece, contents: Sequence[str]) -> str:
    """The text of a piece with the messages' contents in their slots."""
    return "".join(part if isinstance(part, str) else contents[part] for part in piece.text)


_OPEN, _CLOSE = "\ue000", "\ue001"  # private-use characters, only ever seen by the template


def _slot(index: int) -> str:
    return f"{_OPEN}{index}{_CLOSE}"


def _split_runs(text: str) -> Iterable[str]:
    """The text in parts without an unbroken run of more than MAX_RUN blanks or non-blanks."""
    start = 0
    for run in _LONG_RUN.finditer(text):
        for cut in range(run.start() + MAX_RUN, run.end(), MAX_RUN):
            yield text[start:cut]
            start = cut
    yield text[start:]


def byte_symbols() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level BPE vocabularies (openai/gpt-2, bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def _encoding(vocabulary: dict[str, Any], path: Path) -> tuple[tiktoken.Encoding, int]:
    """A tiktoken encoding of a byte-level BPE ``tokenizer.json``, and the number of its ids.

    tiktoken merges the pair whose result has the lowest rank; that is the merge list's order only if the list's results have
    rising ids, which is checked.
    """
    model = vocabulary.get("model", {})
    if model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise ValueError(f"{path}: only byte-level BPE vocabularies can be read, this is {model.get('type')!r}")
    special = {t["content"]: t["id"] for t in vocabulary.get("added_tokens", [])}
    symbols = byte_symbols()
    to_byte = {symbol: byte for byte, symbol in symbols.items()}
    try:
        ranks = {bytes(to_byte[c] for c in token): int(i) for token, i in model["vocab"].items() if token not in special}
    except KeyError as error:
        raise ValueError(f"{path}: the vocabulary is not byte-level BPE, it holds the character {error}") from error
    merged = [model["vocab"].get("".join(m.split(" ") if isinstance(m, str) else m), -1) for m in model.get("merges", [])]
    if any(later <= earlier for earlier, later in pairwise(merged)):
        raise ValueError(f"{path}: the merges' results do not have rising ids, so tiktoken would split differently")
    n_vocab = max([*ranks.values(), *special.values()]) + 1
    missing = [bytes([b]) for b in range(256) if bytes([b]) not in ranks]
    ranks |= {byte: n_vocab + i for i, byte in enumerate(missing)}  # tiktoken wants all 256; encode() leaves these out
    return tiktoken.Encoding(path.name, pat_str=_split_pattern(vocabulary, path), mergeable_ranks=ranks, special_tokens=special), n_vocab


def _split_pattern(vocabulary: dict[str, Any], path: Path) -> str:
    pre = vocabulary.get("pre_tokenizer") or {}
    steps = pre.get("pretokenizers", [pre])
    match [step.get("type") for step in steps]:
        case ["ByteLevel"] if steps[0].get("use_regex", True):
            return GPT2_PATTERN
        case ["Digits", "ByteLevel"] if steps[0].get("individual_digits"):
            return DIGITS_PATTERN
        case ["Split", "ByteLevel"] if "Regex" in steps[0].get("pattern", {}):
            return str(steps[0]["pattern"]["Regex"])
        case kinds:
            raise ValueError(f"{path}: pre_tokenizer {kinds} is not known")
