"""What stages did, in MLflow: records replayed as runs. The only importer of mlflow, beside versions.py and logged_models.py.

No stage depends on this file, so that logging never makes one run again. Replaying is idempotent by the tag ``record``; a store
that does not answer is tried again at the next contact.
"""

import json
import os
import re
import select
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
# MLflow's own patience with a server that is ill is minutes; a record can wait instead.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.entities.model_registry import ModelVersion as ModelVersion  # noqa: PLC0414 - for those who may not import mlflow
from mlflow.exceptions import MlflowException as MlflowException  # noqa: PLC0414
from sqlalchemy.exc import SQLAlchemyError

from tasks.registry import lineage_events, notes, relocation
from tasks.registry.store import DATABASE, main_worktree, tracking_uri
from tasks.runtime.digests import dvc_digest
from tasks.runtime.errors import Unavailable
from tasks.runtime.permissions import refuse_foreign
from tasks.runtime.record import PENDING
from tasks.training import step_metrics

EXPERIMENT = "medical-llm"
SECONDS = 2.0  # between looks at what a run has measured
# What MLflow's pages are to be like: without it they open for applications on language models, with their traces.
KIND, MODEL_DEVELOPMENT = "mlflow.experimentKind", "custom_model_development"
MAX_DATASET_DIGEST = 36  # MLflow's limit; a DVC directory digest has 36 characters


def connect() -> MlflowClient:
    """A client of the tracking store; ``Unavailable`` where a server is configured and does not answer.

    The embedded store is its account's alone, and follows its project: ``ValueError`` where that cannot be.
    """
    uri = tracking_uri()
    address = urlsplit(uri)
    if address.scheme in ("http", "https"):
        # MLflow's own client retries for minutes before it says that nobody is there.
        try:
            socket.create_connection(
                (address.hostname or "", address.port or (443 if address.scheme == "https" else 80)), timeout=5
            ).close()
        except OSError as error:
            raise Unavailable(f"the MLflow server at {address.hostname}:{address.port} does not answer ({error})") from None
    elif address.scheme == "sqlite":
        path = Path(uri.removeprefix("sqlite:///"))
        if embedded := path == main_worktree() / DATABASE:
            refuse_foreign(path.parent)
        if not path.exists():
            _create(path)
        elif embedded:
            relocation.follow(path, EXPERIMENT)
    return MlflowClient(tracking_uri=uri)


def _create(path: Path) -> None:
    """An empty store. MLflow's own creation, where it is cut off, leaves a database that no later process can open."""
    folder = path.parent / ".cache"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mlflow-", dir=folder) as partial:
        database = Path(partial) / path.name
        try:
            MlflowClient(tracking_uri=f"sqlite:///{database}").search_experiments()
        except SQLAlchemyError as error:
            raise OSError(f"{path} cannot be created: {' '.join(str(error).split())[:200]}") from None
        with suppress(FileExistsError):  # another process was first
            os.link(database, path)


def replay_pending() -> None:
    """Hand over the records that wait; says so and keeps them where the store cannot be reached."""
    waiting = []
    for path in PENDING.glob("[!.]*.json"):
        try:
            waiting.append((path, json.loads(path.read_text(encoding="utf-8"))))
        except ValueError:
            print(f"tracking: {path} is not a whole record; it stays where it is", flush=True)
    if not waiting:
        return
    # Whatever goes wrong in a store, its driver or its network, the stage's work is done and must count.
    try:
        client = connect()
    except Exception as error:
        print(f"tracking: {len(waiting)} record(s) wait in {PENDING} for the next run: {error}", flush=True)
        return
    for path, record in sorted(waiting, key=lambda item: str(item[1]["started"])):
        try:
            replay(client, record)
            if lineage_events.configured():
                lineage_events.emit(record)
            path.unlink()
        except Exception as error:
            print(f"tracking: the record of {record['stage']} waits in {PENDING} for the next run: {error}", flush=True)


