"""Which text files are of one patient: by a pattern in params.yaml, which the stage proposes where their names suggest it."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.corpus.documents import Document, Rejected
from tasks.corpus.readers.file_groups import advice
from tasks.corpus.readers.files import read_file
from tasks.corpus.readers.records import FileOptions

NAMES = ["w[1]/case-01-1.txt", "w[1]/case-01-2.txt", "w[1]/case-02-1.txt"]


def groups(data: Path, names: list[str], options: FileOptions) -> list[str]:
    records = []
    for name in names:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("Fever for three days.")
        records += list(read_file(data, name, options))
    return [record.group for record in records if isinstance(record, Document)]


def test_what_the_bracket_matches_in_a_name_keeps_files_together(tmp_path: Path) -> None:
    together = groups(tmp_path, [*NAMES, "other.txt"], FileOptions(group="case-([0-9]+)"))
    assert together[0] == together[1] != together[2] and len(set(together)) == 3
    assert len(set(groups(tmp_path, NAMES, FileOptions()))) == 3


def test_the_line_that_is_proposed_keeps_together_what_differs_in_the_last_number(tmp_path: Path) -> None:
    (sentence,) = advice(NAMES, {})
    assert "3 text files of w[1]" in sentence and "(2 groups)" in sentence
    files = YAML(typ="safe").load(sentence.partition("write into params.yaml: ")[2])["preprocess"]["files"]
    ((pattern, options),) = files.items()
    assert pattern == "w[[]1]/*.txt"
    assert len(set(groups(tmp_path, NAMES, FileOptions(**options)))) == 2
    assert not advice(NAMES, {pattern: FileOptions(**options)})


@pytest.mark.parametrize(
    "names",
    [["note1.txt", "note2.txt"], ["a-1.txt", "a-2.txt", "a-3.txt"], ["2024-01.txt", "2023-01.txt"], ["p1-1.csv", "p1-2.csv", "p2-1.csv"]],
)
def test_nothing_is_proposed_where_names_say_nothing_of_patients(names: list[str]) -> None:
    assert not advice(names, {})


@pytest.mark.parametrize("group", ["(", "a", "(a)(b)"])
def test_a_pattern_needs_one_bracket(group: str) -> None:
    with pytest.raises(ValueError, match="no regular expression with one pair of round brackets"):
        FileOptions(group=group)


def test_a_table_has_columns_instead(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Question,Answer\nWhy?,Because of that.\n")
    (record,) = read_file(tmp_path, "a.csv", FileOptions(group="(a)"))
    assert isinstance(record, Rejected) and "of a table write {columns: {group: NAME}}" in record.reason
