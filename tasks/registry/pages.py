"""Where MLflow's pages are: addresses below its server's, in the mode for models that are trained.

Its front end opens in a mode for applications on language models unless an address says otherwise.
"""

from urllib.parse import quote

MODE = "?workflowType=machine_learning"


def experiment_runs(experiment: str) -> str:
    """The list of an experiment's runs."""
    return f"#/experiments/{experiment}/runs{MODE}"


def run(experiment: str, run_id: str) -> str:
    """A run."""
    return f"#/experiments/{experiment}/runs/{run_id}{MODE}"


def artifact(experiment: str, run_id: str, path: str) -> str:
    """An artifact of a run, opened."""
    return f"#/experiments/{experiment}/runs/{run_id}/artifacts/{quote(path)}{MODE}"


def version(name: str, number: str) -> str:
    """A version of a registered model."""
    return f"#/models/{quote(name, safe='')}/versions/{number}{MODE}"


def logged_model(experiment: str, model_id: str) -> str:
    """A logged model: what was trained, with its data sets and metrics."""
    return f"#/experiments/{experiment}/models/{model_id}{MODE}"
