"""One answer to one question of a form: what the passport shows, and what a person states."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tasks.registry.compliance.evidence import NOT_MEASURED, Evidence

State = Literal["stated", "to be filled in", "not measured"]


class Strict(BaseModel):
    """A part of compliance.json."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Entry(Strict):
    """The answer to a question. ``evidence``: sentences from the passport; ``statements``: a person's, by the form's key."""

    id: str
    title: str
    evidence: list[str]
    statements: dict[str, str]
    state: State


@dataclass(frozen=True)
class Question:
    """A question of a regulation: where it stands, what is asked, and who answers."""

    id: str
    title: str
    sources: tuple[Callable[[Evidence], list[str]], ...] = ()
    keys: tuple[str, ...] = ()  # of the form


def answer(question: Question, evidence: Evidence, statements: Mapping[str, str]) -> Entry:
    """``statements``: all of a form, by key; empty where nobody stated anything."""
    sentences = [sentence for source in question.sources for sentence in source(evidence)]
    stated = {key: statements[key] for key in question.keys}
    return Entry(id=question.id, title=question.title, evidence=sentences, statements=stated, state=_state(sentences, stated))


def _state(sentences: Sequence[str], stated: Mapping[str, str]) -> State:
    if not all(stated.values()):
        return "to be filled in"
    return "not measured" if not stated and all(map(is_not_measured, sentences)) else "stated"


def is_not_measured(sentence: str) -> bool:
    """Whether a sentence only says that there is no figure."""
    return sentence.startswith(NOT_MEASURED)
