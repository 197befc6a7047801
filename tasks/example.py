"""A held-out note, what the tuned model extracts from it, and what was masked: ``python -m tasks.example``, the end of ``make run``.

It shows text of records, so it writes to the terminal alone, and only where everybody may read every source.
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from tasks.corpus.documents import Document, read_documents
from tasks.corpus.extraction.definitions import Task, note_of, read_tasks
from tasks.runtime.artifacts import CHANGES, DOCUMENTS, FUNNEL, MODEL, REPORTS

ENOUGH_CHARS = 900  # of a note that fits a terminal
TOKENS = 256  # of an answer
MASKED = 4  # identifiers that are shown


def show(console: Console, *, model: Path = MODEL, documents: Path = DOCUMENTS, cleaning: Path = REPORTS / "preprocess") -> None:
    """Print them; nothing where the corpus has no extraction task, one line where its sources are not public.

    ``ValueError`` where the files of the last run are not there.
    """
    for path in (model, documents, cleaning / FUNNEL):
        if not path.exists():
            raise ValueError(f"{path} is not there: run 'dvc repro'")
    tasks = read_tasks(documents)
    document = _note(documents)
    if document is None:
        return
    if not json.loads((cleaning / FUNNEL).read_bytes())["public"]:
        console.print("A note and its extraction are not shown: not every source is public.")
        return
    for rule, before, after in _masked():
        console.print(Text(f"masked, {rule}: {before} → {after}"))
    console.print(Panel(Text(note_of(document)), title="A note of a patient whom training never saw", title_align="left"))
    console.print(Text(f"The record holds:    {document.answer}"))
    console.print(Text(f"The model extracts:  {_extracted(model, document, tasks[document.task])}"))


def _note(documents: Path) -> Document | None:
    """Of the test notes that fit a terminal, one with much in it; which, does not depend on how it is answered."""
    candidates = [d for d in read_documents(documents, "test") if d.task and len(note_of(d)) <= ENOUGH_CHARS]
    return max(candidates, key=lambda d: (len(d.answer), d.id), default=None)


def _extracted(model: Path, document: Document, task: Task) -> str:
    from model.generation.completion import Llama  # torch takes seconds to import

    dialog = [{"role": "user", "content": document.question}]
    (answer,) = Llama.build(model).chat_completion([dialog], max_gen_len=TOKENS, json_schema=task.schema, temperature=0.0)
    return answer.text


def _masked() -> Iterator[tuple[str, str, str]]:
    """Rule, text before and after of some identifiers: one of each rule before a second of any."""
    if not CHANGES.exists():
        return
    with open(CHANGES, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["step"] == "identifiers"]
    seen: dict[str, int] = {}
    ranked = []
    for row in rows:
        seen[row["rule"]] = seen.get(row["rule"], 0) + 1
        ranked.append((seen[row["rule"]], row["rule"], row["before"], row["after"]))
    yield from (row[1:] for row in sorted(ranked, key=lambda row: row[0])[:MASKED])


if __name__ == "__main__":
    try:
        show(Console(highlight=False))
    except (ValueError, OSError) as error:
        sys.exit(f"example: {error}")
