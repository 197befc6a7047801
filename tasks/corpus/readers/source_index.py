"""What readers must know of other files than the one they read, on disk: made once, before files are read in parallel.

Of FHIR: attachments that are resources of their own, identities of patients, versions of notes. Of PubMed: the newest version of each
citation, and which were deleted or retracted. It holds data of patients, so it is in the private work folder alone.
"""

import sqlite3
from collections.abc import Collection, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, Self

from tasks.runtime.errors import printable

FILE_NAME = "sources.sqlite"
_BATCH = 500
_TABLES = {
    "binary": "folder, id, content_type, data",  # data NULL: of a kind that is not read
    "url": "folder, url, key",  # the key, Type/id, of what a Bundle knows by another address
    "identifier": "folder, system, value, id",  # of patients
    "link": "folder, id, other",  # of patients
    "same": "folder, id, root",  # patients that are one by their links
    "note": "folder, key, stamp, place",  # every place of a note's versions
    "replaced": "folder, key, by",
    "attached": "name",  # files that a resource refers to
    "seen": "folder",  # folders with resources
    "citation": "folder, pmid, version, place",
    "withdrawn": "folder, pmid, reason",
    "fact": "folder, subject, encounter, field, value, code, stamp",  # what the record holds for extraction tasks
}
_KEYS: tuple[str, ...] = ("binary(folder, id)", "url(folder, url)", "identifier(folder, value)", "same(folder, id)", "note(folder, key)")
_KEYS += (
    "replaced(folder, key)",
    "attached(name)",
    "seen(folder)",
    "citation(folder, pmid)",
    "withdrawn(folder, pmid)",
    "fact(folder, subject, field)",
)
MAX_CHAIN = 1000  # of documents that replace one another


def place_of(name: str, position: str) -> str:
    """How the index names a place."""
    return f"{printable(name)}\x1f{position}"


class IndexWriter:
    """Makes an index, or a part of one; of rows that say the same of one thing, the first counts."""

    def __init__(self, path: Path):
        self._db = sqlite3.connect(path)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute("PRAGMA synchronous=OFF")
        for table, columns in _TABLES.items():
            self._db.execute(f"CREATE TABLE {table} ({columns})")
        self._rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _TABLES}
        self._size = 0

    def add(self, table: str, *values: str | bytes | None) -> None:
        """Add a row."""
        self._rows[table].append(tuple(_whole(value) for value in values))
        self._size += sum(len(value) for value in values if value)
        if len(self._rows[table]) >= _BATCH or self._size > 1 << 24:
            self._flush()

    def _flush(self) -> None:
        for table, rows in self._rows.items():
            marks = ", ".join("?" * (_TABLES[table].count(",") + 1))
            self._db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
            rows.clear()
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._flush()
        self._db.commit()
        self._db.close()

    def merge(self, parts: Iterable[Path], names: Collection[str]) -> None:
        """Add the parts in their order; ``names`` are those of all raw files."""
        for part in parts:
            self._db.commit()  # nothing can be attached within a transaction
            self._db.execute("ATTACH ? AS part", (str(part),))
            for table in _TABLES:
                self._db.execute(f"INSERT INTO {table} SELECT * FROM part.{table} ORDER BY rowid")
            self._db.commit()
            self._db.execute("DETACH part")
        attached = {name for (name,) in self._db.execute("SELECT DISTINCT name FROM attached")}
        self._db.executemany("DELETE FROM attached WHERE name=?", [(name,) for name in attached.difference(map(_whole, names))])
        links = self._db.execute("SELECT folder, id, other FROM link ORDER BY folder").fetchall()
        for folder, rows in groupby(links, key=lambda row: str(row[0])):
            for id_, root in joined_roots((str(one), str(other)) for _, one, other in rows).items():
                self.add("same", folder, id_, root)
        self._flush()
        for i, key in enumerate(_KEYS):
            self._db.execute(f"CREATE INDEX key{i} ON {key}")


