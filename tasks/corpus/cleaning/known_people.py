"""The people that raw files name, on their way from the readers to the de-identification: in the private work folder alone."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from tasks.corpus.documents import KnownPerson, private
from tasks.runtime.files import whole


@contextmanager
def writer(work: Path, name: str) -> Iterator[Callable[[KnownPerson], object]]:
    """A function that writes the people of one file, as lines of JSON; its file is there when it is whole."""
    (work / "known").mkdir(mode=0o700, exist_ok=True)
    path = work / "known" / f"{name}.jsonl"
    with whole(path, unique=True) as partial, open(partial, "w", encoding="utf-8", opener=private) as file:
        yield lambda person: file.write(json.dumps(asdict(person), ensure_ascii=False) + "\n")


def read_known(work: Path) -> Iterator[KnownPerson]:
    """All people that the raw files name, in the order of the files; one that is named again comes again."""
    for path in sorted((work / "known").glob("*.jsonl")):
        with open(path, encoding="utf-8") as file:
            for record in map(json.loads, file):
                yield KnownPerson(record["group"], tuple((type_, value) for type_, value in record["identifiers"]))
