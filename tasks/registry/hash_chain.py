"""Entries as lines of JSON, each with the SHA-256 of the one before (``previous``): a removed, changed or reordered one shows.

Entries that were written before there were such digests are covered by the first one that has one. Where they are kept is not known here.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping


def digest_before(texts: list[str]) -> str:
    """What the next entry holds: the digest of the last one or, where that is older than the chain, of all that there are."""
    if not texts:
        return ""
    last = texts[-1:] if any('"previous": ' in text for text in texts) else texts
    return sha256("\n".join(last))


def problems(texts: Mapping[int, str]) -> Iterator[str]:
    """What is wrong with entries by their numbers, which begin with 1, in sentences."""
    for number in sorted(set(range(1, max(texts, default=0) + 1)) - texts.keys()):
        yield f"entry {number} is missing"
    so_far: list[str] = []
    for number, text in texts.items():
        try:
            event = json.loads(text)
            stated = event.get("previous")
        except (ValueError, AttributeError):
            yield f"entry {number} is no entry"
            stated = None
        if stated is None and any('"previous": ' in earlier for earlier in so_far):
            yield f"entry {number} has no digest of the one before"
        elif stated is not None and stated != digest_before(so_far):
            yield f"entry {number} does not follow the one before: one of them was changed, moved or removed"
        so_far.append(text)


def lost(trails: Iterable[Mapping[int, str]], heads: Iterable[str]) -> Iterator[str]:
    """Of digests of entries that somebody noted those that no entry of these trails has, in sentences."""
    present = {sha256(text) for texts in trails for text in texts.values()}
    for head in heads:
        if head not in present:
            yield f"no entry has the digest {head}: the end was removed, or the trail was written anew"


def sha256(text: str) -> str:
    """The digest of an entry."""
    return hashlib.sha256(text.encode()).hexdigest()
