"""Where things run, which changes no byte: from the environment, else from ``local.yaml``, which git does not track."""

import os
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

LOCAL = Path("local.yaml")
NAMES = ("FINETUNE_LAUNCH", "DASK_SCHEDULER_ADDRESS", "MLFLOW_TRACKING_URI", "PIPELINE_NOTIFY", "UMASK")


def setting(name: str) -> str:
    """A setting's value, empty where it has none; ``ValueError`` where local.yaml is not what it should be."""
    return os.environ.get(name) or _from_file().get(name, "")


def prefect_home() -> Path:
    """Where Prefect keeps its database, logs and results, for all projects of this account."""
    return Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")


def _from_file() -> dict[str, str]:
    try:
        values = YAML(typ="safe").load(LOCAL)
    except FileNotFoundError:
        return {}
    except YAMLError as error:
        raise ValueError(f"{LOCAL} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict) or any(name not in NAMES or not isinstance(value, str) for name, value in values.items()):
        raise ValueError(f"{LOCAL}: expected text under some of {', '.join(NAMES)}")
    return values
