"""Vocabularies: text to ids and back, byte-level BPE through tiktoken, and SentencePiece's, from the files that hold them.

Text never becomes a control token here, whatever it contains. It knows nothing of chats.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol

import tiktoken
import tokenizers

from model.checkpoint.json_file import check_no_pointer
from model.tokenizer.added_tokens import AddedTokens, without_controls
from model.tokenizer.sentencepiece import SentencePiece

# GPT-2's split pattern (openai/gpt-2, src/encoder.py).
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# The same behind Hugging Face's Digits(individual_digits=True): a number is split off first, so blanks before it stand alone.
DIGITS_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
# Llama 3's pattern and control tokens (meta-llama/llama-models, models/llama3/tokenizer.py).
LLAMA3_PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Qwen 2's, of its releases' tokenizer.json: numbers digit by digit.
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
LLAMA3_RANKS, LLAMA3_SPECIALS = 128_000, 256
_LLAMA3_NAMES = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
    "<|image|>",
)
LLAMA3_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)

# Of tokenizers: the normal forms of Unicode, which leave ASCII as it is, and others that look at no neighbours.
UNICODE_FORMS, OTHER_NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD"}), frozenset({"Lowercase", "Replace", "StripAccents"})

# tiktoken needs time quadratic in the length of an unbroken run and panics on a million blanks; Meta's tokenizer.py cuts
# runs at this length too.
MAX_RUN = 25_000
# Looked for where a run begins alone: from every place of a run that is just too short it would be quadratic as well.
_LONG_RUN = re.compile(rf"(?<!\s)\s{{{MAX_RUN},}}|(?<!\S)\S{{{MAX_RUN},}}")


class Vocabulary(Protocol):
    """``added.controls`` are tokens that no text is encoded to; ``size`` is one more than the highest id."""

    size: int
    added: AddedTokens

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without a blank or control token before it."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, as of ``encode``."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The inverse of ``encode``; control tokens become their names, and ids that only pad a model's matrices nothing."""

    def prefix_space(self, text: str, *, first: bool) -> str:
        """The blank that the model was trained to see before this text, or "".

        ``first``: the text is the first of all; otherwise it follows a control token.
        """


