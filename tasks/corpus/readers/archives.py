"""ZIP archives: their members, and each as a file that has no name and goes with the reader. Nothing is unpacked into a folder."""

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath

from tasks.corpus.readers.records import UnreadableError
from tasks.corpus.readers.streams import MAX_RATIO, RATIO_FROM

MAX_MEMBERS = 100_000
ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz")  # of which ZIP alone is read, and none within another


def is_archive(name: str) -> bool:
    """Whether a name is that of a ZIP archive."""
    return name.lower().endswith(".zip")


def container_of(data: Path, name: str) -> tuple[Path, str]:
    """The file that a name in ``data`` leads to, and the member of it where it is an archive's: else empty."""
    path = data / name
    for parent in PurePosixPath(name).parents if not path.is_file() else ():
        if is_archive(parent.name) and (data / parent).is_file():
            return data / parent, name.removeprefix(f"{parent}/")
    return path, ""


def members(path: Path) -> list[str]:
    """The names of an archive's members, sorted, without folders; ``UnreadableError`` where it cannot be read."""
    infos = [info for info in _open(path).infolist() if not info.filename.endswith("/")]
    names = [info.filename for info in infos]
    if not names:
        raise UnreadableError("is an archive without files")
    if len(names) > MAX_MEMBERS:
        raise UnreadableError(f"is an archive of more than {MAX_MEMBERS:,} files; unpack it")
    if len({*names}) < len(names):
        raise UnreadableError("is an archive with several files of one name")
    if not all(PurePosixPath(name).parts for name in names):
        raise UnreadableError("is an archive with a file that has no name")
    if any(_leads_out(name) for name in names):
        raise UnreadableError("is an archive with a file whose name leads out of it (.. or an absolute path)")
    return sorted(names)


def packed_size(path: Path, member: str) -> int:
    """The bytes that a member has in its archive."""
    return _open(path).getinfo(member).compress_size


@contextmanager
def unpacked(path: Path, member: str) -> Iterator[Path]:
    """A path at which a member can be opened, while the context lasts; it is gone with the process, whatever ends it.

    ``UnreadableError`` for an encrypted or damaged one, and for one that unpacks to far more than text does.
    """
    archive = _open(path)
    info = archive.getinfo(member)
    if info.flag_bits & 1:
        raise UnreadableError("is encrypted; unpack the archive with its password")
    if PurePosixPath(member.lower()).suffix in ARCHIVES:
        raise UnreadableError("is an archive within an archive, which is not read; unpack the outer one")
    limit, size = max(RATIO_FROM, MAX_RATIO * info.compress_size), 0
    with tempfile.TemporaryFile() as file:
        try:
            with archive.open(info) as source:
                while piece := source.read(1 << 20):
                    size += len(piece)
                    if size > limit:
                        raise UnreadableError(f"unpacks to more than {MAX_RATIO} times its own size, as no text does")
                    file.write(piece)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
            raise UnreadableError(f"cannot be unpacked ({type(error).__name__})") from None
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")


def _open(path: Path) -> zipfile.ZipFile:
    status = path.stat()
    return _archive(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)  # its list of members is read once for all of them
def _archive(path: Path, _changed: int, _size: int) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        raise UnreadableError("is no ZIP archive, or a damaged one") from None


def _leads_out(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0][1:2]
