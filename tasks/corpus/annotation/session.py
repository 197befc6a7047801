"""An annotation under way: the notes of the sample, what is marked in them, and the figures that follow.

Raw text is in memory, and while it is drawn in a private work folder, which goes before anything else begins.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.corpus.annotation import figures
from tasks.corpus.annotation.marks import Conflict, Mark, Marks, NoteMarks
from tasks.corpus.annotation.notes import Note, with_rules
from tasks.corpus.annotation.sample import SampleParams, draw, public_files
from tasks.corpus.annotation.scoring import mask_states, score_note, summarize
from tasks.corpus.cleaning.clean import read_corpus
from tasks.corpus.deidentify.lexicon import lexicon
from tasks.corpus.deidentify.policy import TYPES
from tasks.corpus.documents import Document
from tasks.corpus.params import PreprocessParams
from tasks.runtime.digests import dvc_digest

WORK = Path(".cache/annotate")  # holds raw text and names of people, so it goes when the notes are drawn


@dataclass(frozen=True)
class Source:
    """What the notes are read from, and how."""

    data: Path
    params: PreprocessParams

    def read(self, marks: Marks, *, only_finished: bool = False) -> list[Note]:
        """The notes of the sample with what the rules do to them; or of them those alone that are finished.

        ``ValueError`` where there are no notes, or as a run refuses to read.
        """
        shutil.rmtree(WORK, ignore_errors=True)
        WORK.mkdir(parents=True, mode=0o700)
        try:
            read_corpus(self.data.absolute(), WORK.absolute(), self.params)
            public = public_files(self.data)
            kept = {id_ for id_, of_note in marks.notes.items() if of_note.done or not only_finished}
            count = 0 if only_finished else marks.sample.notes
            documents = draw(WORK, SampleParams(count, marks.sample.seed, self.params.withdrawn, public, kept))
            if not documents and not only_finished:
                raise ValueError(_no_notes(self.data, public))
            return self._with_rules(documents)
        finally:
            shutil.rmtree(WORK, ignore_errors=True)

    def _with_rules(self, documents: Sequence[Document]) -> list[Note]:
        lexicon()  # built once, before several processes need it
        return with_rules(documents, self.params.deidentify.model_dump_json(), WORK.absolute())


def _no_notes(data: Path, public: set[str]) -> str:
    marked = f" ({len(public):,} raw files are marked as public in manifest.json, and those are nobody's notes)" if public else ""
    return f"{data} holds no notes to annotate{marked}; docs/own-data.md says which files are read"


class Session:
    """Notes with their marks. Marks of a text that has changed since do not count; they are on disk until the note is marked again."""

    def __init__(self, notes: Sequence[Note], marks: Marks, source: Source):
        self.notes, self._marks, self._source = notes, marks, source
        self._kept = frozenset(type_ for type_ in TYPES if source.params.deidentify.action(type_) == "keep")
        # Of now: the masks were made with this code and from these files, whatever is changed while a person reads.
        self._rules, self._data = figures.rules_digest(source.params.model_dump(mode="json")), dvc_digest(source.data)

    @property
    def types(self) -> dict[str, str]:
        """The types of identifiers that the policy does not leave in the text, with their meanings."""
        return {type_: meaning for type_, meaning in TYPES.items() if type_ not in self._kept}

    def outdated(self) -> int:
        """How many notes have marks of a text that has changed since."""
        marked = self._marks.notes
        return sum(note.id in marked and marked[note.id].digest != note.digest for note in self.notes)

    def absent(self) -> int:
        """How many finished notes are not in the data any more, or are withdrawn."""
        present = {note.id for note in self.notes}
        return sum(of_note.done and id_ not in present for id_, of_note in self._marks.notes.items())

    def marks_of(self, note: Note) -> NoteMarks:
        """The marks of a note's present text."""
        of_note = self._marks.notes.get(note.id)
        return of_note if of_note and of_note.digest == note.digest else NoteMarks(digest=note.digest)

    def done(self) -> list[bool]:
        """Which notes are finished."""
        return [self.marks_of(note).done for note in self.notes]

    def fresh(self) -> list[bool]:
        """Which finished notes have masks that nobody has judged."""
        states = (self.state(index) if done else {"states": []} for index, done in enumerate(self.done()))
        return ["unjudged" in state["states"] for state in states]

    def state(self, index: int) -> dict[str, Any]:
        """What may change of a note: its marks, and what they say of each mask."""
        note = self.notes[index]
        of_note = self.marks_of(note)
        marks = [mark.model_dump() for mark in of_note.marks]
        return {"done": of_note.done, "revision": of_note.revision, "marks": marks, "states": mask_states(note, of_note.marks)}

    def change(self, index: int, revision: int, marks: Sequence[Mark], *, done: bool, accept: bool = False) -> None:
        """Save the marks of a note, and whether it is finished. ``accept``: masks that nobody has judged are right from now on.

        ``Conflict`` where they are not changed from the newest; ``ValueError`` for a mark beyond the end of the text.
        """
        note = self.notes[index]
        if self.marks_of(note).revision != revision:
            raise Conflict("another window changed this note; it is shown as it is now")
        if any(mark.end > len(note.text) for mark in marks):
            raise ValueError("a mark ends behind the text")
        states = mask_states(note, marks) if accept else []
        accepted = [
            Mark(start=mask.start, end=mask.end, verdict="right", type=mask.type)
            for mask, state in zip(note.masks, states, strict=False)
            if state == "unjudged"
        ]
        newest = sorted((*marks, *accepted), key=lambda mark: (mark.start, mark.end))
        self._marks.save(note.id, NoteMarks(digest=note.digest, done=done, revision=revision + 1, marks=tuple(newest)))

    def report(self) -> figures.Figures:
        """The figures of the finished notes, which are written beside the marks. ``ValueError`` where none is finished."""
        scores = [score_note(note, of_note.marks, self._kept) for note in self.notes if (of_note := self.marks_of(note)).done]
        today = datetime.now(UTC).date().isoformat()
        measured = summarize(scores, date=today, seed=self._marks.sample.seed, rules=self._rules, data=self._data)
        figures.write(measured, self._marks.folder)
        return measured