class ByteLevel:
    """Byte-level BPE through tiktoken, as in Llama 3 and SmolLM2; through tokenizers where that does more than tiktoken can.

    A byte that the vocabulary lacks (SmolLM2 has no 0xF1 and some C0 controls) is left out, as Hugging Face does.
    ``pattern``: what tiktoken cuts text with; ``None`` if it cannot. ``normalized``: whether a text is changed first.
    """

    def __init__(
        self,
        ranks: dict[bytes, int],
        pattern: str | None,
        added: AddedTokens,
        source: dict[str, Any] | None = None,
        normalized: Callable[[str], bool] = lambda _: False,
    ):
        self.added = added
        names = added.controls | added.words
        self.size = max([*ranks.values(), *names.values()]) + 1
        self._source, self._normalized, self._cuts = source, normalized, pattern is not None
        self._ids = frozenset([*ranks.values(), *names.values()])
        missing = [bytes([b]) for b in range(256) if bytes([b]) not in ranks]
        # tiktoken needs all 256; _without_extra_bytes() removes these again.
        ranks = ranks | {byte: self.size + i for i, byte in enumerate(missing)}
        # encode_ordinary() makes neither controls nor words of text.
        self._encoding = tiktoken.Encoding("vocabulary", pat_str=pattern or ".", mergeable_ranks=ranks, special_tokens=names)

    def encode(self, text: str) -> list[int]:
        """Ids of a text; a very long run of blanks or non-blanks is cut first (``MAX_RUN``)."""
        if not self._cuts or self._normalized(text) or self.added.first_word(text) is not None:
            return self._hugging_face.encode(text, add_special_tokens=False).ids
        if len(text) < MAX_RUN:
            return self._without_extra_bytes(self._encoding.encode_ordinary(text), text)
        return [i for part in _split_runs(text) for i in self._without_extra_bytes(self._encoding.encode_ordinary(part), part)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, as of ``encode``."""
        # One by one: tiktoken's own batches cost a future per text, three times what a short text takes.
        return [self.encode(text) for text in texts]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of the ids; ids outside the vocabulary become nothing."""
        return self._encoding.decode_bytes([i for i in ids if i in self._ids])

    def prefix_space(self, text: str, *, first: bool) -> str:  # noqa: ARG002
        """Always "": byte-level BPE adds no blank."""
        return ""

    def _without_extra_bytes(self, ids: list[int], text: str) -> list[int]:
        """The ids, or where a byte of the text is not in the vocabulary, those of Hugging Face's merges without that byte."""
        if not ids or max(ids) < self.size:
            return ids
        return self._hugging_face.encode(text, add_special_tokens=False).ids

    @cached_property
    def _hugging_face(self) -> tokenizers.Tokenizer:
        assert self._source is not None, "tiktoken files hold all bytes, and no words"
        return tokenizers.Tokenizer.from_str(json.dumps(self._source | without_controls(self._source, self.added)))


def from_tokenizer_json(source: dict[str, Any], path: Path) -> Vocabulary:
    """The vocabulary of a ``tokenizer.json``. ``ValueError`` names the part that is not supported."""
    model = source.get("model") or {}
    if model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise ValueError(f"{path}: only BPE vocabularies can be read, this is {model.get('type')!r}")
    added = AddedTokens.of(source, path)
    if model.get("byte_fallback"):
        return SentencePiece(source, added, path)
    pattern = split_pattern(source, path) if _merges_by_rank(model) else None
    return ByteLevel(_byte_ranks(model, added, path), pattern, added, source, _normalization(source, path))


def _byte_ranks(model: dict[str, Any], added: AddedTokens, path: Path) -> dict[bytes, int]:
    """The bytes of every token that text can become by merging."""
    to_byte = {symbol: byte for byte, symbol in byte_symbols().items()}
    names = added.controls | added.words
    try:
        return {bytes(to_byte[c] for c in token): int(i) for token, i in model["vocab"].items() if token not in names}
    except KeyError as error:
        raise ValueError(f"{path}: the vocabulary is not byte-level BPE, it holds the character {error}") from None


def _merges_by_rank(model: dict[str, Any]) -> bool:
    """Whether tiktoken merges alike: it takes the pair whose result has the lowest id, Hugging Face the first one in the list."""
    merged = [model["vocab"].get("".join(m.split(" ") if isinstance(m, str) else m), -1) for m in model.get("merges") or []]
    return all(earlier <= later for earlier, later in pairwise(merged))


def _normalization(source: dict[str, Any], path: Path) -> Callable[[str], bool]:
    """Whether the normalizer of a byte-level ``tokenizer.json`` may change a text."""
    normalizer = source.get("normalizer") or {}
    kinds = {step.get("type") for step in normalizer.get("normalizers", [normalizer] if normalizer else [])}
    if unknown := kinds - UNICODE_FORMS - OTHER_NORMALIZERS:
        raise ValueError(f"{path}: normalizer {', '.join(map(repr, unknown))} is not supported with a byte-level vocabulary")
    if kinds <= UNICODE_FORMS:
        return (lambda text: not text.isascii()) if kinds else (lambda _: False)
    return lambda _: True


def split_pattern(source: dict[str, Any], path: Path) -> str | None:
    """The regular expression that a byte-level ``tokenizer.json`` cuts text with before it merges; ``None`` if it is not a single one."""
    pre = source.get("pre_tokenizer") or {}
    match [{"use_regex": True} | step for step in pre.get("pretokenizers", [pre])]:  # the default of tokenizers
        case [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return GPT2_PATTERN
        case [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]:
            return DIGITS_PATTERN
        case [
            {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            return pattern
        case [*steps, {"type": "ByteLevel", "add_prefix_space": False}] if all(map(_keeps_text, steps)):
            return None
        case steps:
            raise ValueError(f"{path}: pre_tokenizer {[step.get('type') for step in steps]} with these settings is not known")


def _keeps_text(step: dict[str, Any]) -> bool:
    return step.get("type") in ("Digits", "Punctuation", "Split", "UnicodeScripts") and step.get("behavior") != "Removed"


def byte_symbols() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level BPE vocabularies (openai/gpt-2, bytes_to_unicode)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    return {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}


def from_tiktoken_file(path: Path) -> Vocabulary:
    """Llama 3's vocabulary from its tiktoken BPE file.

    Such a file has neither split pattern nor control tokens, so only the one with 128,000 ranks, for which they are known, can be
    used alone.
    """
    specials = [{"content": name, "id": i, "special": True} for name, i in llama3_specials().items()]
    return ByteLevel(read_tiktoken_bpe(path), LLAMA3_PATTERN, AddedTokens(specials))


def llama3_specials() -> dict[str, int]:
    """Llama 3's control tokens and their ids, the reserved ones included."""
    reserved = [f"<|reserved_special_token_{2 + i}|>" for i in range(LLAMA3_SPECIALS - len(_LLAMA3_NAMES))]
    return {name: LLAMA3_RANKS + i for i, name in enumerate([*_LLAMA3_NAMES, *reserved])}


def read_tiktoken_bpe(path: Path) -> dict[bytes, int]:
    """The bytes of Llama 3's tokens, in the order of their ranks. ``ValueError`` names the file and the line that is wrong."""
    ranks: dict[bytes, int] = {}
    with open(path, "rb") as file:
        if b"\0" in file.read(4096):
            raise ValueError(
                f"{path} is no tiktoken BPE file but binary, such as a SentencePiece model, which cannot be read; "
                "put the tokenizer.json of the model's Hugging Face release beside it"
            )
        file.seek(0)
        for line_number, line in enumerate(islice(file, LLAMA3_RANKS + 1), 1):
            expected_rank = line_number - 1
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except ValueError:
                check_no_pointer(path)
                raise ValueError(f"{path}, line {line_number}: expected a base64 token and its rank") from None
            if int(rank) != expected_rank:
                raise ValueError(f"{path}, line {line_number}: expected rank {expected_rank}, found {int(rank)}")
            if len(ranks) == expected_rank:
                raise ValueError(f"{path}, line {line_number}: the token {token.decode()} occurs twice")
    if len(ranks) != LLAMA3_RANKS:
        raise ValueError(
            f"{path} has {min(len(ranks), LLAMA3_RANKS)} ranks{' and more' if len(ranks) > LLAMA3_RANKS else ''}; "
            f"only Llama 3's file of exactly {LLAMA3_RANKS} can be used alone. "
            "Put the model's tokenizer.json beside it; that has the split pattern and the control tokens"
        )
    return ranks


def _split_runs(text: str) -> Iterable[str]:
    """The text in parts without an unbroken run of more than MAX_RUN blanks or non-blanks."""
    start = 0
    for run in _LONG_RUN.finditer(text):
        for cut in range(run.start() + MAX_RUN, run.end(), MAX_RUN):
            yield text[start:cut]
            start = cut
    yield text[start:]
