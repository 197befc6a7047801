"""The passes over the corpus that preprocess makes, each on one file or partition, in any process and order.

They hand records on through files in a working directory that only its owner may read. What needs the whole corpus at once is done
between them, on numbers.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tasks.corpus.cleaning import shingles
from tasks.corpus.cleaning.rules import REJECTIONS, REPAIRS
from tasks.corpus.cleaning.tally import Tally
from tasks.corpus.documents import EVALUATION, SPLITS, Document, Rejected, Spill, partition_of, read_lines, to_line
from tasks.corpus.measures import Facts, measure, write_facts
from tasks.corpus.readers.files import read_file
from tasks.corpus.readers.records import FileOptions
from tasks.runtime.files import whole

# Of the fates of documents, which the passes after the comparison hand on as numbers.
KEPT, EXACT, SAME_ANSWER, NEAR, NEAR_EVALUATION, CONTAMINATED = range(6)
FATES = {
    EXACT: ("duplicates", "is an exact duplicate"),
    SAME_ANSWER: ("duplicates", "has an answer that many other questions have"),
    NEAR: ("duplicates", "is a near-duplicate"),
    NEAR_EVALUATION: ("leakage", "is a near-duplicate of an evaluation document"),
    CONTAMINATED: ("leakage", "overlaps with an evaluation document"),
}
BANDS = 16  # of 8 places each: pairs from about 0.7 on meet in one
WEAK = ("question:", "record:")  # groups that a reader made up, where nothing says what belongs together
GRAM = 13  # words; shorter ones are common to texts that have nothing to do with each other


@dataclass(frozen=True)
class Rules:
    """What a record must hold to, from params.yaml."""

    min_answer_chars: int
    max_answer_chars: int
    withdrawn: frozenset[str]
    boilerplate_words: int
    boilerplate_except: tuple[str, ...]  # kinds whose sentences are facts in a fixed form
    deidentify: str  # its params, as JSON


def read(data: Path, name: str, number: int, split: str, options: FileOptions, work: Path) -> Tally:
    """Pass 1, a file: its records by partition, those that cannot be read with their reason; ``split`` where the file has one."""
    tally = Tally()
    for begun in (work / "raw").glob(f"*/{number:05d}.jsonl"):
        begun.unlink()
    with Spill(work / "raw", f"{number:05d}") as spill, _rejections(work, f"read-{number:05d}") as rejected:
        for record in read_file(data, name, options):
            if isinstance(record, Rejected):
                tally.add("read", name, record.reason, record.position)
                rejected(asdict(record))
                continue
            if split:
                # Its groups are not those of the corpus.
                record = replace(record, split=split, group=f"{split}:{record.group}")  # noqa: PLW2901
            tally.add("records", name, "", record.id)
            spill.add(partition_of(record.id), to_line(record))
    return tally


def clean(partition: int, rules: Rules, work: Path) -> Tally:
    """Pass 2, a partition: the rules for single records; and which sentences stand in it, for the next."""
    from tasks.corpus.deidentify.document import deidentified  # imports spaCy, which costs seconds that the other passes need not pay

    tally = Tally()
    raw = sorted((d for path in sorted((work / "raw" / f"{partition:03d}").glob("*.jsonl")) for d in read_lines(path)), key=_content)
    previous: Document | None = None
    found: list[int] = []
    with _documents(work / "clean", partition) as write, _rejections(work, f"clean-{partition:03d}") as rejected:

        def reject(document: Document, step: str, rule: str, reason: str) -> None:
            tally.add(step, document.source, rule, document.id)
            rejected(asdict(Rejected(document.source, document.position, reason)) | {"id": document.id, "record": asdict(document)})

        for document in raw:
            if document.id in rules.withdrawn:
                tally.add("withdrawn", document.source, document.id, document.id)
                continue
            if previous and document.id == previous.id:
                if document.texts() == previous.texts():
                    reject(document, *FATES[EXACT], FATES[EXACT][1])
                else:
                    reject(document, "clean", "same-id", "has the id of another record")
                continue
            previous = document
            repaired, repairs = repair(document)
            cleaned, identifiers = deidentified(repaired, rules.deidentify)
            for type_ in identifiers:
                tally.add("identifiers", document.source, type_, document.id)
            for rule in repairs:
                tally.add("repairs", document.source, rule, document.id)
            if why := rejection(cleaned, rules):
                reject(document, "clean", *why)
                continue
            write(cleaned)
            if not _is_exempt(cleaned, rules):
                keys = (shingles.sentence_key(s, rules.boilerplate_words) for s in shingles.sentences(cleaned.answer)[::2])
                found += {key for key in keys if key is not None}
    _facts(work / "raw-records", partition, map(measure, raw))
    _save(work / "sentences" / f"{partition:03d}.npy", np.array(found, np.uint64))
    return tally


def strip(partition: int, rules: Rules, work: Path) -> Tally:
    """Pass 3, a partition: without boilerplate sentences; and what documents are compared by, as numbers in their order."""
    tally = Tally()
    boilerplate = frozenset(np.load(work / "boilerplate.npy").tolist())
    ids: list[str] = []
    rows: list[dict[str, int]] = []
    grams: list[shingles.Hashes] = []
    with _documents(work / "stripped", partition) as write:
        for document in read_lines(work / "clean" / f"{partition:03d}.jsonl"):
            stripped = document if _is_exempt(document, rules) else replace(document, answer=_without(document.answer, boilerplate, rules))
            if stripped != document and rejection(stripped, rules):
                stripped = document  # nothing else is said; how often it may be said is decided later
            if stripped != document:
                tally.add("repairs", document.source, "boilerplate", document.id)
            write(stripped)
            ids.append(stripped.id)
            rows.append(_compared_by(stripped, rules))
            grams.append(_shingles(stripped))
    table = {name: np.array([row[name] for row in rows], np.uint64) for name in _COMPARED}
    for name, column in table.items():
        _save(work / "index" / f"{partition:03d}.{name}.npy", column)
    signed = shingles.signatures(grams)
    _save(work / "index" / f"{partition:03d}.id.npy", np.array(ids, "S24"))
    _save(work / "index" / f"{partition:03d}.signature.npy", signed)
    _save(work / "index" / f"{partition:03d}.bands.npy", _band_keys(signed, table["subject"]))
    return tally


def evaluation_grams(partition: int, work: Path) -> None:
    """Pass 4, a partition: the 13-grams of its evaluation documents, each with the document's number."""
    grams, numbers = [], []
    for number, document, split, fate in _decided(partition, work):
        if split in EVALUATION and fate == KEPT:
            grams.append(shingles.ngrams(_whole(document), GRAM))
            numbers.append(np.full(len(grams[-1]), number, np.uint64))
    _save(work / "grams" / f"{partition:03d}.npy", _pairs(grams, numbers))


