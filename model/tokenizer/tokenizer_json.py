"""Writes ``tokenizer.json``, the format of Hugging Face's tokenizers: from Llama 3's tiktoken BPE file, and the parts of others.

It knows nothing of encoding.
"""

from pathlib import Path
from typing import Any

from model.tokenizer.vocabulary import LLAMA3_PATTERN, byte_symbols, llama3_specials, read_tiktoken_bpe


def tiktoken_to_tokenizer_json(path: Path) -> dict[str, Any]:
    """A ``tokenizer.json`` that gives the ids of Llama 3's tiktoken BPE file, as Hugging Face's converter makes it.

    tiktoken merges any two neighbours whose union has a rank; so every split of a token into two tokens becomes a merge.
    """
    ranks = read_tiktoken_bpe(path)
    symbols = byte_symbols()
    text = {token: "".join(symbols[b] for b in token) for token in ranks}
    merges = []
    for token in ranks:  # in the order of their ranks
        splits = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += [[text[a], text[b]] for a, b in sorted(splits, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))]
    bos, special = "<|begin_of_text|>", llama3_specials()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added_token(name, i) for name, i in special.items()],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {"type": "Sequence", "processors": [byte_level, bos_processor(bos, special[bos])]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": bpe_model({text[token]: rank for token, rank in ranks.items()}, merges, ignore_merges=True),
    }


def added_token(name: str, i: int) -> dict[str, Any]:
    """An entry of ``added_tokens`` in a ``tokenizer.json``: a control token that is matched exactly."""
    return {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def bos_processor(bos: str, i: int) -> dict[str, Any]:
    """The ``post_processor`` that puts a beginning-of-text token before each text."""
    first, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
    bos_0, bos_1 = ({"SpecialToken": {"id": bos, "type_id": n}} for n in (0, 1))
    return {
        "type": "TemplateProcessing",
        "single": [bos_0, first],
        "pair": [bos_0, first, bos_1, second],
        "special_tokens": {bos: {"id": bos, "ids": [i], "tokens": [bos]}},
    }


def bpe_model(vocab: dict[str, int], merges: list[list[str]], *, ignore_merges: bool) -> dict[str, Any]:
    """The ``model`` part of a byte-level ``tokenizer.json``."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": ignore_merges,
        "vocab": vocab,
        "merges": merges,
    }
