"""Checks whether another account of this machine may have written a path: its owner, its mode and those of each directory above.

It knows nothing of the contents.
"""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

OTHERS = 0o077  # a umask that lets nobody else in
MAX_LINKS = 40


def problem(path: Path, mask: int = OTHERS, *, within: Path | None = None) -> str:
    """Who else may have written ``path``, as a sentence with what to do; empty where nobody, or where the path does not exist.

    Every directory and link on the way to it is checked. ``mask`` is a umask: whoever it lets write may write. ``within``: a directory
    whose own parents are not checked. A sticky directory such as /tmp, where accounts can rename only their own files, is allowed.
    """
    steps = list(_steps(path, within))
    for index, (step, status) in enumerate(steps):
        last = index == len(steps) - 1
        if not trusted(status, mask):
            return f"{step} belongs to {_name(status.st_uid)}, not to this account: remove it, or name another directory"
        shared = bool(status.st_mode & stat.S_ISVTX) and not last
        if not stat.S_ISLNK(status.st_mode) and not shared and (who := _writers(status, mask)):
            return f"{step} may be written by {who}: see what is in it, then take that right away (chmod go-w)"
    return ""


def problem_inside(directory: Path, mask: int = OTHERS, *, deep: bool = True) -> str:
    """As ``problem``, for the entries of a directory; ``deep``: for all entries below too, as for a cache of code that is run."""
    if not directory.is_dir():
        return ""
    reached = bool(directory.stat().st_mode & mask)
    for folder, names, files in os.walk(directory):
        for path in (Path(folder, name) for name in (*names, *files)):
            try:
                status = path.lstat()
            except FileNotFoundError:  # another process tidied up
                continue
            if not trusted(status, mask):
                return f"{path} belongs to {_name(status.st_uid)}, not to this account: remove it"
            if reached and not stat.S_ISLNK(status.st_mode) and (who := _writers(status, mask)):
                return f"{path} may be written by {who}: remove it"
        if not deep:
            break
    return ""


def trusted(status: os.stat_result, mask: int = OTHERS) -> bool:
    """Whether a file is root's, this account's, or that of the owner of this code, who runs code as this account anyway.

    Where ``mask`` lets a group write, it is also one of the group that this code belongs to.
    """
    code = Path(__file__).stat()
    return status.st_uid in (0, os.geteuid(), code.st_uid) or (not mask & stat.S_IWGRP and status.st_gid == code.st_gid)


def _writers(status: os.stat_result, mask: int) -> str:
    """Who besides the owner may write, against ``mask``."""
    if status.st_mode & mask & stat.S_IWOTH:
        return "everybody"
    if status.st_mode & mask & stat.S_IWGRP and not _is_private(status.st_gid):
        return f"the group {_group(status.st_gid)}"
    return ""


def _steps(path: Path, within: Path | None) -> Iterator[tuple[Path, os.stat_result]]:
    """Directories and links from the top, or from below ``within``, to where ``path`` leads, as far as they exist."""
    here = within.absolute() if within else Path("/")
    if not within:
        yield here, here.lstat()
    path = path.absolute()
    todo = list(reversed(path.relative_to(here).parts))
    links = 0
    while todo:
        part = todo.pop()
        if part == "..":
            here = here.parent
            continue
        try:
            status = (here / part).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return
        yield here / part, status
        if not stat.S_ISLNK(status.st_mode):
            here = here / part
        elif (links := links + 1) > MAX_LINKS:
            raise OSError(f"{path}: too many links")
        else:
            target = (here / part).readlink()
            todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)
            if target.is_absolute():
                here = Path("/")
                yield here, here.lstat()


def _is_private(gid: int) -> bool:
    """Whether a group has this account alone in it, as systems with a group for each user make them."""
    try:
        group, me = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return gid == me.pw_gid and group.gr_name == me.pw_name and set(group.gr_mem) <= {me.pw_name}


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the account {uid}"


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
