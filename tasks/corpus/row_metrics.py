"""What Great Expectations looks at: row metrics, a table with a row of numbers per record and without any text, in any number.

A table is filled row by row on disk; expectations run as SQL on it, so neither memory nor privacy depends on what is checked.
"""

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.corpus.cleaning import rules
from tasks.corpus.documents import Document
from tasks.corpus.readers.records import EMPTY

RowMetrics = Mapping[str, str | int | float | None]


@dataclass(frozen=True)
class Gate:
    """The result of one suite: counts only."""

    name: str
    passed: int
    warned: tuple[str, ...]
    failed: tuple[str, ...]


_HTML = re.compile(r"</?(?:p|br|div|span|a|b|i|ul|ol|li|table|tr|td|h[1-6])\b[^>]*>|&(?:[a-z]{2,8}|#\d{2,5});", re.I)
_MOJIBAKE = re.compile(r"Ã[\x80-\xbf\u0152-\u2122]|â€|Â[\xa0-\xbf]")
# Words that lost a character when text was collected as ASCII: apostrophes and accents.
_LOST = re.compile(
    r"\b(?:youre|theyre|dont|doesnt|didnt|isnt|arent|wasnt|cant|wont|youve|bodys|childs|persons own|doctors office|Mnire|Behet|Sjgren|"
    r"Guillain-Barr(?!é)|caf-au-lait|Alzheimers|Parkinsons|Crohns|Huntingtons|Hodgkins)\b"
)
_CONTROL_TOKEN = re.compile(r"<\|\w+\|>|</?s>|\[/?INST\]")
_CHROME = re.compile(r"\b(?:Key Points|On this Page|Watch the video|To enlarge the video|Click here|Back to Top)\b")


def compute_metrics(document: Document) -> dict[str, str | int | None]:
    """The row of one document: lengths in characters and words, and flags (0 or 1) of what the suites look for."""
    answer, whole = document.answer, "\n".join(document.texts())
    return {
        "id": document.id,
        "source": document.source,
        "category": document.category,
        "question_chars": len(document.question),
        "answer_chars": len(answer),
        "answer_words": len((document.question if document.task else answer).split()),  # values of a record are no words
        "hidden_characters": int(bool(re.search(rules.HIDDEN, whole))),
        "html": int(bool(_HTML.search(whole))),
        "mojibake": int(not whole.isascii() and bool(_MOJIBAKE.search(whole))),
        "control_tokens": int(bool(_CONTROL_TOKEN.search(whole))),
        "lost_characters": int(bool(_LOST.search(whole))),
        "site_chrome": int(bool(_CHROME.search(whole))),
        "empty_value": int(rules.has_nothing(document) or document.question.lower() in EMPTY - {""}),
        "asks_nothing": int(rules.asks_nothing(document)),
        "answer_is_a_question": int(rules.answers_with_a_question(document)),
        "link_list": int(rules.is_a_list_of_links(document)),
        "suspect_numbers": int(rules.has_suspect_numbers(document)),
    }


def write_row_metrics(path: Path, rows: Iterable[RowMetrics]) -> None:
    """Write rows as JSON lines."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_row_metrics(paths: Iterable[Path]) -> Iterator[RowMetrics]:
    """The rows of several files, one after the other."""
    for path in paths:
        with open(path, encoding="utf-8") as file:
            yield from map(json.loads, file)


def to_table(rows: Iterable[RowMetrics], path: Path) -> int:
    """A new SQLite file with one table, ``records``, of these rows; returns their number."""
    path.unlink(missing_ok=True)
    count, columns = 0, ""
    connection = sqlite3.connect(path)
    # Nothing here must outlive a crash, so nothing waits for the disk.
    connection.executescript("pragma journal_mode = off; pragma synchronous = off")
    for row in rows:
        if not columns:
            columns = ", ".join(f":{name}" for name in row)
            connection.execute(f"create table records ({', '.join(row)})")
        connection.execute(f"insert into records values ({columns})", row)
        count += 1
    connection.commit()
    connection.close()
    return count