def replay_all(client: MlflowClient, records: list[dict[str, Any]]) -> dict[str, str]:
    """Make sure that these records, oldest first, are in the store; run ids by stage.

    A record that waited here is replayed as made; one that DVC brought from elsewhere is marked ``imported``.
    """
    replay_pending()
    return {record["stage"]: replay(client, record, imported=True) for record in records}


def replay(client: MlflowClient, record: dict[str, Any], *, imported: bool = False) -> str:
    """The id of the run that shows this record, made if the store has none."""
    experiment = experiment_of(client)
    begin = int(datetime.fromisoformat(record["started"]).timestamp() * 1000)
    end = begin + int(record["seconds"] * 1000)
    run = _run_of(client, experiment, record["record"], record["stage"], begin)
    if run.info.status == "FINISHED":
        return run.info.run_id
    # What an earlier try, or the run itself while it went on, has told is told again and counts once.
    run_id = run.info.run_id
    for name, value in (_tags(client, experiment, record) | ({"imported": "true"} if imported else {})).items():
        client.set_tag(run_id, name, value)
    client.set_tag(run_id, "mlflow.note.content", notes.of_run(record))
    stepwise = {name for point in record["history"] for name in point}
    shown = {"seconds": record["seconds"]} | notes.headline(record["stage"], record["metrics"])
    log_step_metrics(client, run_id, record["history"])
    client.log_batch(run_id, metrics=[metric(k, v, end) for k, v in shown.items() if k not in stepwise])
    usage = {name: record[name] for name in ("seconds", "peak_memory_mb")}
    client.log_text(run_id, notes.metrics_csv(record["metrics"] | usage), notes.METRICS_FILE)
    client.log_batch(run_id, params=[Param(k, _short(v)) for k, v in record["params"].items()])
    client.log_inputs(run_id, [dataset(path, digest) for path, digest in record["inputs"].items()])
    for report in map(Path, record["reports"]):
        if report.is_dir() and dvc_digest(report) == record["outputs"][str(report)]:  # still that run's report
            client.log_artifacts(run_id, str(report), report.name)
    client.set_terminated(run_id, "FINISHED", end_time=end)
    return run_id


def log_step_metrics(client: MlflowClient, run_id: str, history: list[dict[str, float]]) -> None:
    """Measures by step, each with its own time: what the store knows already does not stand there twice."""
    metrics = [
        metric(name, value, int(point["time"]), int(point["step"]))
        for point in history
        for name, value in point.items()
        if name not in ("step", "time")
    ]
    for start in range(0, len(metrics), 1000):
        client.log_batch(run_id, metrics=metrics[start : start + 1000])


def tell_experiment(client: MlflowClient, name: str, key: str, records: list[dict[str, Any]]) -> None:
    """One run of a DVC experiment, once by ``key``: what training was told beside all that was measured, so that experiments compare."""
    run = _run_of(client, experiment_of(client), key, "experiment", int(datetime.fromisoformat(records[0]["started"]).timestamp() * 1000))
    if run.info.status == "FINISHED":
        return
    run_id, now = run.info.run_id, int(time.time() * 1000)
    client.set_tag(run_id, "mlflow.runName", name)
    params = {f"{record['stage']}.{k}": v for record in records for k, v in record["params"].items()}
    client.log_batch(run_id, params=[Param(k, _short(v)) for k, v in params.items()][:100])
    measured = {k: v for record in records for k, v in record["metrics"].items()}
    client.log_batch(run_id, metrics=[metric(k, v, now) for k, v in notes.headline("experiment", measured).items()])
    client.log_text(run_id, notes.metrics_csv(measured), notes.METRICS_FILE)
    client.set_terminated(run_id, "FINISHED")


