"""SentencePiece's vocabularies, from a ``tokenizer.json``. Text never becomes a control token here, whatever it contains."""

import json
import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
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
        self._blanks, steps = added_blanks(source, path)
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


MARK = "▁"  # a blank in a vocabulary
_REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
_DECODERS = [{"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
# The parts of a tokenizer.json that add a blank before every text, and none.
BLANK_STEPS: dict[bool, dict[str, Any]] = {
    True: {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, _REPLACE]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [*_DECODERS, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    },
    False: {"normalizer": _REPLACE, "pre_tokenizer": None, "decoder": {"type": "Sequence", "decoders": _DECODERS}},
}
# Gemma's: it cuts at blanks, of which none is left by then.
_AT_BLANKS = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


def added_blanks(source: dict[str, Any], path: Path) -> tuple[str, dict[str, Any]]:
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


BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def _piece_bytes(piece: str) -> bytes:
    byte = BYTE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()


def merges_by_score(scores: Mapping[str, float]) -> list[list[str]]:
    """The merges of a model whose pieces have these scores, best first, as transformers' converter makes them.

    SentencePiece merges the neighbours whose union has the highest score; so every split of a piece into two pieces becomes a merge.
    """
    merges = [(score, left, right) for piece, score in scores.items() for left, right in _splits(piece, scores)]
    merges.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [[left, right] for _, left, right in merges]


def scores_by_merge(vocab: Mapping[str, int], merges: Iterable[Sequence[str]], unmerged: Collection[str], path: Path) -> dict[int, float]:
    """Scores of the pieces that are merged, by id: 0 of the first, then -1 and so on.

    ``unmerged``: pieces that text does not become by merging. ``ValueError`` where merging by score would give other pieces.
    """
    pieces = {piece for piece in vocab if piece not in unmerged and not BYTE.fullmatch(piece)}
    merged: dict[str, set[tuple[str, str]]] = {}
    last = None
    for left, right in merges:
        piece = left + right
        if piece != last and piece in merged:
            raise ValueError(f"{path}: {NOT_BY_SCORE}: the merges of {piece!r} are not in one place")
        merged.setdefault(piece, set()).add((left, right))
        last = piece
    for piece in pieces:
        if {pair for pair in merged.get(piece, ()) if pieces.issuperset(pair)} != set(_splits(piece, pieces)):
            raise ValueError(f"{path}: {NOT_BY_SCORE}: {piece!r} is not merged from every two pieces that it has")
    return {vocab[piece]: -float(rank) for rank, piece in enumerate(merged)}


NOT_BY_SCORE = "llama.cpp merges a vocabulary with bytes for unknown characters by scores, as SentencePiece does, and this one cannot be"


def _splits(piece: str, pieces: Container[str]) -> list[tuple[str, str]]:
    parts = ((piece[:at], piece[at:]) for at in range(1, len(piece)))
    return [(left, right) for left, right in parts if left in pieces and right in pieces]
