"""Vocabularies in GGUF's metadata: to a ``tokenizer.json`` that Hugging Face's tokenizers and model.tokenizer read alike, and back."""

from operator import itemgetter
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

from model.tokenizer.tokenizer import Tokenizer
from model.tokenizer.tokenizer_json import added_token, bos_processor, bpe_model
from model.tokenizer.vocabulary import DIGITS_PATTERN, GPT2_PATTERN, LLAMA3_PATTERN, QWEN2_PATTERN, split_pattern

# tokenizer.ggml.pre: the pre-tokenizers of Hugging Face that they stand for, and the split pattern that both have.
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_LLAMA3_SPLIT = {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False}
_QWEN2_SPLIT = _LLAMA3_SPLIT | {"pattern": {"Regex": QWEN2_PATTERN}}
PRE_TOKENIZERS: dict[str, tuple[Any, str]] = {
    "smollm": (
        {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL]},
        DIGITS_PATTERN,
    ),
    "gpt-2": (_BYTE_LEVEL, GPT2_PATTERN),
    "qwen2": ({"type": "Sequence", "pretokenizers": [_QWEN2_SPLIT, _BYTE_LEVEL | {"use_regex": False}]}, QWEN2_PATTERN),
    "llama-bpe": ({"type": "Sequence", "pretokenizers": [_LLAMA3_SPLIT, _BYTE_LEVEL | {"use_regex": False}]}, LLAMA3_PATTERN),
}
WHOLE_WORDS = "llama-bpe"  # a piece that is a token stays one, whatever the merges say


def tokenizer_json(fields: dict[str, Any], path: Path) -> dict[str, Any]:
    """The vocabulary of a GGUF file as a ``tokenizer.json``."""
    model, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if model != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ValueError(f"{path}: tokenizer {model!r} with pre-tokenizer {pre!r} is not supported; known: {', '.join(PRE_TOKENIZERS)}")
    tokens, types, merges = (fields.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type", "merges"))
    if not isinstance(tokens, list) or not isinstance(types, list) or len(tokens) != len(types) or not isinstance(merges, list):
        raise ValueError(f"{path}: tokenizer.ggml.tokens, token_type and merges do not fit together")
    special = {token: i for i, token in enumerate(tokens) if types[i] == TokenType.CONTROL}
    words = [added_token(token, i) | {"special": False} for i, token in enumerate(tokens) if types[i] == TokenType.USER_DEFINED]
    vocabulary = {token: i for i, token in enumerate(tokens) if types[i] != TokenType.UNUSED}
    # Where the file does not say, llama.cpp adds it for Llama 3 and not for the others.
    adds_bos = fields.get("tokenizer.ggml.add_bos_token", pre == WHOLE_WORDS) and "tokenizer.ggml.bos_token_id" in fields
    bos = tokens[fields["tokenizer.ggml.bos_token_id"]] if adds_bos else ""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted([*(added_token(token, i) for token, i in special.items()), *words], key=itemgetter("id")),
        "normalizer": None,
        "pre_tokenizer": PRE_TOKENIZERS[pre][0],
        "post_processor": bos_processor(bos, special[bos]) if bos in special else None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": bpe_model(vocabulary, [m.split(" ") for m in merges], ignore_merges=pre == WHOLE_WORDS),
    }


def add_vocabulary(writer: GGUFWriter, source: dict[str, Any], tokenizer: Tokenizer, path: Path, size: int) -> None:
    """The keys that llama.cpp tokenizes by, from a byte-level ``tokenizer.json`` and its settings."""
    model = source["model"]
    if model.get("byte_fallback"):
        raise ValueError(f"{path}: a SentencePiece vocabulary cannot be written to GGUF; its scores are not in tokenizer.json")
    # Without it text that is not in NFC has other ids there; Qwen's own GGUF files are so too.
    if (source.get("normalizer") or {"type": "NFC"}) != {"type": "NFC"}:
        raise ValueError(f"{path}: llama.cpp applies no normalizer, and this vocabulary has one")
    pattern = split_pattern(source, path)
    pre = next((name for name, (_, known_pattern) in PRE_TOKENIZERS.items() if known_pattern == pattern), None)
    if pre is None:
        raise ValueError(f"{path}: llama.cpp has no name for its pre-tokenizer")
    by_id = {i: token for token, i in (model["vocab"] | tokenizer.special | tokenizer.words).items()}
    token_types = dict.fromkeys(by_id, TokenType.NORMAL)
    token_types |= dict.fromkeys(tokenizer.special.values(), TokenType.CONTROL)
    token_types |= dict.fromkeys(tokenizer.words.values(), TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([by_id.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types([token_types.get(i, TokenType.UNUSED) for i in range(size)])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    if tokenizer.bos in tokenizer.special:
        writer.add_bos_token_id(tokenizer.special[tokenizer.bos])
    if tokenizer.stop_ids:
        writer.add_eos_token_id(tokenizer.special.get(tokenizer.eos, tokenizer.stop_ids[0]))
    writer.add_add_bos_token(bool(tokenizer.prefix))
    writer.add_add_space_prefix(False)
    if tokenizer.template:
        writer.add_chat_template(tokenizer.template)
