"""Versions of the registered model in MLflow: made whole or not at all, found, opened. What they mean is not known here.

With tracking.py and logged_models.py the only importer of mlflow, and with pyfunc_model.py, which runs in MLflow.
"""

import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tasks.registry import tracking
from tasks.registry.params import RegisterParams
from tasks.registry.tracking import MlflowClient, MlflowException, ModelVersion
from tasks.runtime.params import read_section


@dataclass(frozen=True)
class Package:
    """All files of a version: folders by what they are called in it, files of its own, and the tags that vouch for its passport."""

    folders: list[tuple[str, Path]]
    files: list[Path]
    tags: dict[str, str]


def find_version(client: MlflowClient, name: str, tag: str, value: str) -> ModelVersion | None:
    """The registered version that carries a tag's value."""
    return next((v for v in versions_of(client, name) if v.tags.get(tag) == value), None)


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Every registered version, oldest first."""
    return sorted(client.search_model_versions(f"name = '{name}'"), key=lambda v: int(v.version))


def find(client: MlflowClient, version: str) -> ModelVersion:
    """A version by NAME@ALIAS or NAME/NUMBER, with or without ``models:/``; of the model of params.yaml also by ALIAS or NUMBER."""
    name, _, which = version.removeprefix("models:/").replace("@", "/").rpartition("/")
    return version_of(client, name or read_section("register", RegisterParams).name, which)


def version_of(client: MlflowClient, name: str, which: str) -> ModelVersion:
    """A version by number or alias; ``ValueError`` where there is none."""
    try:
        return client.get_model_version(name, which) if which.isdigit() else client.get_model_version_by_alias(name, which)
    except MlflowException as error:
        raise ValueError(f"there is no {name} {which} in {tracking.tracking_uri()} ({error.error_code})") from None


def create_version(
    client: MlflowClient,
    name: str,
    make: Callable[[int], Package],
    *,
    tags: dict[str, str],
    inputs: dict[str, str],
    metrics: dict[str, float],
) -> ModelVersion:
    """A run of the stage register with what ``make`` makes for the version's number, and a version of ``name`` that points at its folder
    ``checkpoint``.

    A failure in between leaves no run and no version; what a process that was killed has left of one goes first.
    """
    experiment = tracking.experiment_of(client)
    _without_leftovers(client, experiment, name, tags["checkpoint"])
    upstream = {f"upstream.{path}": tracking.producer_of(client, experiment, path, digest) or "" for path, digest in inputs.items()}
    number = int(versions_of(client, name)[-1].version) + 1 if versions_of(client, name) else 1
    while True:
        package = make(number)
        run_id = client.create_run(experiment, tags=tags | package.tags | upstream | {"stage": "register"}, run_name="register").info.run_id
        try:
            now = int(time.time() * 1000)
            client.log_batch(run_id, metrics=[tracking.metric(k, v, now) for k, v in metrics.items()])
            client.log_inputs(run_id, [tracking.dataset(path, digest) for path, digest in inputs.items()])
            for folder, path in package.folders:
                client.log_artifacts(run_id, str(path), folder)
            for file in package.files:
                client.log_artifact(run_id, str(file))
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            client.set_terminated(run_id, "FINISHED")
            version = client.create_model_version(name, f"runs:/{run_id}/checkpoint", run_id, tags=tags | package.tags)
        except BaseException:
            client.delete_run(run_id)
            raise
        if int(version.version) == number:
            return version
        # Its passport names the number that it was to have; somebody else's version, or a deleted one, has that.
        client.delete_model_version(name, version.version)
        client.delete_run(run_id)
        number = int(version.version) + 1


def _without_leftovers(client: MlflowClient, experiment: str, name: str, checkpoint: str) -> None:
    query = f"tags.stage = 'register' and tags.checkpoint = '{checkpoint}'"
    registered = {version.run_id for version in versions_of(client, name)}
    for run in client.search_runs([experiment], query):
        if run.info.run_id not in registered:
            client.delete_run(run.info.run_id)


def artifact(client: MlflowClient, run_id: str, path: str) -> Path:
    """An artifact on this machine: where it lies or, from a server, a copy of its own that goes with this process, or by
    ``without_copy`` before. ``ValueError`` where the store has none.
    """
    try:
        location = urlsplit(str(client.get_run(run_id).info.artifact_uri))
        if location.scheme in ("", "file"):
            path_here = Path(unquote(location.path)) / path
        else:
            path_here = Path(client.download_artifacts(run_id, path, tempfile.mkdtemp(dir=_copies().name)))
    except (MlflowException, OSError) as error:
        raise ValueError(f"run {run_id} has no artifact {path} ({type(error).__name__})") from None
    if not path_here.exists():
        raise ValueError(f"run {run_id} has no artifact {path}")
    return path_here


def without_copy(artifact: Path) -> None:
    """Remove what ``artifact`` copied; what lies in the store itself stays."""
    copies = Path(_copies().name)
    if artifact.is_relative_to(copies):
        shutil.rmtree(copies / artifact.relative_to(copies).parts[0], ignore_errors=True)


@cache
def _copies() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="artifacts-")


def write_pyfunc(directory: Path, code: Path, packages: list[str], library: Path, *, name: str, number: int) -> None:
    """The files that make a checkpoint directory an MLflow model, as code: nothing of it is pickled.

    ``library``: the folder of the Python package that ``code`` imports, of which the model carries a copy. Python finds a file where it
    would keep compiled code, and MLflow the note that it writes when it loads a version.
    """
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    from tasks.registry.pyfunc_model import PARAMS

    kinds = {int: "integer", float: "double", bool: "boolean"}
    signature = ModelSignature(
        inputs=Schema([ColSpec("string")]),
        outputs=Schema([ColSpec("string")]),
        params=ParamSchema([ParamSpec(name, kinds[type(value)], value) for name, value in PARAMS.items()]),
    )
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a type hint on predict, which it asks for, would replace the signature
        save_model(
            path=str(directory),
            python_model=str(code),
            code_paths=[str(library)],
            signature=signature,
            input_example=pd.DataFrame({"prompt": ["What is arachnodactyly?"]}),
            pip_requirements=packages,
        )
    description = directory / "MLmodel"
    # Where the code stood on this machine is nobody's business, and not needed: it stands beside that file.
    description.write_text(description.read_text(encoding="utf-8").replace(str(code.resolve()), code.name), encoding="utf-8")
    (directory / NOTE).write_bytes(note_forms(name, number)[0])
    for folder in sorted({path.parent for path in directory.rglob("*.py")}):
        # A file where Python would keep compiled code: it neither writes any there nor runs what somebody else put there.
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        (folder / "__pycache__").touch()


NOTE = "registered_model_meta"  # MLflow's, beside a model: which version it is


def note_forms(name: str, number: int) -> tuple[bytes, bytes]:
    """What MLflow writes into its note when a version is loaded by its number, and by an alias."""
    return tuple(f"model_name: {name}\nmodel_version: {form}\n".encode() for form in (f"'{number}'", number))  # type: ignore[return-value]


def aliases(client: MlflowClient, name: str) -> dict[str, str]:
    """Version numbers by alias; none where the model is not registered."""
    models = client.search_registered_models(f"name = '{name}'")
    return {alias: str(number) for alias, number in models[0].aliases.items()} if models else {}
