"""The passes over the corpus that preprocess makes, each on one file or partition, in any process and order.

They hand records on through files in a working directory that only its owner may read. What needs the whole corpus at once is done
between them, on numbers.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tasks.corpus.cleaning import known_people, shingles
from tasks.corpus.cleaning.changes import count_changes, repair_steps
from tasks.corpus.cleaning.comparison import KEYS, band_keys, comparison_keys, document_shingles
from tasks.corpus.cleaning.copy_forward import copies_of, paragraph_keys, without_paragraphs
from tasks.corpus.cleaning.rule_counts import RuleCounts
from tasks.corpus.cleaning.rules import REJECTIONS
from tasks.corpus.cleaning.work_files import documents_file, rejections_file, save_array, whole_file
from tasks.corpus.documents import (
    SPLITS,
    Decoded,
    Document,
    KnownPerson,
    NotAsked,
    PartitionWriter,
    Record,
    Rejected,
    Skipped,
    partition_of,
    read_lines,
    share,
    to_line,
)
from tasks.corpus.extraction.definitions import Task
from tasks.corpus.extraction.pairs import keep_stated
from tasks.corpus.params import ShareParams
from tasks.corpus.readers.files import read_file
from tasks.corpus.readers.records import FILE, FileOptions
from tasks.corpus.readers.sections import note_parts
from tasks.corpus.readers.source_index import FILE_NAME
from tasks.corpus.row_metrics import RowMetrics, compute_metrics, write_row_metrics

if TYPE_CHECKING:
    from tasks.corpus.deidentify.known import KnownPeople

# Dispositions of documents, which the passes after the comparison hand on as numbers.
KEPT, EXACT, SAME_ANSWER, NEAR, NEAR_EVALUATION, CONTAMINATED, FEW_EXAMPLES = range(7)
DISPOSITIONS = {
    EXACT: ("duplicates", "is an exact duplicate"),
    SAME_ANSWER: ("duplicates", "has an answer that many other questions have"),
    NEAR: ("duplicates", "is a near-duplicate"),
    NEAR_EVALUATION: ("leakage", "is a near-duplicate of an evaluation document"),
    CONTAMINATED: ("leakage", "overlaps with an evaluation document"),
    FEW_EXAMPLES: ("examples", "states only what too few train documents state (preprocess.min_examples)"),
}


@dataclass(frozen=True)
class Rules:
    """What a record must hold to, from params.yaml."""

    min_answer_chars: int
    max_answer_chars: int
    withdrawn: frozenset[str]
    boilerplate_words: int
    boilerplate_except: tuple[str, ...]  # categories whose sentences are facts in a fixed form
    deidentify: str  # its params, as JSON
    tasks: Mapping[str, Task]  # that ask about notes


# The name of a raw file, the split that its records have (else empty), and how it is read.
RawFile = tuple[str, str, FileOptions]


@dataclass(frozen=True)
class Intake:
    """What is made of raw files, from params.yaml."""

    max_chars: int  # of a text; a longer one is one document per part
    tasks: Mapping[str, Task]
    shares: tuple[ShareParams, ...]


def read(data: Path, files: Sequence[RawFile], index: int, intake: Intake, work: Path) -> RuleCounts:
    """Pass 1, some files: their records by partition, those that cannot be read with their reason. ``index`` is of these files alone.

    What readers must know of other files is in ``work``, in ``FILE_NAME``; who the files name goes there too, and nowhere else.
    """
    counts, stem = RuleCounts(), f"{index:05d}"
    for stale in (work / "raw").glob(f"*/{stem}.jsonl"):
        stale.unlink()
    with (
        PartitionWriter(work / "raw", stem) as writer,
        rejections_file(work, f"read-{stem}") as reject,
        known_people.writer(work, stem) as write_known,
    ):
        for record, split in _records(data, files, work / FILE_NAME, intake.tasks):
            match record:
                case Rejected():
                    counts.add("read", record.source, record.reason, record.position)
                    reject(asdict(record))
                case Skipped():
                    counts.add("skipped", record.source, record.reason, record.position)
                case Decoded():
                    counts.add("encodings", record.source, record.encoding, FILE)
                case NotAsked():
                    counts.add("tasks", record.source, record.reason, record.position)
                case KnownPerson():
                    write_known(replace(record, group=_group_in(split, record.group)))
                case Document():
                    # The groups of a file with a split of its own are not those of the corpus.
                    of_split = replace(record, split=split or record.split, group=_group_in(split, record.group))
                    for document in note_parts(of_split, intake.max_chars):
                        if _is_used(document, intake.shares):
                            counts.add("records", record.source, "", document.id)
                            writer.add(partition_of(document.id), to_line(document))
                        else:
                            counts.add("unused", record.source, "is not of the share that preprocess.shares uses", document.id)
    return counts


def _group_in(split: str, group: str) -> str:
    """A group of a file that has a split of its own; staff, who are of no group, are so there too."""
    return f"{split}:{group}" if split and group else group


def _is_used(document: Document, shares: Sequence[ShareParams]) -> bool:
    """Whether a document is of the share that is used, by the first rule that is about it."""
    for rule in shares:
        if fnmatchcase(document.source, rule.files) and fnmatchcase(document.category, rule.category):
            return share("share", document.id) < rule.share
    return True


def _records(data: Path, files: Sequence[RawFile], index: Path, tasks: Mapping[str, Task]) -> Iterator[tuple[Record, str]]:
    """The records of files, each with the split that its file has."""
    for name, split, options in files:
        yield from ((record, split) for record in read_file(data, name, options, index, tasks))


def clean(partition: int, rules: Rules, work: Path) -> RuleCounts:
    """Pass 2, a partition: the rules for single records; and which sentences its documents have, for the next."""
    from tasks.corpus.deidentify.known import known_people  # imports the rules, which the other passes need not pay for

    counts, known = RuleCounts(), known_people(work)
    raw = sorted((d for path in sorted((work / "raw" / f"{partition:03d}").glob("*.jsonl")) for d in read_lines(path)), key=_content)
    sentence_keys: list[int] = []
    paragraph_rows: list[tuple[int, int]] = []
    written = 0
    with documents_file(work / "clean", partition) as write, rejections_file(work, f"clean-{partition:03d}") as write_rejected:

        def reject(document: Document, step: str, rule: str, reason: str) -> None:
            counts.add(step, document.source, rule, document.id)
            write_rejected(_rejected_record(document, reason))

        for document in _distinct(raw, rules, counts, reject):
            cleaned = _cleaned(document, rules, counts, known)
            if broken := rejection(cleaned, rules):
                reject(document, "clean", *broken)
                continue
            write(cleaned)
            paragraph_rows += [(key, written) for key in sorted(paragraph_keys(cleaned))]
            written += 1
            if not _is_exempt(cleaned, rules):
                keys = (shingles.sentence_key(s, rules.boilerplate_words) for s in shingles.sentences(cleaned.answer)[::2])
                sentence_keys += {key for key in keys if key is not None}
    _write_row_metrics(work / "raw-records", partition, map(compute_metrics, raw))
    save_array(work / "sentences" / f"{partition:03d}.npy", np.array(sentence_keys, np.uint64))
    save_array(work / "paragraphs" / f"{partition:03d}.npy", np.array(paragraph_rows, np.uint64).reshape(-1, 2))
    return counts


def _distinct(
    raw: Iterable[Document], rules: Rules, counts: RuleCounts, reject: Callable[[Document, str, str, str], None]
) -> Iterator[Document]:
    """The records that are not withdrawn, one of each id; they come sorted by id."""
    previous: Document | None = None
    for document in raw:
        if document.id in rules.withdrawn:
            counts.add("withdrawn", document.source, document.id, document.id)
        elif previous is None or document.id != previous.id:
            previous = document
            yield document
        elif document.texts() == previous.texts():
            reject(document, *DISPOSITIONS[EXACT], DISPOSITIONS[EXACT][1])
        else:
            reject(document, "clean", "same-id", "has the id of another record")


def _cleaned(document: Document, rules: Rules, counts: RuleCounts, known: "KnownPeople") -> Document:
    """The document repaired and de-identified."""
    from tasks.corpus.deidentify.document import deidentified

    task = rules.tasks.get(document.task)
    # Its answer is no text of the note, but values of its record.
    repaired, repairs = repair(replace(document, answer="") if task else document)
    cleaned, identifiers = deidentified(repaired, rules.deidentify, known)
    for type_, changes in identifiers.items():
        counts.add("identifiers", document.source, type_, document.id, changes)
    for rule, changes in repairs.items():
        counts.add("repairs", document.source, rule, document.id, changes)
    return keep_stated(replace(cleaned, answer=document.answer), task) if task else cleaned


def strip(partition: int, rules: Rules, work: Path) -> RuleCounts:
    """Pass 3, a partition: without boilerplate sentences; and what documents are compared by, as numbers in their order."""
    counts = RuleCounts()
    boilerplate = frozenset(np.load(work / "boilerplate.npy").tolist())
    copies = copies_of(work, partition)
    ids: list[str] = []
    rows: list[dict[str, int]] = []
    grams: list[shingles.Hashes] = []
    with documents_file(work / "stripped", partition) as write:
        for row, original in enumerate(read_lines(work / "clean" / f"{partition:03d}.jsonl")):
            document = _capped(original, copies, row, rules, counts)
            stripped = document if _is_exempt(document, rules) else replace(document, answer=_without(document, boilerplate, rules))
            if stripped != document and rejection(stripped, rules):
                stripped = document  # it says nothing else; how often it may be said is decided later
            if stripped != document:
                counts.add("repairs", document.source, "boilerplate", document.id, count_changes(document, stripped))
            write(stripped)
            ids.append(stripped.id)
            rows.append(comparison_keys(stripped, rules.boilerplate_words))
            grams.append(document_shingles(stripped))
    table = {name: np.array([row[name] for row in rows], np.uint64) for name in KEYS}
    for name, column in table.items():
        save_array(work / "index" / f"{partition:03d}.{name}.npy", column)
    signatures = shingles.signatures(grams)
    save_array(work / "index" / f"{partition:03d}.id.npy", np.array(ids, "S24"))
    save_array(work / "index" / f"{partition:03d}.signature.npy", signatures)
    save_array(work / "index" / f"{partition:03d}.bands.npy", band_keys(signatures, table["subject"]))
    return counts


def _capped(document: Document, copies: Mapping[int, set[int]], row: int, rules: Rules, counts: RuleCounts) -> Document:
    """The document without the copied paragraphs that go from it; whether it has copied ones is counted."""
    if row in copies:
        counts.add("copy-forward", document.source, "has a paragraph of another note of its group", document.id)
    if keys := copies.get(row):
        capped = replace(document, answer=without_paragraphs(document, keys))
        if not rejection(capped, rules):  # else it says nothing else
            counts.add("repairs", document.source, "copy-forward", document.id)
            return capped
    return document


def finish(partition: int, tasks: Mapping[str, Task], work: Path) -> RuleCounts:
    """Pass 6, a partition: the documents that stay, by split, and the others to the rejected; ``tasks`` ask for what can be learned."""
    counts = RuleCounts()
    groups, splits_of_group = (np.load(work / "decisions" / f"{partition:03d}.{name}.npy") for name in ("group", "splits_of_group"))
    contents = np.load(work / "index" / f"{partition:03d}.pair.npy")
    files: dict[str, list[str]] = {}
    metrics: list[RowMetrics] = []
    with rejections_file(work, f"finish-{partition:03d}") as reject:
        for row, (_, document, split, decision) in enumerate(decided(partition, work)):
            placed = replace(document, split=split, group=groups[row].decode())
            kept, disposition = _asked(placed, tasks) if document.task and decision == KEPT else (placed, decision)
            if disposition == KEPT:
                files.setdefault(split, []).append(to_line(kept))
                metrics.append(
                    compute_metrics(kept)
                    | {"split": split, "content": f"{contents[row]:016x}", "splits_of_group": int(splits_of_group[row])}
                )
                counts.add("documents", document.source, split, document.id)
                if document.task:
                    counts.add("questions", document.source, document.task, document.id)
            else:
                step, reason = DISPOSITIONS[disposition]
                counts.add(step, document.source, reason, document.id)
                reject(_rejected_record(replace(document, split=split), reason))
    _write_row_metrics(work / "clean-documents", partition, metrics)
    for split, lines in files.items():
        path = work / "documents" / split / f"{partition:03d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.writelines(lines)
    return counts


def _asked(document: Document, tasks: Mapping[str, Task]) -> tuple[Document, int]:
    """The document with what its task asks for, and what becomes of it."""
    asked = keep_stated(document, tasks[document.task]) if document.task in tasks else replace(document, answer="")
    return (asked, KEPT) if asked.answer else (document, FEW_EXAMPLES)


def repair(document: Document) -> tuple[Document, Counter[str]]:
    """The document after every repair, and in how many places each of them changed it."""
    changed_by, repaired = Counter[str](), document
    for name, before, repaired in repair_steps(document):
        changed_by[name] += count_changes(before, repaired)
    return repaired, changed_by


def rejection(document: Document, rules: Rules) -> tuple[str, str] | None:
    """The name of the rule that a document breaks and the reason as it is reported; None for a good one."""
    for name, (applies, reason) in REJECTIONS.items():
        if applies(document):
            return name, reason
    if len(document.answer) < rules.min_answer_chars:
        return "too-short", f"has an answer under {rules.min_answer_chars} characters"
    if len(document.answer) > rules.max_answer_chars:
        return "too-long", f"has an answer over {rules.max_answer_chars} characters"
    return None


def _rejected_record(document: Document, reason: str) -> dict[str, object]:
    return asdict(Rejected(document.source, document.position, reason)) | {"id": document.id, "record": asdict(document)}


def _content(document: Document) -> tuple[str, ...]:
    """A key that puts records in one order, wherever they stood in their files."""
    return (document.id, *document.texts(), document.source)


def _is_exempt(document: Document, rules: Rules) -> bool:
    return any(fnmatchcase(document.category, pattern) for pattern in rules.boilerplate_except)


def _without(document: Document, boilerplate: frozenset[int], rules: Rules) -> str:
    """The answer without boilerplate. Of a note that is only what it begins and ends with, as what many notes state is a finding too."""
    answer = document.answer
    parts = shingles.sentences(answer)
    dropped = {i for i in range(0, len(parts), 2) if shingles.sentence_key(parts[i], rules.boilerplate_words) in boilerplate}
    if not document.question:
        stays = [i for i in range(0, len(parts), 2) if parts[i].strip() and i not in dropped] or [0]
        dropped -= set(range(stays[0], stays[-1] + 1))
    return "".join("".join(parts[i : i + 2]) for i in range(0, len(parts), 2) if i not in dropped).strip() if dropped else answer


def decided(partition: int, work: Path) -> Iterator[tuple[int, Document, str, int]]:
    """A partition's documents with their index in the corpus, split and disposition, as decided on the whole corpus."""
    decisions = work / "decisions"
    splits, dispositions = (np.load(decisions / f"{partition:03d}.{name}.npy") for name in ("split", "disposition"))
    first = int(np.load(decisions / f"{partition:03d}.first.npy"))
    for row, document in enumerate(read_lines(work / "stripped" / f"{partition:03d}.jsonl")):
        yield first + row, document, SPLITS[splits[row]], int(dispositions[row])


def _write_row_metrics(directory: Path, partition: int, metrics: Iterable[RowMetrics]) -> None:
    directory.mkdir(exist_ok=True)
    write_row_metrics(directory / f"{partition:03d}.jsonl", metrics)
