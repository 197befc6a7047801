"""The added tokens of a ``tokenizer.json``: control tokens, which no text becomes, and words, which text is cut at before it is merged."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]  # as in the file: content, id, special, lstrip, rstrip, single_word, normalized
# Some releases leave the marks of turns without "special" (DeepSeek's <｜User｜>); words have no such names.
CONTROL_NAMES = ("<|", "<｜")
_BLANKS = r"[^\S\x1c-\x1f]*"  # what Rust calls whitespace
_OTHER_WORD = re.compile("[\u200c\u200d\u24b6-\u24e9\U0001f130-\U0001f149\U0001f150-\U0001f169\U0001f170-\U0001f189]")


class AddedTokens:
    """``controls`` and ``words`` by name, each with its id. ``entries`` are the words' entries in the file."""

    def __init__(self, entries: Iterable[Entry] = ()):
        entries = list(entries)
        controls = [entry for entry in entries if entry.get("special") or entry["content"].startswith(CONTROL_NAMES)]
        self.entries = [entry for entry in entries if entry not in controls]
        self.controls = {str(entry["content"]): int(entry["id"]) for entry in controls}
        self.words = {str(entry["content"]): int(entry["id"]) for entry in self.entries}
        self._controls_in, self._words_in = _Finder(controls), _Finder(self.entries)

    @classmethod
    def of(cls, source: dict[str, Any], path: Path) -> "AddedTokens":
        """Those of a ``tokenizer.json``. ``ValueError`` where an entry is incomplete."""
        try:
            return cls(source.get("added_tokens") or [])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path}: added_tokens cannot be read ({error!r})") from None

    def cut_at_controls(self, text: str) -> list[str | int]:
        """The text with its control tokens as ids, and without the blanks that they take."""
        parts: list[str | int] = []
        done = 0
        for start, end, name in self._controls_in(text):
            parts += [text[done:start], self.controls[name]]
            done = end
        return [part for part in (*parts, text[done:]) if part != ""]

    def first_word(self, text: str) -> int | None:
        """Where the first word in a text begins, with the blanks that it takes."""
        return next((start for start, _, _ in self._words_in(text)), None)


class _Finder:
    """Finds tokens in text as tokenizers does (tokenizer/added_vocabulary.rs): the first one, of those the longest, with its blanks."""

    def __init__(self, entries: Sequence[Entry]):
        self._entries = sorted(entries, key=lambda entry: len(entry["content"]), reverse=True)
        self._pattern = re.compile("|".join(map(_pattern, self._entries)) or r"(?!)")

    def __call__(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Start, end and name of each."""
        for match in self._pattern.finditer(text):
            group = match.lastindex or 0
            inside = _is_word(text[: match.start(group)][-1:]) or _is_word(text[match.end(group) :][:1])
            if not (inside and self._entries[group - 1].get("single_word")):
                yield match.start(), match.end(), match[group]


def _pattern(entry: Entry) -> str:
    before, after = (_BLANKS if entry.get(side) else "" for side in ("lstrip", "rstrip"))
    return f"{before}({re.escape(entry['content'])}){after}"


def _is_word(character: str) -> bool:
    r"""Whether Rust's ``\w`` matches a character: Unicode's Alphabetic, marks, decimal digits, connectors, joiners."""
    category = unicodedata.category(character) if character else ""
    return category[:1] in ("L", "M") or category in ("Nd", "Nl", "Pc") or bool(_OTHER_WORD.match(character))


def without_controls(source: dict[str, Any], added: AddedTokens) -> dict[str, Any]:
    """The parts of a ``tokenizer.json`` without its control tokens, so that no text is encoded to one."""
    special = added.controls
    model = source["model"]
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges") or []]
    # tokenizers numbers a word that the vocabulary lacks anew.
    vocab = {token: i for token, i in model["vocab"].items() if token not in special} | added.words
    merges = [pair for pair in pairs if not {*pair, "".join(pair)} & special.keys()]
    text_only = model | {"unk_token": None, "vocab": vocab, "merges": merges}
    return {"added_tokens": added.entries, "post_processor": None, "model": text_only}
