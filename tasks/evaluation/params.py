"""The section ``validate`` of params.yaml."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.runtime.params import Params


class BoilerplateParams(Params):
    """When a token of an answer is boilerplate: ``boilerplate.py``."""

    share: float = Field(gt=0, le=1)  # of the category's train answers, in which the tokens before must stand
    certainty: float = Field(gt=0.5, le=1)  # of those cases, in which the token must follow


class ExtractionParams(Params):
    """How verbatim extraction is measured: ``memorization.py``."""

    documents: int = Field(ge=1)  # of each split
    prefix: int = Field(ge=1)  # tokens at least that are given
    target: int = Field(ge=4)  # tokens that must follow


class StructuredParams(Params):
    """How extraction tasks are scored: ``notes.py``."""

    notes: int = Field(ge=0)  # of each task, of the test split; 0: all
    ood_notes: int | None = Field(None, ge=0)  # of the ood split; older params: as many
    examples: int = Field(ge=1)  # before the question, for the base model
    constrained: bool = False  # answers are decoded under the task's schema, and so always parse where they end; older params: freely
    grounded: bool = False  # with constrained: the values of answers stand in the note; older params: they may be any
    max_new_tokens: int = Field(ge=1)  # of an answer
    rest: float = Field(gt=0, le=1)  # of max_tokens, generations and extraction.documents, where the corpus has tasks

    @property
    def of_ood(self) -> int:
        """Notes of each task, of the ood split; 0: all."""
        return self.notes if self.ood_notes is None else self.ood_notes

    @model_validator(mode="after")
    def _check_grounded(self) -> "StructuredParams":
        if self.grounded and not self.constrained:
            raise ValueError("grounded needs constrained: true")
        return self


class ValidateParams(Params):
    """Which items are scored, and how answers are generated; ``params.yaml`` says what each value means."""

    seed: int
    max_tokens: int = Field(ge=0)  # answer tokens per category; 0: all
    choices: int = Field(ge=0)  # four-choice items per category; 0: all that can be made
    generations: int = Field(ge=1)  # answers, of all categories as many
    batch_tokens: int = Field(ge=1)
    precision: Literal["auto", "bfloat16", "float32"]
    boilerplate: BoilerplateParams
    extraction: ExtractionParams
    structured: StructuredParams
    max_new_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    prompts: tuple[str, ...]
    tasks: dict[str, str]  # task files of lm-evaluation-harness: the SHA-256 of the folder of each

    def beside_tasks(self) -> "ValidateParams":
        """The sizes of what is scored beside extraction, where a corpus has tasks."""
        rest = self.structured.rest
        documents = max(1, round(rest * self.extraction.documents))
        sizes = {
            "max_tokens": self.max_tokens and max(1, round(rest * self.max_tokens)),
            "generations": round(rest * self.generations) or 1,
        }
        return self.model_copy(update=sizes | {"extraction": self.extraction.model_copy(update={"documents": documents})})
