"""Where things run, which changes no byte: from the environment, else from ``local.yaml``, which git does not track."""

import os
from contextlib import suppress
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

LOCAL = Path("local.yaml")
NAMES = ("FINETUNE_LAUNCH", "DASK_SCHEDULER_ADDRESS", "MLFLOW_TRACKING_URI", "PIPELINE_NOTIFY", "UMASK")
# What holds text of records, or may be asked for it.
CLOSED = ("data", "artifacts", ".cache", ".dvc/cache", "mlartifacts")


def setting(name: str) -> str:
    """A setting's value, empty where it has none; ``ValueError`` where local.yaml is not what it should be."""
    return os.environ.get(name) or _from_file().get(name, "")


def close_to_others() -> None:
    """What this process writes, and the directories that hold text of records, are their owner's alone, or as ``UMASK`` says.

    DVC and MLflow choose the modes of files themselves; nobody reaches those through a closed directory.
    """
    told = setting("UMASK") or "077"
    if len(told) != 3 or set(told) - set("01234567"):
        raise ValueError(f"UMASK is {told!r}; it is three octal digits, such as 077, or 027 for a group that shares the directory")
    mask = int(told, 8)
    os.umask(mask)
    for path in map(Path, CLOSED):
        with suppress(OSError):  # absent, or another's, whose matter it is
            path.chmod(path.stat().st_mode & ~mask & 0o7777)


def _from_file() -> dict[str, str]:
    try:
        told = YAML(typ="safe").load(LOCAL)
    except FileNotFoundError:
        return {}
    except YAMLError as error:
        raise ValueError(f"{LOCAL} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(told, dict) or any(name not in NAMES or not isinstance(value, str) for name, value in told.items()):
        raise ValueError(f"{LOCAL}: expected text under some of {', '.join(NAMES)}")
    return told
