"""What stages did, for data catalogues: OpenLineage's events START and COMPLETE for each record (https://openlineage.io).

Off unless OpenLineage's client is configured: by ``OPENLINEAGE_URL``, ``OPENLINEAGE_CONFIG``, ``OPENLINEAGE__TRANSPORT…`` or a file
``openlineage.yml`` here. An event holds what a record holds, paths below the project with DVC's digests, params and times, and no text.
"""

import json
import os
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

CONFIGURED_BY = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OPENLINEAGE__TRANSPORT")  # beginnings of names in the environment
CONFIG = Path("openlineage.yml")
NAMESPACE = "OPENLINEAGE_NAMESPACE"  # environment: of jobs and data sets; default below
DEFAULT_NAMESPACE = "medllama"
PRODUCER = "urn:medllama:pipeline"


def configured() -> bool:
    """Whether the user wants events."""
    is_named = CONFIG.is_file() or any(name.startswith(CONFIGURED_BY) for name in os.environ)
    return is_named and os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() != "true"


def emit(record: Mapping[str, Any]) -> None:
    """Send a record's events; a run's id is the record's, so that one that is sent again is the same run.

    ``ValueError`` where the client is not installed; the client's own errors where they cannot be delivered.
    """
    try:
        from openlineage.client import OpenLineageClient
        from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
        from openlineage.client.facet_v2 import dataset_version_dataset, execution_parameters_run, job_type_job, processing_engine_run
    except ImportError:
        raise ValueError("OpenLineage is configured and its client is not installed: pip install openlineage-python") from None
    namespace = os.environ.get(NAMESPACE, DEFAULT_NAMESPACE)
    params = [
        execution_parameters_run.ExecutionParameter(key=name, value=value if isinstance(value, str) else json.dumps(value))
        for name, value in record["params"].items()
    ]
    engine = processing_engine_run.ProcessingEngineRunFacet(record["versions"]["torch"], "torch")
    run = Run(
        record["record"],
        {"executionParameters": execution_parameters_run.ExecutionParametersRunFacet(params), "processing_engine": engine},
    )
    job_type = job_type_job.JobTypeJobFacet(processingType="BATCH", integration="DVC", jobType="STAGE")
    job = Job(namespace, record["stage"], {"jobType": job_type})

    def version(digest: str) -> dict[str, Any]:
        return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(digest)}

    inputs = [InputDataset(namespace, path, facets=version(digest)) for path, digest in record["inputs"].items()]
    outputs = [OutputDataset(namespace, path, facets=version(digest)) for path, digest in record["outputs"].items()]
    began = datetime.fromisoformat(record["started"])
    ended = began + timedelta(seconds=record["seconds"])
    client = OpenLineageClient()
    try:
        for state, at, written in ((RunState.START, began, []), (RunState.COMPLETE, ended, outputs)):
            stamp = at.isoformat(timespec="milliseconds")
            client.emit(RunEvent(eventType=state, eventTime=stamp, run=run, job=job, producer=PRODUCER, inputs=inputs, outputs=written))
    finally:
        client.close()