class SourceIndex:
    """Looks things up in an index, in any process."""

    def __init__(self, path: Path):
        self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._db.close()

    def binary(self, folder: str, id_: str) -> tuple[str, bytes | None] | None:
        """The content type and the bytes of a Binary, without these where its type is not read; None where there is none."""
        row = self._row("SELECT content_type, data FROM binary WHERE folder=? AND id=? ORDER BY rowid LIMIT 1", folder, id_)
        return (str(row[0]), row[1]) if row else None

    def key(self, folder: str, url: str) -> str:
        """``Type/id`` of what a Bundle knows by another address; empty where none does."""
        row = self._row("SELECT key FROM url WHERE folder=? AND url=? ORDER BY rowid LIMIT 1", folder, url)
        return str(row[0]) if row else ""

    def patient(self, folder: str, system: str, value: str) -> str:
        """The id of the patient with an identifier; of one without a system, where all patients with its value are one."""
        rows = self._db.execute(
            "SELECT DISTINCT system, id FROM identifier WHERE folder=? AND value=? ORDER BY id LIMIT 50", (_whole(folder), _whole(value))
        )
        ids = sorted({id_ for other, id_ in rows.fetchall() if _whole(system) in ("", other)})
        return str(ids[0]) if len(ids) == 1 or (ids and system) else ""

    def root(self, folder: str, id_: str) -> str:
        """The id that stands for a patient and all those it is linked to."""
        row = self._row("SELECT root FROM same WHERE folder=? AND id=?", folder, id_)
        return str(row[0]) if row else id_

    def newest(self, folder: str, key: str) -> tuple[str, str] | None:
        """Stamp and place of a note's newest version; of equal ones the first."""
        row = self._row("SELECT stamp, place FROM note WHERE folder=? AND key=? ORDER BY stamp DESC, rowid LIMIT 1", folder, key)
        return (str(row[0]), str(row[1])) if row else None

    def is_replaced(self, folder: str, key: str) -> bool:
        """Whether another document replaces a document; in a circle of them, none does."""
        rows = self._db.execute("SELECT by FROM replaced WHERE folder=? AND key=? AND by<>key", (_whole(folder), _whole(key))).fetchmany(
            MAX_CHAIN
        )
        return any(not self._leads_to(folder, str(by), str(_whole(key))) for (by,) in rows)

    def is_attached(self, name: str) -> bool:
        """Whether a resource refers to a raw file."""
        return self._row("SELECT 1 FROM attached WHERE name=?", name) is not None

    def has_resources(self, folder: str) -> bool:
        """Whether FHIR resources are in a folder."""
        return self._row("SELECT 1 FROM seen WHERE folder=?", folder) is not None

    def newest_citation(self, folder: str, pmid: str) -> str:
        """The place of a citation's newest version; of equal ones the last, as later files correct earlier ones."""
        row = self._row("SELECT place FROM citation WHERE folder=? AND pmid=? ORDER BY version DESC, rowid DESC LIMIT 1", folder, pmid)
        return str(row[0]) if row else ""

    def withdrawn(self, folder: str, pmid: str) -> str:
        """Why a citation is not used; empty where it is."""
        row = self._row("SELECT reason FROM withdrawn WHERE folder=? AND pmid=? ORDER BY rowid LIMIT 1", folder, pmid)
        return str(row[0]) if row else ""

    def recorded(self, folder: str, subject: str, field: str, encounter: str | None) -> list[tuple[str, str, str]]:
        """Value, code and stamp of what the record of a patient holds for a field; of one encounter, or of all where that is None."""
        condition, values = ("", []) if encounter is None else ("AND encounter=?", [encounter])
        query = (
            f"SELECT DISTINCT value, code, stamp FROM fact WHERE folder=? AND subject=? AND field=? {condition} ORDER BY stamp, value, code"
        )
        return self._db.execute(query, [_whole(value) for value in (folder, subject, field, *values)]).fetchall()

    def fact_values(self, folder: str, field: str) -> list[str]:
        """The values that records of a folder have for a field, each once."""
        rows = self._db.execute("SELECT DISTINCT value FROM fact WHERE folder=? AND field=? ORDER BY value", (_whole(folder), field))
        return [str(value) for (value,) in rows]

    def _leads_to(self, folder: str, start: str, key: str) -> bool:
        for _ in range(MAX_CHAIN):
            row = self._row("SELECT by FROM replaced WHERE folder=? AND key=? ORDER BY rowid LIMIT 1", folder, start)
            if row is None:
                return False
            start = str(row[0])
            if start == key:
                return True
        return True

    def _row(self, query: str, *values: str) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(query, [_whole(value) for value in values]).fetchone()
        return row


def _whole(value: str | bytes | None) -> str | bytes | None:
    """A value that SQLite takes: half a character, or an undecoded byte of a name, as an escape."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) and not value.isascii() else value


def joined_roots(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """For each name in pairs, the smallest of all that the pairs join it with."""
    above: dict[str, str] = {}

    def top(name: str) -> str:
        while above.setdefault(name, name) != name:
            above[name] = above[above[name]]
            name = above[name]
        return name

    for one, other in pairs:
        low, high = sorted((top(one), top(other)))
        above[high] = low
    return {name: top(name) for name in list(above)}
