"""The questions of extraction tasks about the notes of a FHIR export, with answers from the resources of the same record."""

from collections.abc import Iterator, Mapping
from functools import lru_cache

from tasks.corpus.documents import Document, NotAsked
from tasks.corpus.extraction.definitions import Task
from tasks.corpus.extraction.facts import Fact
from tasks.corpus.extraction.pairs import NotAskedError, make_document
from tasks.corpus.readers.source_index import SourceIndex


class Questions:
    """Asks about the notes of one folder."""

    def __init__(self, index: SourceIndex, folder: str, tasks: Mapping[str, Task]):
        self._index, self._folder, self._tasks = index, folder, tasks
        self._all_names = lru_cache(maxsize=None)(self._read_names)

    def about(self, note: Document, subject: str, encounter: str) -> Iterator[Document | NotAsked]:
        """A document for each task to which the note has an answer; a note of no known patient has none."""
        for task in self._tasks.values() if subject else ():
            try:
                document = make_document(note, task, lambda field, scope: self._facts(field, subject, encounter, scope), self._all_names)
            except NotAskedError as problem:
                yield NotAsked(note.source, note.position, f"{task.name}: {problem}")
                continue
            if document:
                yield document

    def _facts(self, field: str, subject: str, encounter: str, scope: str) -> list[Fact]:
        rows = self._index.recorded(self._folder, subject, field, encounter if scope == "encounter" else None)
        return [Fact(field, *row) for row in rows]

    def _read_names(self, field: str) -> tuple[str, ...]:
        """The names that any record of the folder has for a field."""
        return tuple(sorted({name for value in self._index.fact_values(self._folder, field) for name in value.split("\n")}))
