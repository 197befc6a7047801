"""Multiple choice through lm-evaluation-harness: task files with local data, loaded offline and scored item by item.

``validate.tasks`` in params.yaml names the YAML files, each with the SHA-256 of the folder that it stands in with its data, so that
a changed item is a changed param. Paths in a task file are relative to it. Only tasks that are scored by log-likelihood are supported;
generated text is not parsed. The harness is an extra of its own (``make setup-dev``) and is
imported when a task is named; harness_model.py adapts our model to it.
"""

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.generation.completion import Llama
from tasks.evaluation.likelihood import ScoringConfig
from tasks.evaluation.probes import Item, Value
from tasks.runtime.digests import tree_sha256

WORK = Path(".cache/harness")
ITEM_METRICS = ("acc_norm", "acc")  # the first of these that an item has
SPLIT = "task"


@dataclass(frozen=True)
class Task:
    """A task file of the harness, the SHA-256 of its folder, and the tasks in it."""

    path: Path
    sha256: str
    tasks: dict[str, Any]  # the harness's own, by name


Tasks = Sequence[Task]


def load(files: Mapping[str, str]) -> Tasks:
    """Read the task files with their data; ``ValueError`` names the one that is missing, has another
    SHA-256 than params.yaml says, does not load or is not multiple choice.
    """
    if not files:
        return []
    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError("validate.tasks needs lm-evaluation-harness; 'make setup-dev' installs it")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import datasets

    shutil.rmtree(WORK, ignore_errors=True)
    datasets.config.HF_DATASETS_CACHE = WORK.absolute()  # not in the user's home, where nothing would remove it
    datasets.disable_progress_bars()
    return [_load(Path(name), sha256) for name, sha256 in files.items()]


def _load(path: Path, expected_sha256: str) -> Task:
    from lm_eval.tasks import TaskManager

    if not path.is_file():
        raise ValueError(f"validate.tasks: {path} is missing")
    if (sha256 := tree_sha256(path.parent)) != expected_sha256:
        raise ValueError(
            f"validate.tasks: the folder of {path} has the SHA-256 {sha256}, not {expected_sha256!r}; write that if it is what you mean"
        )
    try:
        with contextlib.chdir(path.parent):
            tasks = TaskManager(include_defaults=False).load([str(path.name)])["tasks"]
    except Exception as error:  # the harness and datasets raise of every sort; their messages may hold the data
        raise ValueError(f"{path} is no task of lm-evaluation-harness that can be loaded ({type(error).__name__}); see its docs") from None
    for name, task in tasks.items():
        if task.config.output_type != "multiple_choice":
            raise ValueError(f"{path}: the task {name} has output_type {task.config.output_type}; only multiple_choice is taken")
        task.set_config(key="num_fewshot", value=task.config.num_fewshot or 0)
    return Task(path, sha256, tasks)


def values(llama: Llama, tasks: Tasks, config: ScoringConfig) -> Iterator[Value]:
    """Whether each item was answered rightly, in the harness's order."""
    if not tasks:
        return
    from lm_eval.evaluator import evaluate

    from tasks.evaluation.harness_model import Adapter

    for task in tasks:
        result = evaluate(
            lm=Adapter(llama, config),
            task_dict={"tasks": task.tasks, "groups": {}, "group_map": {}},
            bootstrap_iters=0,
            log_samples=True,
        )
        for name, samples in sorted(result["samples"].items()):
            for sample in sorted(samples, key=lambda s: int(s["doc_id"])):
                metric = next((m for m in ITEM_METRICS if m in sample), None)
                if metric is None:
                    raise ValueError(f"{task.path}: the items of {name} have none of the measures {', '.join(ITEM_METRICS)}")
                item = Item(f"{name}-{sample['doc_id']}", SPLIT, name, task.path.name)
                yield Value("choice", item, 1, float(sample[metric]))
