"""Texts as sets of hashes: words, n-grams of words, sentences. Equal on every machine, so Python's own hash is no use."""

import hashlib
import re
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from rensa import RMinHash

Hashes = npt.NDArray[np.uint64]

_WORD = re.compile(r"\w+")
# Ends of sentences and lines, kept so that what is not removed stays as it was.
_BORDER = re.compile(r"((?<=[.!?])\s+|\n+)")
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying modulo 2^64 loses nothing
PERMUTATIONS = 128
# What makes two sentences of the same words otherwise state different facts.
_FACT = re.compile(r"\d+(?:[.,]\d+)*|\b(?:no|not|never|without|left|right|bilateral|hyper\w*|hypo\w*|increased?|decreased?|high|low)\b")


def words(text: str) -> list[str]:
    """The words and numbers of a text, in lower case."""
    return _WORD.findall(text.lower())


def numbers_and_negations(text: str) -> list[str]:
    """The numbers, negations, sides and directions in a text, in its order."""
    return _FACT.findall(text.lower())


@lru_cache(maxsize=1 << 16)
def hash_text(text: str) -> int:
    """64 bits of BLAKE2."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def ngrams(text: str, n: int) -> Hashes:
    """Hashes of the distinct n-grams of a text's words, sorted; of a shorter text, none."""
    hashed = np.array([hash_text(word) for word in words(text)], np.uint64)
    count = len(hashed) - n + 1
    if count < 1:
        return np.zeros(0, np.uint64)
    total = np.zeros(count, np.uint64)
    for i in range(n):
        total = total * BASE + hashed[i : i + count]
    return np.unique(total ^ (total >> np.uint64(29)))


def sentences(text: str) -> list[str]:
    """Sentences at even indices, the white space between them at odd ones; joined they are the text."""
    return _BORDER.split(text)


def sentence_key(sentence: str, min_words: int) -> int | None:
    """A sentence's hash, the same for other case and punctuation; None for one of under ``min_words`` words."""
    tokens = words(sentence)
    return hash_text(" ".join(tokens)) if len(tokens) >= min_words else None


def signatures(grams: list[Hashes]) -> npt.NDArray[np.uint32]:
    """MinHash signatures (Broder 1997) of N sets of hashes, (N, PERMUTATIONS): equal values estimate the Jaccard similarity."""
    flat = np.concatenate(grams) if grams else np.zeros(0, np.uint64)
    offsets = np.cumsum([0, *map(len, grams)], dtype=np.uint64)
    rows = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, PERMUTATIONS, 1).to_rows()
    return np.array(rows, np.uint32).reshape(len(grams), PERMUTATIONS)
