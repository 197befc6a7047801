"""A token classifier of the user's: a local folder with config.json, tokenizer.json and model.safetensors or model.onnx.

The folder is data: nothing in it is run, no pickle is read, nothing is fetched. A text of any length is read in windows of at most
MAX_WINDOW tokens, of which a quarter is in the next window too. What two windows share is cut in the middle: the first half has the labels
of the former, the second half those of the latter, so that every token was read with text on both sides.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Encoding, Tokenizer

from tasks.corpus.deidentify.classifier_weights import ONNX, SAFETENSORS, read_onnx, read_safetensors
from tasks.corpus.deidentify.entity_models import KEY, Entity
from tasks.corpus.deidentify.policy import TokenClassifierParams
from tasks.runtime.digests import tree_sha256
from tasks.runtime.errors import printable
from tasks.runtime.regular_files import read_regular

MAX_WINDOW = 512  # tokens, with those that the tokenizer adds; fewer where the model has fewer positions
CONFIG, TOKENIZER = "config.json", "tokenizer.json"
_PREFIX = re.compile(r"(?P<position>[BIESLU])-(?P<entity>.+)")  # of the schemes BIO, BIOES and BILOU
_BEGINS, _ENDS = ("B", "S", "U"), ("E", "L", "S", "U")


class _Token(NamedTuple):
    start: int
    end: int
    label: str  # of the model, with its prefix


class TokenClassifier:
    """Marks entities in texts. Weights are 32-bit floats and there is one thread, so a text gives the same entities in every process."""

    def __init__(self, params: TokenClassifierParams):
        """``ValueError`` where the folder is not the one that the params mean, cannot be read as data alone, or lacks a label."""
        folder = Path(params.path).expanduser()
        config = _checked_config(folder)
        if (actual := tree_sha256(folder)) != params.sha256:
            raise ValueError(f"{KEY}.sha256 is not the SHA-256 of {folder}; if that is the model you mean, write {actual}")
        self._labels = _labels(folder, config)
        self._types = _checked_types(folder, self._labels, params.labels)
        self._tokenizer, self._shared = _tokenizer(folder, config)
        self._logits = (read_safetensors if (folder / SAFETENSORS).exists() else read_onnx)(folder, config)
        self._try(folder)

    def entities(self, text: str) -> list[Entity]:
        """The entities whose labels have a type, in their order; none overlaps another."""
        return list(_decoded(_words(self._tokens(text), text), self._types))

    def _try(self, folder: Path) -> None:
        """Read a first text, which shows whether tokenizer, weights and labels fit together."""
        try:
            shape = self._logits(self._tokenizer.encode("Seen on 3 May.").ids).shape
        except Exception as error:
            raise ValueError(f"{KEY}: {folder}: its model does not read what its tokenizer writes ({type(error).__name__})") from None
        if len(shape) != 2 or shape[1] != len(self._labels):
            raise ValueError(f"{KEY}: {folder}: its model gives scores of shape {shape}, not one for each of {len(self._labels)} labels")

    def _tokens(self, text: str) -> list[_Token]:
        """Every token of a text once, with its label."""
        tokens = list[_Token]()
        first = self._tokenizer.encode(text)
        for number, window in enumerate((first, *first.overflowing)):
            own = self._labelled(window)[self._shared // 2 if number else 0 :]
            while own and tokens and tokens[-1].start >= own[0].start:
                tokens.pop()
            tokens += own
        return tokens

    def _labelled(self, window: Encoding) -> list[_Token]:
        """The tokens of a window, without those that the tokenizer adds."""
        if not window.ids:
            return []
        best = self._logits(window.ids).argmax(axis=-1)
        rows = zip(window.offsets, window.special_tokens_mask, best, strict=True)
        return [_Token(start, end, self._labels[label]) for (start, end), is_added, label in rows if not is_added]


def _words(tokens: Iterable[_Token], text: str) -> Iterator[_Token]:
    """Tokens joined to words, each with the label of its first token, which is the one that training counts; blank ones are left out."""
    word: _Token | None = None
    for token in tokens:
        start = token.end - len(text[token.start : token.end].lstrip())
        if start == token.end:
            continue
        if word and start <= word.end and _is_of_a_word(text[start - 1]) and _is_of_a_word(text[start]):
            word = word._replace(end=max(word.end, token.end))
        else:
            if word:
                yield word
            word = _Token(start, token.end, token.label)
    if word:
        yield word


def _is_of_a_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _decoded(words: Iterable[_Token], types: Mapping[str, str]) -> Iterator[Entity]:
    """Runs of words of one label, where a prefix may begin or end a run; labels without a type are left out."""
    run: Entity | None = None
    open_label = ""
    for word in words:
        position, label = _parts(word.label)
        if position in _BEGINS or label != open_label:
            if run:
                yield run
            run = Entity(word.start, word.end, types[label]) if label in types else None
        elif run:
            run = run._replace(end=word.end)
        open_label = "" if position in _ENDS else label
    if run:
        yield run


def _parts(label: str) -> tuple[str, str]:
    """The prefix of a label, empty where it has none, and the rest."""
    match = _PREFIX.fullmatch(label)
    return (match["position"], match["entity"]) if match else ("", label)


def _checked_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json, where all of the folder can be read as data."""
    if not folder.is_dir():
        raise ValueError(f"{KEY}.path: {printable(folder)} is no folder")
    if link := next((path for path in sorted(folder.rglob("*")) if path.is_symlink()), None):
        raise ValueError(f"{KEY}.path: {printable(link)} is a link; put the file itself in its place (cp -rL copies what links lead to)")
    for name in (CONFIG, TOKENIZER):
        if not (folder / name).is_file():
            raise ValueError(
                f"{KEY}.path: {folder} has no {name}; save_pretrained of the model and of its fast tokenizer writes what is needed"
            )
    weights = [name for name in (SAFETENSORS, ONNX) if (folder / name).is_file()]
    if len(weights) != 1:
        have = "both" if weights else "neither"
        raise ValueError(
            f"{KEY}.path: {folder} has {have} of {SAFETENSORS} and {ONNX}; one of them is read, and no pickle such as pytorch_model.bin, "
            "which can run code"
        )
    try:
        config = json.loads(read_regular(folder / CONFIG))
    except ValueError as error:
        raise ValueError(f"{KEY}.path: {folder / CONFIG} is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{KEY}.path: {folder / CONFIG} is no JSON object")
    if "auto_map" in config:
        raise ValueError(
            f"{KEY}.path: {folder / CONFIG} names code of its own (auto_map), which is not run; use a model of transformers itself"
        )
    return config


