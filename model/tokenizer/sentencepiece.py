"""SentencePiece's vocabularies, from a ``tokenizer.json``. Text never becomes a control token here, whatever it contains."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from model.tokenizer.added_tokens import AddedTokens, Entry, without_controls


class SentencePiece:
    """SentencePiece's BPE with bytes for unknown characters, as in Llama 2, through ``tokenizers``.

    ``encode`` adds nothing; the blank that SentencePiece adds comes from ``prefix_space``. A "▁" in text becomes a blank.
    """

    def __init__(self, source: dict[str, Any], added: AddedTokens, path: Path):
        vocab: dict[str, int] = source["model"]["vocab"]
        if missing := [byte for byte in (f"<0x{b:02X}>" for b in range(256)) if byte not in vocab]:
            raise ValueError(f"{path}: the vocabulary lacks the bytes {', '.join(missing[:5])}, so not all text can be encoded")
        self.added = added
        names = added.controls | added.words
        self.size = max([*vocab.values(), *names.values()]) + 1
        self._blanks, steps = _blanks(source, path)
        if unfit := [entry["content"] for entry in added.entries if not self._fits(entry)]:
            raise ValueError(
                f"{path}: the added words {', '.join(map(repr, unfit[:5]))} cannot be matched as tokenizers would; remove them"
            )
        text_only = source | without_controls(source, added)
        try:
            self._tokenizer, self._after_word = (tokenizers.Tokenizer.from_str(json.dumps(text_only | own)) for own in (steps, {}))
        except Exception as error:  # tokenizers raises nothing narrower
            raise ValueError(f"{path} is not whole: {error}") from None
        self._bytes = {i: _piece_bytes(piece) for piece, i in vocab.items()} | {i: name.encode() for name, i in names.items()}

    def _fits(self, word: Entry) -> bool:
        """Whether it is the same word behind a blank that is added, and no character that the vocabulary lacks."""
        normalized = self._blanks == "prepend" and word.get("normalized")  # tokenizers looks for it with the added blank
        blank = word["content"][0] in " ▁" and (self._blanks != "never" or word.get("normalized"))
        return not (normalized or blank or (word.get("single_word") and len(word["content"]) == 1))

    def encode(self, text: str) -> list[int]:
        """Ids of a text; unknown characters become bytes."""
        if (at := self.added.first_word(text)) is None:
            return self._tokenizer.encode(text, add_special_tokens=False).ids
        # What follows a word gets its blank.
        return [
            i
            for one, part in ((self._tokenizer, text[:at]), (self._after_word, text[at:]))
            for i in one.encode(part, add_special_tokens=False).ids
        ]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, as of ``encode``."""
        if self.added.words:
            return [self.encode(text) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of the ids; ids outside the vocabulary become nothing."""
        return b"".join(self._bytes.get(i, b"") for i in ids)

    def prefix_space(self, text: str, *, first: bool) -> str:
        """A blank where the ``tokenizer.json`` adds one before this text."""
        if not text or self._blanks == "never" or (self._blanks == "first" and not first) or self.added.first_word(text) == 0:
            return ""
        # Hugging Face's Metaspace adds none where there is one, its Prepend does.
        return "" if text[0] in " ▁" and self._blanks != "prepend" else " "


_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
# Gemma's: it cuts at blanks, of which none is left by then.
_AT_BLANKS = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def _blanks(source: dict[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
    """Before which texts a blank is added ("prepend" and "always": any, "first", "never"), and the steps that add none."""
    normalizer, pre = source.get("normalizer") or {}, source.get("pre_tokenizer") or {}
    match normalizer.get("normalizers", [normalizer] if normalizer else []), pre:
        case [{"type": "Prepend", "prepend": "▁"}, replace], {} if replace == _REPLACE and not pre:
            return "prepend", {"normalizer": _REPLACE}
        case [replace], {} if replace == _REPLACE and pre in ({}, _AT_BLANKS):
            return "never", {"normalizer": _REPLACE}
        case [], {"type": "Metaspace", "replacement": "▁"}:
            scheme = pre.get("prepend_scheme", "always" if pre.get("add_prefix_space", True) else "never")
            bare = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": pre.get("split", True)}
            return scheme, {"pre_tokenizer": bare}
        case _:
            raise ValueError(f"{path}: normalizer {normalizer} with pre_tokenizer {pre} is not one of Llama 2's")


_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _piece_bytes(piece: str) -> bytes:
    byte = _BYTE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()
