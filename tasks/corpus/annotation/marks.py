"""What a person marked, in one file of places, types and verdicts: no text of any record. It is whole at every instant.

It lies beside the artifacts and not in ``.cache``: nothing can make it again.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tasks.corpus.deidentify.policy import TYPES
from tasks.corpus.documents import private
from tasks.runtime.artifacts import ANNOTATION
from tasks.runtime.files import whole

FORMAT = 1
FILE, LOCK = "marks.json", "lock"
MAX_NOTES = 5_000  # of a sample: a month's work
MAX_MARKS = 20_000  # of a note
# right: an identifier that the rules saw, of this type; missed: one that they did not see; wrong: seen, and it is clinical or nobody's;
# lost: clinical text that another repair changed.
Verdict = Literal["right", "missed", "wrong", "lost"]


class Conflict(ValueError):
    """Another window changed the note meanwhile."""


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Mark(_Strict):
    """A place of a note, in code points of its text before any rule, and what a person says of it."""

    start: int = Field(ge=0)
    end: int
    verdict: Verdict
    type: str = ""  # of an identifier: right or missed

    @model_validator(mode="after")
    def _complete(self) -> "Mark":
        if self.end <= self.start:
            raise ValueError("ends before it starts")
        if (self.type in TYPES) != (self.verdict in ("right", "missed")):
            raise ValueError("needs a type exactly where it is an identifier")
        return self

    def overlaps(self, start: int, end: int) -> bool:
        """Whether it has a character from ``start`` to ``end``."""
        return self.start < end and start < self.end


class NoteMarks(_Strict):
    """The marks of one note."""

    digest: str  # of the text that they count in
    done: bool = False  # only finished notes count
    revision: int = 0  # goes up with every change, so that an older window does not undo a newer one's
    marks: tuple[Mark, ...] = Field((), max_length=MAX_MARKS)


class Sample(_Strict):
    """What is drawn."""

    notes: int = Field(ge=1, le=MAX_NOTES)
    seed: int


class _File(_Strict):
    format: Literal[1]
    sample: Sample
    notes: dict[str, NoteMarks]


class Marks:
    """The marks of all notes, by their ids, and which sample they are of: that of the file, unless ``notes`` or ``seed`` say another.

    ``ValueError`` for a file that holds something else.
    """

    def __init__(self, folder: Path = ANNOTATION, *, default: Sample, notes: int | None = None, seed: int | None = None):
        self.folder, self._path = folder, folder / FILE
        self._notes: dict[str, NoteMarks] = {}
        self.sample = default
        if self._path.exists():
            try:
                content = _File.model_validate_json(self._path.read_bytes())
            except ValidationError as error:
                where = ".".join(map(str, error.errors(include_input=False, include_url=False)[0]["loc"]))
                raise ValueError(
                    f"{self._path} is no file of marks that this version reads ({where}); move it away to begin anew"
                ) from None
            self._notes, self.sample = dict(content.notes), content.sample
        changed = {"notes": notes, "seed": seed}
        self.sample = self.sample.model_copy(update={name: value for name, value in changed.items() if value is not None})

    @property
    def notes(self) -> Mapping[str, NoteMarks]:
        """The marks by the notes' ids."""
        return self._notes

    def save(self, note: str, marks: NoteMarks) -> None:
        """Put the marks of a note in place of those before; they are on disk then, whatever ends this process."""
        notes = self._notes | {note: marks}
        by_id = {id_: _compact(of_note) for id_, of_note in notes.items()}
        content = {"format": FORMAT, "sample": self.sample.model_dump(), "notes": by_id}
        with whole(self._path) as partial, open(partial, "w", encoding="utf-8", opener=private) as file:
            json.dump(content, file, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        self._notes = notes


def _compact(marks: NoteMarks) -> dict[str, object]:
    return marks.model_dump(mode="json", exclude_defaults=True) | {"digest": marks.digest}


@contextmanager
def locked(folder: Path = ANNOTATION) -> Iterator[None]:
    """Keeps others from the folder, which is made where it is missing; ``ValueError`` where another process has it. It ends with us."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(folder / LOCK, "w", encoding="utf-8", opener=private) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder} is in use: another annotation runs; stop it, or use its page") from None
        yield