def _labels(folder: Path, config: Mapping[str, Any]) -> list[str]:
    """The labels of the model in the order of its scores."""
    by_id = config.get("id2label")
    if isinstance(by_id, dict) and {str(i) for i in range(len(by_id))} == by_id.keys() and all(isinstance(v, str) for v in by_id.values()):
        return [by_id[str(i)] for i in range(len(by_id))]
    raise ValueError(f"{KEY}.path: {folder / CONFIG} has no id2label that gives each score of the model a label")


def _checked_types(folder: Path, labels: Iterable[str], types: Mapping[str, str]) -> Mapping[str, str]:
    known = sorted({label for _, label in map(_parts, labels)} - {"O"})
    if unknown := sorted(set(types) - set(known)):
        raise ValueError(f"{KEY}.labels: {unknown[0]!r} is no label of {folder}; it has {', '.join(known)}")
    return types


def _tokenizer(folder: Path, config: Mapping[str, Any]) -> tuple[Tokenizer, int]:
    """The tokenizer, set to write windows, and how many tokens two of them share."""
    window = min(MAX_WINDOW, config.get("max_position_embeddings", MAX_WINDOW) - 2)  # some families count positions from 2 on
    try:
        tokenizer = Tokenizer.from_str(read_regular(folder / TOKENIZER).decode())
        tokenizer.no_padding()
        tokenizer.enable_truncation(window, stride=window // 4)
    except Exception as error:
        raise ValueError(f"{KEY}.path: {folder / TOKENIZER} is not a tokenizer that can be read ({type(error).__name__})") from None
    return tokenizer, window // 4