def overlap(partition: int, work: Path) -> None:
    """Pass 5, a partition: which 13-grams of its train documents stand in evaluation documents, and how many each has."""
    wanted = np.load(work / "evaluation-grams.npy", mmap_mode="r")
    shared, of_answers, numbers, sizes = [], [], [], []
    for number, document, split, fate in _decided(partition, work):
        if split != "train" or fate != KEPT:
            continue
        grams, answer = shingles.ngrams(_whole(document), GRAM), shingles.ngrams(document.answer, GRAM)
        sizes.append((number, len(grams), len(answer)))
        found = grams[np.isin(grams, wanted[np.minimum(np.searchsorted(wanted, grams), len(wanted) - 1)])] if len(wanted) else grams[:0]
        shared.append(found)
        of_answers.append(np.isin(found, answer).astype(np.uint64))
        numbers.append(np.full(len(found), number, np.uint64))
    _save(work / "overlap" / f"{partition:03d}.npy", np.column_stack([_pairs(shared, numbers), np.concatenate([*of_answers, _NONE])]))
    _save(work / "overlap" / f"{partition:03d}.sizes.npy", np.array(sizes, np.uint64).reshape(-1, 3))


def finish(partition: int, work: Path) -> Tally:
    """Pass 6, a partition: the documents that stay, by split, and the others to the rejected."""
    tally = Tally()
    groups, spread = (np.load(work / "decisions" / f"{partition:03d}.{name}.npy") for name in ("group", "splits_of_group"))
    contents = np.load(work / "index" / f"{partition:03d}.pair.npy")
    files: dict[str, list[str]] = {}
    facts: list[Facts] = []
    with _rejections(work, f"finish-{partition:03d}") as rejected:
        for row, (_, document, split, fate) in enumerate(_decided(partition, work)):
            if fate == KEPT:
                kept = replace(document, split=split, group=groups[row].decode())
                files.setdefault(split, []).append(to_line(kept))
                facts.append(measure(kept) | {"split": split, "content": f"{contents[row]:016x}", "splits_of_group": int(spread[row])})
                tally.add("documents", document.source, split, document.id)
            else:
                step, reason = FATES[fate]
                tally.add(step, document.source, reason, document.id)
                found = asdict(Rejected(document.source, document.position, reason))
                rejected(found | {"id": document.id, "record": asdict(replace(document, split=split))})
    _facts(work / "clean-documents", partition, facts)
    for split, lines in files.items():
        path = work / "documents" / split / f"{partition:03d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with _whole_file(path) as file:
            file.writelines(lines)
    return tally


def repair(document: Document) -> tuple[Document, set[str]]:
    """The document after every repair, and the names of those that changed it.

    One repair can bring up work for another, so they are done until nothing changes.
    """
    changed_by: set[str] = set()
    while True:
        before = document
        for name, change in REPAIRS.items():
            changed = change(document)
            if changed != document:
                changed_by.add(name)
            document = changed
        if document == before:
            return document, changed_by


