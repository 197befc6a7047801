"""Files as streams of bounded records: encodings by an allow-list, and limits that keep memory small whatever a file holds.

It knows nothing of what the records mean.
"""

import codecs
import gzip
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from encodings.aliases import aliases
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Self, cast

from tasks.corpus.readers.records import MAX_RECORD, FileOptions, UnreadableError

# Bytes of an ontology and of a tabular list, which are read whole; those there are have 10 MB. In memory they take 10 times as much,
# and XML that is made to, 100 times.
MAX_WHOLE_FILE, MAX_TREE = 1 << 28, 1 << 26
# How often a gzip file may hold its own size, from so many bytes on. Text packs 3 to 30 times, a bomb up to 1,032 times.
MAX_RATIO, RATIO_FROM = 200, 1 << 26
# Further memory for one step of a Parquet file, whose pages and dictionaries can be made to expand without limit.
PARQUET_MEMORY = 1 << 30
MAX_DEPTH = 500  # of elements in XML; PubMed has 12
MAX_ELEMENTS = 1 << 20  # of a record in XML, and of a tabular list, of which the real one has 180,000

# Encodings of text, by Python's names for them. Others are no charsets (rot13, zip), need quadratic time (punycode, idna), or make
# text out of what every other program shows as something else (utf-7, unicode_escape).
_TEXT = frozenset(
    "ascii utf_8 utf_8_sig utf_16 utf_16_le utf_16_be utf_32 utf_32_le utf_32_be latin_1 hp_roman8 tis_620 ptcp154 kz1048 "
    "koi8_r koi8_u koi8_t mac_roman mac_latin2 mac_cyrillic mac_greek mac_turkish mac_iceland mac_croatian mac_romanian "
    "shift_jis shift_jis_2004 shift_jisx0213 cp932 euc_jp euc_jis_2004 euc_jisx0213 iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_kr "
    "euc_kr cp949 johab gb2312 gbk gb18030 big5 big5hkscs cp950".split()
)
_CODE_PAGES = re.compile(r"iso8859_(?:[1-9]|1[013456])|cp(?:037|1006|1026|112[45]|1140|125[0-8]|[4578]\d\d)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+() -]{0,39}")
_DECLARED = re.compile(rb"""^<\?xml[^>]*?\sencoding\s*=\s*["']([^"'>]*)["']""")
_GZIP = b"\x1f\x8b\x08"
MARKS = {b"\xef\xbb\xbf": "utf_8_sig", b"\xff\xfe\0\0": "utf_32", b"\0\0\xfe\xff": "utf_32", b"\xff\xfe": "utf_16", b"\xfe\xff": "utf_16"}


def text_encoding(name: str) -> str:
    """Python's name of an encoding of text; ``UnreadableError`` names one that is none, as far as it can be a name."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_") if len(name) < 100 else ""
    alias = aliases.get(plain, plain)
    try:
        if alias in _TEXT or _CODE_PAGES.fullmatch(alias):
            return codecs.lookup(alias).name
    except LookupError:  # a code page that Python does not have
        pass
    shown = name.strip() if _NAME.fullmatch(name.strip()) else "its name is none"
    raise UnreadableError(f"has an encoding that is not read ({shown}); UTF-8 and the usual ones of text are")


class _Gzip(gzip.GzipFile):
    """A gzip file that raises ``UnreadableError`` once it holds far more than text can."""

    def __init__(self, path: Path):
        super().__init__(path, "rb")
        self._packed, self._unpacked = path.stat().st_size, 0

    def read(self, size: int | None = -1) -> bytes:
        return self._counted(super().read(size))

    def read1(self, size: int = -1) -> bytes:
        return self._counted(super().read1(size))

    def _counted(self, data: bytes) -> bytes:
        self._unpacked += len(data)
        if self._unpacked > max(RATIO_FROM, MAX_RATIO * self._packed):
            raise UnreadableError(f"is a gzip file that holds more than {MAX_RATIO} times its own size, as no text does")
        return data


class BoundedFile:
    """What an XML parser reads: at most so many bytes between two calls of ``next_record``."""

    def __init__(self, source: Path | IO[bytes], max_bytes: int = 0):
        self._max_bytes = max_bytes or MAX_RECORD
        self._file = open_bytes(source) if isinstance(source, Path) else source
        self._size = self._elements = 0

    def read(self, size: int) -> bytes:
        """The next bytes, more than are asked for where a record is long: expat begins anew with every piece of a long token."""
        data = self._file.read(max(size, min(self._size, 1 << 20)))
        self._size += len(data)
        if self._size > self._max_bytes:
            raise UnreadableError(f"holds more than {self._max_bytes >> 20} MiB without a whole record, the most that is read")
        return data

    def element(self) -> None:
        """One more element has begun."""
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise UnreadableError(f"holds more than {MAX_ELEMENTS:,} elements without a whole record, the most that are read")

    def next_record(self) -> None:
        """A record was read whole: the limits begin anew."""
        self._size = self._elements = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def open_bytes(path: Path) -> IO[bytes]:
    """A file as bytes, unpacked where it is a gzip file by its name or, as a member of an archive has none, by its first bytes."""
    with open(path, "rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    return cast(IO[bytes], _Gzip(path)) if packed or path.suffix.lower() == ".gz" else open(path, "rb")


def open_text(path: Path, options: FileOptions) -> IO[str]:
    """A text file in its encoding: that of the options, by its byte order mark, else UTF-8; bytes that do not fit become lone surrogates.

    ``UnreadableError`` for a file that is no text.
    """
    with open_bytes(path) as file:
        head = file.read(1 << 14)
    if not head:
        raise UnreadableError("is empty")
    mark = next((encoding for mark, encoding in MARKS.items() if head.startswith(mark)), "")
    lines = head.split(b"\n")
    if not mark and not options.encoding and sum(b"\0" in line for line in lines) > len(lines) / 2:
        raise UnreadableError("is not text; if it is UTF-16 without a byte order mark, set its encoding in preprocess.files")
    encoding = mark or text_encoding(options.encoding or "utf-8")
    errors = "surrogateescape" if encoding.startswith(("utf-8", "utf_8")) else "replace"
    return TextIOWrapper(open_bytes(path), encoding=encoding, errors=errors, newline="")


def numbered(file: IO[str]) -> Iterator[tuple[int, str | None]]:
    """Lines with their numbers, those of blanks left out; None in place of one that is too long."""
    i, within = 0, False  # within a line that is too long
    for line in iter(partial(file.readline, MAX_RECORD), ""):
        whole = len(line) < MAX_RECORD or line.endswith(("\n", "\r"))
        if not within:
            i += 1
            if not whole:
                yield i, None
            elif line.strip():
                yield i, line
        within = not whole


def declared_encoding(path: Path) -> None:
    """``UnreadableError`` where an XML file declares an encoding that is not read."""
    with open_bytes(path) as file:
        head = file.read(1000).removeprefix(b"\xef\xbb\xbf")
    if declared := _DECLARED.match(head):
        text_encoding(declared[1].decode("ascii", "replace"))


@contextmanager
def limited_memory(further: int) -> Iterator[None]:
    """Let the process take so many bytes more and no others: what needs them fails with an error instead of the machine."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + further
    limits = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([limit, *limits]), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
