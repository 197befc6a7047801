"""The section ``augment`` of params.yaml."""

from pydantic import Field

from tasks.stage import Params


class AugmentParams(Params):
    seed: int
    max_copies: int = Field(ge=1, le=4)  # of one document
    # Of the train documents, those on which a method is tried.
    paraphrase: float = Field(ge=0, le=1)
    synonym: float = Field(ge=0, le=1)
    lay: float = Field(ge=0, le=1)
    spelling: float = Field(ge=0, le=1)
    abbreviation: float = Field(ge=0, le=1)
    typo: float = Field(ge=0, le=1)
    replay_share: float = Field(ge=0, lt=1)  # of the characters of training, from files of general text
