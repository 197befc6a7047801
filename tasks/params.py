"""``params.yaml``: one section per stage, each checked by the model of the room that uses it."""

from pathlib import Path

from tasks.corpus.params import AugmentParams, PreprocessParams, ShardParams
from tasks.evaluation.params import ValidateParams
from tasks.registry.params import RegisterParams
from tasks.runtime.errors import did_you_mean
from tasks.runtime.params import PARAMS, Params, check, load
from tasks.training.params import BaseParams, FinetuneParams

# These modules import nothing heavy: each stage reads them all.
SECTIONS: dict[str, type[Params]] = {
    "base": BaseParams,
    "preprocess": PreprocessParams,
    "augment": AugmentParams,
    "shard": ShardParams,
    "finetune": FinetuneParams,
    "validate": ValidateParams,
    "register": RegisterParams,
}
STAGES = tuple(SECTIONS)


def read_params(path: Path = PARAMS) -> dict[str, Params]:
    """Every section of ``params.yaml``, checked; ``ValueError`` names each key that is unknown, missing or ill-typed.

    All stages' sections are checked before any stage works, so a typo in the last one is found at once.
    """
    raw = load(path)
    problems = [f"unknown section {name!r}{did_you_mean(name, STAGES)}" for name in raw if name not in STAGES]
    problems += [f"section {name!r} is missing" for name in STAGES if name not in raw]
    sections = {}
    for name in STAGES:
        if name in raw:
            section, wrong = check(name, SECTIONS[name], raw[name])
            problems += wrong
            if section is not None:
                sections[name] = section
    if problems:
        raise ValueError(f"{path}: " + "; ".join(problems))
    return sections
