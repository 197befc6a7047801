"""The sections ``preprocess``, ``augment`` and ``shard`` of params.yaml."""

from typing import Literal

from pydantic import Field, field_validator

from tasks.corpus.deidentify.policy import DAMAGE, DeidentifyParams
from tasks.corpus.readers.records import FileOptions
from tasks.runtime.errors import did_you_mean
from tasks.runtime.params import Params


class BoilerplateParams(Params):
    """Which sentences are taken out: those of ``min_words`` or more in ``min_documents`` or more."""

    min_documents: int = Field(ge=2)
    min_words: int = Field(ge=1)
    exempt: tuple[str, ...]  # categories whose sentences are facts in a fixed form


class LeakageParams(Params):
    """Limits of the overlap of train with evaluation documents, in 13-grams."""

    max_docs: int = Field(ge=1)
    max_overlap: float = Field(gt=0, le=1)


class ShareParams(Params):
    """Of the documents of some files and of a category, the share that is used; which ones follows from their ids."""

    files: str  # a pattern
    category: str = "*"  # a pattern
    share: float = Field(ge=0, lt=1)


class PreprocessParams(Params):
    """The section ``preprocess``."""

    seed: int
    files: dict[str, FileOptions]
    ood: tuple[str, ...]
    replay: tuple[str, ...]
    tasks: tuple[str, ...]
    min_examples: int = Field(ge=1)
    shares: tuple[ShareParams, ...]
    withdrawn: tuple[str, ...]
    validation_share: float = Field(gt=0, lt=0.5)
    test_share: float = Field(gt=0, lt=0.5)
    min_answer_chars: int = Field(ge=1)
    max_answer_chars: int = Field(ge=1)
    max_rejected_share: float = Field(ge=0, le=1)
    boilerplate: BoilerplateParams
    copy_forward: int = Field(ge=0)
    same_answer: int = Field(ge=1)
    near_duplicate: float = Field(gt=0.5, le=1)
    leakage: LeakageParams
    max_damage: dict[str, float]  # shares, by a key of DAMAGE; what is not listed is not limited
    deidentify: DeidentifyParams

    @field_validator("max_damage")
    @classmethod
    def _check_damage(cls, limits: dict[str, float]) -> dict[str, float]:
        for name, limit in limits.items():
            if name not in DAMAGE:
                raise ValueError(f"{name!r} is no kind of damage{did_you_mean(name, DAMAGE)}; there are {', '.join(DAMAGE)}")
            if not 0 <= limit <= 1:
                raise ValueError(f"{name}: {limit} is no share from 0 to 1")
        return limits


class AugmentParams(Params):
    """The section ``augment``."""

    seed: int
    max_copies: int = Field(ge=1, le=4)  # of one document
    # Of the train documents, those on which a method is tried.
    paraphrase: float = Field(ge=0, le=1)
    synonym: float = Field(ge=0, le=1)
    lay: float = Field(ge=0, le=1)
    spelling: float = Field(ge=0, le=1)
    abbreviation: float = Field(ge=0, le=1)
    typo: float = Field(ge=0, le=1)
    balance: float = Field(ge=0, le=1)  # of the kinds of questions of tasks
    replay_share: float = Field(ge=0, lt=1)  # of the characters of training, from files of general text


class ShardParams(Params):
    """The section ``shard``."""

    loss_on: Literal["answer", "all"]
    max_tokens: int = Field(ge=1024)
