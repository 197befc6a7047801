"""The questions of extraction tasks about the notes of a FHIR export, with answers from the resources of the same record."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from tasks.corpus.documents import Document, NotAsked, content_id
from tasks.corpus.extraction.definitions import NOTE_BORDER, Task
from tasks.corpus.extraction.facts import Fact
from tasks.corpus.extraction.pairs import NotAskedError, make_document
from tasks.corpus.readers.fhir_index import encounter_of, note_types, subject_of, written_at
from tasks.corpus.readers.fhir_resources import Json
from tasks.corpus.readers.source_index import SourceIndex

_TOO_LONG = "has more notes than the task's max_chars"


@dataclass
class _Stay:
    """The notes of a stay that a task is about, each with when it was written; without their texts once these are too long."""

    notes: list[tuple[str, Document]]
    characters: int = 0

    def add(self, time: str, note: Document, max_chars: int) -> None:
        """Keep a note. What will not be asked about takes no memory."""
        self.characters += len(note.answer)
        self.notes.append((time, note))
        if self.characters > max_chars:
            self.notes = [(time, replace(note, answer="")) for time, note in self.notes[-1:]]


class Questions:
    """Asks about the notes of one file, whose folder has the record."""

    def __init__(self, index: SourceIndex, folder: str, tasks: Mapping[str, Task]):
        self._index, self._folder, self._tasks = index, folder, tasks
        self._all_names = lru_cache(maxsize=None)(self._read_names)
        self._stays: dict[tuple[str, str, str], _Stay] = {}  # by task, subject and encounter

    def about(self, note: Document, resource: Json) -> Iterator[Document | NotAsked]:
        """A document for each task to which the note of a resource has an answer; a note of no known patient has none."""
        if not (subject := subject_of(resource)):
            return
        encounter, types = encounter_of(resource), note_types(resource)
        for name, task in self._tasks.items():
            definition = task.definition
            if definition.note_types and not types & {*definition.note_types}:
                continue
            if definition.notes == "one":
                yield from self._ask(task, note, subject, encounter)
            elif encounter:
                stay = self._stays.setdefault((name, subject, encounter), _Stay([]))
                stay.add(written_at(resource), note, definition.max_chars)

    def about_stays(self) -> Iterator[Document | NotAsked]:
        """A document for each task and stay, once all notes of the file were read; it stands where the last note of the stay does."""
        for (name, subject, encounter), stay in self._stays.items():
            task, notes = self._tasks[name], [note for _, note in sorted(stay.notes, key=lambda pair: pair[0])]
            if stay.characters > task.definition.max_chars:
                yield NotAsked(notes[-1].source, notes[-1].position, f"{name}: {_TOO_LONG}")
            else:
                yield from self._ask(task, _joined(notes), subject, encounter)

    def _ask(self, task: Task, note: Document, subject: str, encounter: str) -> Iterator[Document | NotAsked]:
        try:
            document = make_document(note, task, lambda field, scope: self._facts(field, subject, encounter, scope), self._all_names)
        except NotAskedError as problem:
            yield NotAsked(note.source, note.position, f"{task.name}: {problem}")
            return
        if document:
            yield document

    def _facts(self, field: str, subject: str, encounter: str, scope: str) -> list[Fact]:
        rows = self._index.recorded(self._folder, subject, field, encounter if scope == "encounter" else None)
        return [Fact(field, *row) for row in rows]

    def _read_names(self, field: str) -> tuple[str, ...]:
        """The names that any record of the folder has for a field."""
        return tuple(sorted({name for value in self._index.fact_values(self._folder, field) for name in value.split("\n")}))


def _joined(notes: Sequence[Document]) -> Document:
    """Notes as one."""
    text, positions = NOTE_BORDER.join(note.answer for note in notes), ", ".join(note.position for note in notes)
    return replace(notes[-1], id=content_id(*(note.id for note in notes)), answer=text, position=positions)