def follow(stage: str, record: str, folder: Path) -> None:
    """Tell the store what a run measures until standard input closes, in which the run holds the other end.

    A store that does not answer is asked again, ever less often; what it missed it gets with the stage's record at the latest.
    """
    sent, client, run_id, pause, silent_until = 0, None, "", SECONDS, 0.0
    while True:
        ended = bool(select.select([sys.stdin], [], [], SECONDS)[0])
        history = step_metrics.read(folder)
        if len(history) > sent and (ended or time.monotonic() >= silent_until):
            try:
                client = client or connect()
                run_id = run_id or _run_of(client, experiment_of(client), record, stage, int(history[0]["time"])).info.run_id
                log_step_metrics(client, run_id, history[sent:])
                sent, pause = len(history), SECONDS
            except Exception:  # whatever it is, the record is told again in the end
                pause = min(2 * pause, 60.0)
            silent_until = time.monotonic() + pause
        if ended:
            return


def _run_of(client: MlflowClient, experiment: str, record: str, stage: str, begin: int) -> Run:
    """The run of a record, made if the store has none."""
    runs = _runs(client, experiment, f"tags.record = '{record}'")
    return runs[0] if runs else client.create_run(experiment, start_time=begin, tags={"record": record, "stage": stage}, run_name=stage)


def metric(name: str, value: float, time_ms: int, step: int = 0, *, of_model: Mapping[str, str] = MappingProxyType({})) -> Metric:
    """Names hold the names of raw files, of which MLflow does not take every character. ``of_model``: ``model_id`` of a logged model, and
    ``dataset_name`` and ``dataset_digest`` of what it was measured on.
    """
    return Metric(re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII), value, time_ms, step, **of_model)


def _tags(client: MlflowClient, experiment: str, record: dict[str, Any]) -> dict[str, str]:
    tags = {"record": record["record"], "stage": record["stage"], "command": record["command"]}
    tags |= {f"dvc.in.{path}": digest for path, digest in record["inputs"].items()}
    tags |= {f"dvc.out.{path}": digest for path, digest in record["outputs"].items()}
    if record["code"]:
        tags |= {"mlflow.source.git.commit": record["code"]["commit"] or "", "git.dirty": str(record["code"]["dirty"]).lower()}
    tags |= {f"version.{name}": version for name, version in record["versions"].items()}
    tags |= {"machine": f"{record['machine']['processor']}, {record['machine']['cores']} cores"}
    for path, digest in record["inputs"].items():
        if producer := producer_of(client, experiment, path, digest):
            tags[f"upstream.{path}"] = producer
    return tags


def run_of_record(client: MlflowClient, record: str) -> Run | None:
    """The run that shows a record, where the store has one."""
    runs = _runs(client, experiment_of(client), f"tags.record = '{record}'")
    return runs[0] if runs else None


def producer_of(client: MlflowClient, experiment: str, path: str, digest: str) -> str | None:
    """The newest run that wrote these bytes to this path."""
    runs = _runs(client, experiment, f"tags.`dvc.out.{path}` = '{digest}' and attributes.status = 'FINISHED'")
    return runs[0].info.run_id if runs else None


def _runs(client: MlflowClient, experiment: str, query: str) -> list[Run]:
    return list(client.search_runs([experiment], query, order_by=["attributes.start_time DESC"], max_results=1))


def experiment_of(client: MlflowClient) -> str:
    """The id of the pipeline's experiment, which is made if the store has none."""
    if experiment := client.get_experiment_by_name(EXPERIMENT):
        identifier = str(experiment.experiment_id)
        if KIND not in experiment.tags:  # of a store that was made before
            client.set_experiment_tag(identifier, KIND, MODEL_DEVELOPMENT)
        return identifier
    embedded = client.tracking_uri.startswith("sqlite:")
    location = (main_worktree() / relocation.ARTIFACTS).as_uri() if embedded else None
    return str(client.create_experiment(EXPERIMENT, artifact_location=location, tags={KIND: MODEL_DEVELOPMENT}))


def dataset(path: str, digest: str, context: str = "input") -> DatasetInput:
    """An input of a run by its path and DVC's digest, the digest cut to MLflow's limit."""
    source = json.dumps({"path": path, "dvc": digest})
    dataset = Dataset(name=path, digest=digest[:MAX_DATASET_DIGEST], source_type="local", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:6000]  # MLflow's limit for a param's value
