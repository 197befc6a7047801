"""A version as MLflow 3 knows models: a logged model with the params, data sets and headline metrics of its page, which names the version.

All of it follows from the version's passport and its newest decision, so that versions that are older get one too. Its files stay those
of the version's run: MLflow would keep a second copy.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric

from tasks.evaluation.metrics import current_name
from tasks.evaluation.scores import RENAMED_SPLITS
from tasks.registry import notes, promotion, tracking, versions
from tasks.registry.lineage import passport
from tasks.runtime.artifacts import DOCUMENTS, RAW, SHARDS

TAG = "logged_model"  # of a version: the id of its logged model
DECISION = "decision"  # of a logged model: the number of the decision whose scores it has
# The data sets behind a model, with the stage that read them and what for.
DATA = {str(RAW): ("preprocess", "source"), str(SHARDS): ("finetune", "training"), str(DOCUMENTS): ("validate", "evaluation")}
SCORED_DOCUMENTS = ("test", "ood")  # splits of the corpus; other items are the evaluation's own


def link(client: tracking.MlflowClient, version: Any) -> str:
    """The id of a version's logged model, made if there is none, with the scores of the version's newest decision.

    ``ValueError`` where passport or decision cannot be read.
    """
    number, decision = promotion.latest_decision(client, version)
    document = passport.read_passport(versions.artifact(client, version.run_id, passport.FILE))
    model = _model_of(client, experiment_of(client, version), version, document)
    if model.tags.get(DECISION) != str(number):
        client.log_batch(version.run_id, metrics=list(_scores(model.model_id, decision, document)))
        client.log_inputs(version.run_id, [tracking.dataset(path, digest, DATA[path][1]) for path, digest in _data(document)])
        client.set_logged_model_tags(model.model_id, {DECISION: str(number)})
    if version.tags.get(TAG) != model.model_id:
        client.set_model_version_tag(version.name, version.version, TAG, model.model_id)
    return str(model.model_id)


def experiment_of(client: tracking.MlflowClient, version: Any) -> str:
    """The id of the experiment that a version's run is in."""
    return str(client.get_run(version.run_id).info.experiment_id)


def _model_of(client: tracking.MlflowClient, experiment: str, version: Any, document: Mapping[str, Any]) -> LoggedModel:
    """What a process that was killed left of one is used."""
    models = client.search_logged_models([experiment], f"source_run_id = '{version.run_id}'")
    params = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in _params(document).items()}
    name = re.sub(r"[/:.%\"']", "-", f"{version.name}-{version.version}")
    model = models[0] if models else client.create_logged_model(experiment, name, version.run_id, params=params)
    if model.status != LoggedModelStatus.READY:
        outputs = client.get_run(version.run_id).outputs
        if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else ())]:
            client.log_outputs(version.run_id, [LoggedModelOutput(model.model_id, 0)])
        registered = [{"name": version.name, "version": int(version.version)}]
        client.set_logged_model_tags(model.model_id, {"mlflow.modelVersions": json.dumps(registered)})
        client.finalize_logged_model(model.model_id, "READY")
    return model


def _params(document: Mapping[str, Any]) -> dict[str, Any]:
    params: dict[str, Any] = document["stages"].get("finetune", {}).get("params") or {}
    return params


def _data(document: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The data sets by path, with DVC's digests."""
    for path, (stage, _) in DATA.items():
        if digest := document["stages"].get(stage, {}).get("inputs", {}).get(path):
            yield path, digest


def _scores(model_id: str, decision: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[Metric]:
    now = int(time.time() * 1000)  # of several decisions MLflow shows the newest
    for row in decision["table"]:
        split = RENAMED_SPLITS.get(row["split"], row["split"])
        name = f"{split}/{current_name(row['metric'])}/tuned"
        if name in notes.SCORES:
            measured_on = _measured_on(document, str(DOCUMENTS)) if split in SCORED_DOCUMENTS else {}
            yield tracking.metric(name, row["tuned"]["value"], now, of_model={"model_id": model_id} | measured_on)
    loss = (document["stages"].get("finetune", {}).get("metrics") or {}).get("best_validation_loss")
    if loss is not None:
        yield tracking.metric("validation_loss", loss, now, of_model={"model_id": model_id} | _measured_on(document, str(SHARDS)))


def _measured_on(document: Mapping[str, Any], path: str) -> dict[str, str]:
    """What a metric says of its data set; nothing where the passport does not know its digest."""
    digest = dict(_data(document)).get(path)
    return {"dataset_name": path, "dataset_digest": digest[: tracking.MAX_DATASET_DIGEST]} if digest else {}