def rejection(document: Document, rules: Rules) -> tuple[str, str] | None:
    """The rule that a document breaks and the reason to tell; None for a good one."""
    for name, (applies, reason) in REJECTIONS.items():
        if applies(document):
            return name, reason
    if len(document.answer) < rules.min_answer_chars:
        return "too-short", f"has an answer under {rules.min_answer_chars} characters"
    if len(document.answer) > rules.max_answer_chars:
        return "too-long", f"has an answer over {rules.max_answer_chars} characters"
    return None


_COMPARED = ("subject", "group", "weak", "pair", "answer", "split")
_NONE = np.zeros(0, np.uint64)


def _content(document: Document) -> tuple[str, ...]:
    """A key that puts records in one order, wherever they stood in their files."""
    return (document.id, *document.texts(), document.source)


def _is_exempt(document: Document, rules: Rules) -> bool:
    return any(fnmatchcase(document.kind, pattern) for pattern in rules.boilerplate_except)


def _without(answer: str, boilerplate: frozenset[int], rules: Rules) -> str:
    parts = shingles.sentences(answer)
    dropped = {i for i in range(0, len(parts), 2) if shingles.sentence_key(parts[i], rules.boilerplate_words) in boilerplate}
    return "".join("".join(parts[i : i + 2]) for i in range(0, len(parts), 2) if i not in dropped).strip() if dropped else answer


def _shingles(document: Document) -> shingles.Hashes:
    grams = shingles.ngrams(_whole(document), 5)
    return grams if len(grams) else np.array([shingles.hash_text(" ".join(shingles.words(_whole(document))))], np.uint64)


def _band_keys(signed: npt.NDArray[np.uint32], subjects: shingles.Hashes) -> npt.NDArray[np.uint64]:
    """A number per band and document; documents with an equal one are looked at more closely."""
    keys = np.zeros((BANDS, len(signed)), np.uint64)
    width = shingles.PERMUTATIONS // BANDS
    for band in range(BANDS):
        keys[band] = subjects + np.uint64(band)
        for place in range(band * width, (band + 1) * width):
            keys[band] = keys[band] * shingles.BASE + signed[:, place]
    return keys


def _whole(document: Document) -> str:
    return "\n".join(document.texts())


def _decided(partition: int, work: Path) -> Iterator[tuple[int, Document, str, int]]:
    """A partition's documents with their number in the corpus, split and fate, as decided on the whole corpus."""
    decisions = work / "decisions"
    splits, fates = (np.load(decisions / f"{partition:03d}.{name}.npy") for name in ("split", "fate"))
    first = int(np.load(decisions / f"{partition:03d}.first.npy"))
    for row, document in enumerate(read_lines(work / "stripped" / f"{partition:03d}.jsonl")):
        yield first + row, document, SPLITS[splits[row]], int(fates[row])


def _pairs(grams: list[shingles.Hashes], numbers: list[shingles.Hashes]) -> npt.NDArray[np.uint64]:
    return np.column_stack([np.concatenate([*grams, _NONE]), np.concatenate([*numbers, _NONE])])


@contextmanager
def _documents(directory: Path, partition: int) -> Iterator[Callable[[Document], object]]:
    directory.mkdir(exist_ok=True)
    with _whole_file(directory / f"{partition:03d}.jsonl") as file:
        yield lambda document: file.write(to_line(document))


@contextmanager
def _rejections(work: Path, name: str) -> Iterator[Callable[[Mapping[str, object]], object]]:
    (work / "rejected").mkdir(exist_ok=True)
    with _whole_file(work / "rejected" / f"{name}.jsonl") as file:
        yield lambda record: file.write(json.dumps(record, ensure_ascii=False) + "\n")


@contextmanager
def _whole_file(path: Path) -> Iterator[IO[str]]:
    """A file that is there when it is whole: two processes may make the same one after another's death."""
    with whole(path, unique=True) as partial, open(partial, "w", encoding="utf-8") as file:
        yield file


def _facts(directory: Path, partition: int, facts: Iterable[Facts]) -> None:
    directory.mkdir(exist_ok=True)
    write_facts(directory / f"{partition:03d}.jsonl", facts)


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    with whole(path, unique=True) as partial, open(partial, "wb") as file:
        np.save(file, array)


def _compared_by(document: Document, rules: Rules) -> dict[str, int]:
    question = " ".join(shingles.words(document.question))
    answer = " ".join(shingles.words(document.answer))
    # Of other subjects, or with other numbers, the same sentences state other facts.
    subject = f"{document.topic.lower() or question}\x1f{sorted(shingles.facts(document.answer))}" if question else ""
    return {
        "subject": shingles.hash_text(subject),
        "group": shingles.hash_text(document.group),
        "weak": int(document.group.startswith(WEAK)),
        "pair": shingles.hash_text("\x1f".join([*(t for _, t in document.before), question, answer])),
        "answer": shingles.hash_text(answer) if question and answer.count(" ") >= rules.boilerplate_words - 1 else 0,
        "split": (SPLITS.index(document.split) + 1) if document.split else 0,
    }
