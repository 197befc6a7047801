"""Who of this machine may look: what the pipeline writes, and each cache that it takes code or data from, is this account's alone."""

import os
from contextlib import suppress
from pathlib import Path

from model.system import ownership
from tasks.runtime.settings import setting

# What holds text of records, names of raw files or keys, or may be asked for them.
CLOSED = (
    "data",
    "artifacts",
    "annotation",
    ".cache",
    ".dvc/cache",
    ".dvc/tmp",
    ".dvc/config.local",
    "mlartifacts",
    "mlflow.db",
    "local.yaml",
)
# Of these what is taken is not what somebody put there, but what this project did.
OURS = (".dvc/cache", ".dvc/tmp", ".cache", "mlartifacts", "mlflow.db")
WRITING = 0o022
# What libraries keep outside of a project unless told, some under names that another account can take first.
CACHES = {
    "DVC_SITE_CACHE_DIR": ".cache/dvc",
    "MPLCONFIGDIR": ".cache/matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": ".cache/torchinductor",
    "TIKTOKEN_CACHE_DIR": ".cache/tiktoken",
    "HF_HOME": ".cache/huggingface",
}
RUN = ("DVC_SITE_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")  # what is found there is run: diskcache unpickles (CVE-2025-69872)


def close_to_others(*also: Path) -> None:
    """What a program does first: what it writes is its owner's alone, or as ``UMASK`` says; so are the project and its caches.

    DVC and MLflow choose the modes of files themselves; nobody reaches those through a closed directory. ``also``: further
    directories, outside of the project. ``ValueError`` as ``refuse_foreign``.
    """
    mask = _umask()
    os.umask(mask)
    project = Path.cwd()
    for name, path in CACHES.items():
        os.environ.setdefault(name, str(project / path))
    refuse_foreign(project)
    if (project / ".dvc").is_dir():
        Path(os.environ["DVC_SITE_CACHE_DIR"]).mkdir(mode=0o700, parents=True, exist_ok=True)  # DVC would let everybody in
    for directory in also:
        _close(directory, mask)
        _must_be_ours(ownership.problem(directory, mask))


def close_project() -> None:
    """As ``close_to_others``, of a program that may also run where there is no project."""
    if Path(".dvc").is_dir():
        close_to_others()


def refuse_foreign(project: Path) -> None:
    """Close a project to others; ``ValueError`` names what another account owns there, or could have written, and what to do."""
    mask = _umask()
    code = (project, project / ".dvc") if (project / ".dvc").is_dir() else ()
    for path in code:
        _close(path, mask & WRITING)  # it is no secret
    for name in CLOSED:
        _close(project / name, mask)
    for path in (*code, *(project / name for name in OURS)):
        _must_be_ours(ownership.problem(path, mask, within=project.parent))
    for name in OURS:
        _must_be_ours(ownership.problem_inside(project / name, mask, deep=False))
    for name, default in CACHES.items():
        path = Path(os.environ.get(name) or project / default)
        # DVC opens its own to everybody; what the user named for other libraries may be shared on purpose.
        _close(path if name == "DVC_SITE_CACHE_DIR" else project / default, mask)
        problem = ownership.problem(path, mask, within=project.parent if path.is_relative_to(project) else None)
        if problem := problem or ownership.problem_inside(path, mask, deep=name in RUN):
            _must_be_ours(f"{problem}; or let {name} name a directory of your own")
    _must_be_ours(ownership.problem_inside(project / ".dvc" / "tmp", mask))  # pickles here, too


def _umask() -> int:
    digits = setting("UMASK") or "077"
    if len(digits) != 3 or set(digits) - set("01234567"):
        raise ValueError(f"UMASK is {digits!r}; it is three octal digits, such as 077, or 027 for a group that shares the directory")
    return int(digits, 8)


def _close(path: Path, mask: int) -> None:
    """Take from a file's mode what ``mask`` does not let others do. Another account's is its matter, and is refused elsewhere."""
    with suppress(OSError):  # absent, or not ours to change
        if all(ownership.trusted(status, mask) for status in (path.lstat(), path.stat())):
            path.chmod(path.stat().st_mode & ~mask & 0o7777)


def _must_be_ours(problem: str) -> None:
    if problem:
        raise ValueError(f"another account of this machine could decide what runs here: {problem}")
