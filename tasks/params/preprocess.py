"""The section ``preprocess`` of params.yaml."""

from pydantic import Field

from tasks.deidentify.policy import DeidentifyParams
from tasks.readers.records import FileOptions
from tasks.stage import Params


class BoilerplateParams(Params):
    min_documents: int = Field(ge=2)
    min_words: int = Field(ge=1)
    exempt: tuple[str, ...]  # kinds whose sentences are facts in a fixed form


class LeakageParams(Params):
    max_docs: int = Field(ge=1)
    max_overlap: float = Field(gt=0, le=1)


class PreprocessParams(Params):
    seed: int
    files: dict[str, FileOptions]
    other: tuple[str, ...]
    replay: tuple[str, ...]
    withdrawn: tuple[str, ...]
    validation_share: float = Field(gt=0, lt=0.5)
    test_share: float = Field(gt=0, lt=0.5)
    min_answer_chars: int = Field(ge=1)
    max_answer_chars: int = Field(ge=1)
    max_rejected_share: float = Field(ge=0, le=1)
    boilerplate: BoilerplateParams
    same_answer: int = Field(ge=1)
    near_duplicate: float = Field(gt=0.5, le=1)
    leakage: LeakageParams
    deidentify: DeidentifyParams
