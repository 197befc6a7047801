"""Which files hold one of some byte strings, also where they are packed: gzip, zip (XLSX, NPZ), tar, Parquet. Archives in archives are not
opened. It knows nothing of records."""

import gzip
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

BLOCK, OVERLAP = 1 << 22, 256  # bytes; no string that is looked for is longer than the latter
DAMAGE = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError)
_ID = re.compile(rb"(?<![0-9a-f])[0-9a-f]{24}(?![0-9a-f])")
Matcher = Callable[[bytes], bool]


def of_ids(ids: Iterable[str]) -> Matcher:
    """Whether a block names one of these ids of documents."""
    encoded = {i.encode() for i in ids}
    return lambda block: any(match in encoded for match in _ID.findall(block))


def of_words(words: Iterable[str]) -> Matcher:
    """Whether a block has one of these words or numbers, not as a part of a longer one; in UTF-8, or anywhere in UTF-16."""
    kept = [word for word in sorted(set(words)) if word]
    if not kept:
        return lambda _: False
    whole = b"|".join(re.escape(word.encode()) for word in kept)
    wide = b"|".join(re.escape(word.encode(form)) for word in kept for form in ("utf-16-le", "utf-16-be"))
    pattern = re.compile(rb"(?<![0-9A-Za-z])(?:%s)(?![0-9A-Za-z])|%s" % (whole, wide))
    return lambda block: pattern.search(block) is not None


def holds(path: Path, matches: Matcher) -> bool:
    """Whether a file does, as it is or unpacked. One that is damaged is searched as far as it can be read."""
    if any(matches(block) for block in _read(path)):
        return True
    try:
        return any(matches(block) for block in _unpacked(path))
    except DAMAGE:
        return False


def _read(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from blocks(file.read)


def blocks(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """What ``read`` gives, in blocks that overlap."""
    end = b""
    while block := read(BLOCK):
        yield end + block
        end = block[-OVERLAP:]


def _unpacked(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    yield from blocks(member.read)
    elif start == b"PAR1":
        yield from _parquet(path)
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as packed:
            for entry in packed:
                if extracted := packed.extractfile(entry):
                    yield from blocks(extracted.read)
    elif start[:2] == b"\x1f\x8b":
        with gzip.open(path) as unpacked:
            yield from blocks(unpacked.read)


def _parquet(path: Path) -> Iterator[bytes]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024):
            for column in batch.columns:
                yield "\n".join(map(str, column.to_pylist())).encode("utf-8", "replace")
