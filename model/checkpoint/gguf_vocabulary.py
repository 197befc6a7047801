"""Vocabularies in GGUF's metadata: to a ``tokenizer.json`` that Hugging Face's tokenizers and model.tokenizer read alike, and back.

llama.cpp's "gpt2" is byte-level BPE by merges. Its "llama" is SentencePiece's BPE by scores: whichever neighbours make the piece with the
highest score are merged next.
"""

from operator import itemgetter
from pathlib import Path
from typing import Any

from gguf import GGUFWriter, TokenType

from model.tokenizer.sentencepiece import BLANK_STEPS, BYTE, MARK, added_blanks, merges_by_score, scores_by_merge
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
    if model != "llama" and (model != "gpt2" or pre not in PRE_TOKENIZERS):
        known = f"'llama', and 'gpt2' with {', '.join(PRE_TOKENIZERS)}"
        raise ValueError(f"{path}: tokenizer {model!r} with pre-tokenizer {pre!r} is not supported; known: {known}")
    names = ("tokens", "token_type", "scores" if model == "llama" else "merges")
    lists: list[Any] = [fields.get(f"tokenizer.ggml.{name}") for name in names]
    tokens, types, order = lists
    if not all(isinstance(x, list) for x in lists) or len(set(map(len, lists[: 3 if model == "llama" else 2]))) > 1:
        raise ValueError(f"{path}: {', '.join(f'tokenizer.ggml.{name}' for name in names)} do not fit together")
    special = {token: i for i, token in enumerate(tokens) if types[i] in (TokenType.CONTROL, TokenType.UNKNOWN)}
    words = [added_token(token, i) | {"special": False} for i, token in enumerate(tokens) if types[i] == TokenType.USER_DEFINED]
    # Where the file does not say, llama.cpp adds it for these and not for the others.
    adds_bos = (
        fields.get("tokenizer.ggml.add_bos_token", model == "llama" or pre == WHOLE_WORDS) and "tokenizer.ggml.bos_token_id" in fields
    )
    bos = tokens[fields["tokenizer.ggml.bos_token_id"]] if adds_bos else ""
    vocabulary = {token: i for i, token in enumerate(tokens) if types[i] != TokenType.UNUSED}
    if model == "llama":
        steps = BLANK_STEPS[bool(fields.get("tokenizer.ggml.add_space_prefix", True))]
        pieces = {token: order[i] for token, i in vocabulary.items() if types[i] in (TokenType.NORMAL, TokenType.USER_DEFINED)}
        unknown = next((token for token, i in vocabulary.items() if types[i] == TokenType.UNKNOWN), None)
        bpe = bpe_model(vocabulary, merges_by_score(pieces), ignore_merges=False)
        bpe |= {"unk_token": unknown, "byte_fallback": True, "fuse_unk": True}
    else:
        steps = {
            "normalizer": None,
            "pre_tokenizer": PRE_TOKENIZERS[str(pre)][0],
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        }
        bpe = bpe_model(vocabulary, [m.split(" ") for m in order], ignore_merges=pre == WHOLE_WORDS)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": sorted([*(added_token(token, i) for token, i in special.items()), *words], key=itemgetter("id")),
        **steps,
        "post_processor": bos_processor(bos, special[bos]) if bos in special else None,
        "model": bpe,
    }


def add_vocabulary(writer: GGUFWriter, source: dict[str, Any], tokenizer: Tokenizer, path: Path, size: int) -> None:
    """The keys that llama.cpp tokenizes by, from a ``tokenizer.json`` and its settings. ``ValueError`` where it would give other ids."""
    model = source["model"]
    by_id = {i: token for token, i in (model["vocab"] | tokenizer.special | tokenizer.words).items()}
    token_types = dict.fromkeys(by_id, TokenType.NORMAL)
    token_types |= dict.fromkeys(tokenizer.special.values(), TokenType.CONTROL)
    token_types |= dict.fromkeys(tokenizer.words.values(), TokenType.USER_DEFINED)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if model.get("byte_fallback"):
        how, _ = added_blanks(source, path)
        if how not in ("prepend", "never"):
            raise ValueError(f"{path}: llama.cpp adds a blank before every text or none, and this vocabulary before some ({how})")
        unmerged = tokenizer.special.keys() | {word for word in tokenizer.words if MARK not in word}
        scores = scores_by_merge(model["vocab"], [merge.split(" ") for merge in merges], unmerged, path)
        # A word with a mark for blanks that merges make too is reached by them: text has blanks there.
        token_types |= {i: TokenType.NORMAL for word, i in tokenizer.words.items() if MARK in word and i in scores}
        token_types |= {i: TokenType.BYTE for i, token in by_id.items() if BYTE.fullmatch(token)}
        if model.get("unk_token") in model["vocab"]:
            unknown = model["vocab"][model["unk_token"]]
            token_types[unknown] = TokenType.UNKNOWN
            writer.add_unk_token_id(unknown)
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_scores([scores.get(i, 0.0) for i in range(size)])
        writer.add_add_space_prefix(how == "prepend")
    else:
        # Without it text that is not in NFC has other ids there; Qwen's own GGUF files are so too.
        if (source.get("normalizer") or {"type": "NFC"}) != {"type": "NFC"}:
            raise ValueError(f"{path}: llama.cpp applies no normalizer, and this vocabulary has one")
        pattern = split_pattern(source, path)
        pre = next((name for name, (_, known_pattern) in PRE_TOKENIZERS.items() if known_pattern == pattern), None)
        if pre is None:
            raise ValueError(f"{path}: llama.cpp has no name for its pre-tokenizer")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges(merges)
        writer.add_add_space_prefix(False)
    writer.add_token_list([by_id.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types([token_types.get(i, TokenType.UNUSED) for i in range(size)])
    if tokenizer.bos in tokenizer.special:
        writer.add_bos_token_id(tokenizer.special[tokenizer.bos])
    if tokenizer.stop_ids:
        writer.add_eos_token_id(tokenizer.special.get(tokenizer.eos, tokenizer.stop_ids[0]))
    writer.add_add_bos_token(bool(tokenizer.prefix))
    if tokenizer.template:
        writer.add_chat_template(tokenizer.template)
