"""Which records a model saw, and how they were used: lines ``digest split use`` in a packed file that each version carries.

A record's id may be a hospital's own, so a digest stands for it. Files of older versions have lines ``digest split``: they say in which
split a record was, and not whether training consumed it. It knows nothing of shards or versions.
"""

import gzip
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

FILE = "seen.txt.gz"
RENAMED_SPLITS = {"other": "ood"}  # in the files of older versions
# trained: fed to training up to the weights that were kept. selected: its loss chose those weights. scored: the model was measured on it.
# unused: it was in the split, and the model did not come to it. unknown: an older version, which does not say.
Use = Literal["trained", "selected", "scored", "unused", "unknown"]
WORDS: dict[Use, str] = {
    "trained": "was trained on it",
    "selected": "was chosen by it",
    "scored": "was scored on it",
    "unused": "did not see it",
    "unknown": "may have seen it: this version does not say what training came to",
}


class Seen(NamedTuple):
    """In which split a record was, and what a model did with it."""

    split: str
    use: Use

    @property
    def taints(self) -> bool:
        """Whether a model that must not have seen the record is tainted; one that may have seen it is."""
        return self.use != "unused"


def seen_digest(record_id: str) -> str:
    """The digest that represents a record's id: 20 hex digits."""
    return hashlib.sha256(record_id.encode()).hexdigest()[:20]


def strongest(one: Seen, other: Seen) -> Seen:
    """The stronger use of two of one record: a copy of it may have been used where it was not itself."""
    order = get_args(Use)
    return min(one, other, key=lambda seen: order.index(seen.use))


def write_seen(records: Iterable[tuple[str, Seen]], path: Path) -> None:
    """Records by digest, sorted: the same records give the same bytes."""
    by_digest: dict[str, Seen] = {}
    for digest, seen in records:
        by_digest[digest] = strongest(by_digest[digest], seen) if digest in by_digest else seen
    lines = "".join(f"{digest} {seen.split} {seen.use}\n" for digest, seen in sorted(by_digest.items()))
    with open(path, "wb") as file, gzip.GzipFile("", "wb", mtime=0, fileobj=file) as packed:
        packed.write(lines.encode("ascii"))


def read_seen(path: Path) -> Iterator[tuple[str, Seen]]:
    """Records by digest; ``ValueError`` names the line that is none."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            for line_number, line in enumerate(file, 1):
                digest, split, *use = line.split()
                if len(use) > 1 or (use and use[0] not in WORDS):
                    raise ValueError(f"line {line_number} is no record")
                yield digest, Seen(RENAMED_SPLITS.get(split, split), cast(Use, use[0]) if use else "unknown")
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: {error}") from None
