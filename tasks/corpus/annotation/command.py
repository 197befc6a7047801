"""``python -m tasks.corpus annotate``: a page on loopback, on which a person marks identifiers and damage in the site's own notes.

``--report``: the figures once more, by the rules of now on the notes that are finished.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.corpus.annotation import figures, server
from tasks.corpus.annotation.marks import MAX_NOTES, Marks, Sample, locked
from tasks.corpus.params import PreprocessParams
from tasks.runtime.artifacts import ANNOTATION

if TYPE_CHECKING:
    from tasks.corpus.annotation.session import Session

NOTES = 200


def annotate(data: Path, params: PreprocessParams, *, notes: int | None, seed: int | None, port: int) -> None:
    """Draw the sample, serve its page until Ctrl-C, and write the figures where a note is finished.

    ``notes``, ``seed``: None for those of the annotation that is here, else NOTES and the params'. ``ValueError`` says what to do.
    """
    with locked():
        bound = server.listen(port)
        marks = _marks(params, notes, seed)
        session = _session(data, params, marks, only_finished=False)
        _say(f"{len(session.notes):,} notes{_fewer(session, marks)}, {sum(session.done()):,} of them finished")
        server.serve(session, bound, lambda address: _say(f"open {address} on this machine; Ctrl-C ends it, nothing is lost"))
        if any(session.done()):
            _report(session.report)
        else:
            _say("no note is finished, so there are no figures yet")


def report(data: Path, params: PreprocessParams) -> None:
    """Measure the rules of now on the finished notes. ``ValueError`` where there are none."""
    with locked():
        marks = _marks(params, None, None)
        if not any(of_note.done for of_note in marks.notes.values()):
            raise ValueError("no note is finished; begin with: python -m tasks.corpus annotate")
        _report(_session(data, params, marks, only_finished=True).report)


def _marks(params: PreprocessParams, notes: int | None, seed: int | None) -> Marks:
    if notes is not None and not 1 <= notes <= MAX_NOTES:
        raise ValueError(f"--notes {notes}: a sample has 1 to {MAX_NOTES:,} notes")
    return Marks(default=Sample(notes=NOTES, seed=params.seed), notes=notes, seed=seed)


def _session(data: Path, params: PreprocessParams, marks: Marks, *, only_finished: bool) -> "Session":
    from tasks.corpus.annotation.session import Session, Source  # imports the rules, which a mistyped option need not pay for

    source = Source(data, params)
    _say(f"reading {data}, as preprocess does")
    session = Session(source.read(marks, only_finished=only_finished), marks, source)
    if outdated := session.outdated():
        _say(f"the text of {outdated:,} marked notes has changed; their marks do not count any more")
    if absent := session.absent():
        _say(f"{absent:,} finished notes are not in {data} any more, or withdrawn, and do not count")
    return session


def _fewer(session: "Session", marks: Marks) -> str:
    return f" ({marks.sample.notes:,} were asked for, and there are no more)" if len(session.notes) < marks.sample.notes else ""


def _report(measure: Callable[[], figures.Figures]) -> None:
    for sentence in figures.sentences(measure()):
        _say(sentence)
    _say(f"{ANNOTATION / figures.PAGE} has all figures; the next version that is registered carries them")


def _say(sentence: str) -> None:
    print(f"annotate: {sentence}", flush=True)
