"""Lists what every rule changes in one raw file: ``python -m tasks.corpus explain FILE``.

The list holds text of records, so it stays on this machine, in a file that its owner alone may read.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.corpus.deidentify.clinical_spans import find_spans
from tasks.corpus.deidentify.damage import lost_spans
from tasks.corpus.deidentify.document import BORDER
from tasks.corpus.deidentify.known import KnownPeople
from tasks.corpus.deidentify.lexicon import lexicon
from tasks.corpus.deidentify.trace import RuleChanges, trace
from tasks.corpus.documents import Document, KnownPerson, Rejected, Skipped, private
from tasks.corpus.params import PreprocessParams
from tasks.corpus.readers.files import options_for, read_file
from tasks.runtime.files import whole

EXPLANATIONS = Path(".cache/explain")
NOT_READ = "not read"  # the step of records that a reader did not take, counted by reason
CONTEXT = 40  # characters on either side of a change


def explain(file: Path, data: Path, target: Path, params: PreprocessParams) -> Counter[tuple[str, str]]:
    """Write a line of JSON for each change to ``target`` (mode 0600); the number of changes by step and rule, of records under NOT_READ.

    A file below ``data`` is read as the run reads it, with its options from the params; another one as one without options. Of the people
    whom the data names, those of this file are looked for.
    ``ValueError`` where nothing of the file can be read.
    """
    inside = file.resolve().is_relative_to(data.resolve())
    folder, name = (data.resolve(), file.resolve().relative_to(data.resolve()).as_posix()) if inside else (file.parent, file.name)
    counts = Counter[tuple[str, str]]()
    read = 0
    options = options_for(name, params.files)
    known = KnownPeople(record for record in read_file(folder, name, options) if isinstance(record, KnownPerson))
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with whole(target) as partial, open(partial, "w", encoding="utf-8", opener=private) as lines:
        for record in read_file(folder, name, options):
            if isinstance(record, Rejected | Skipped):
                counts[NOT_READ, record.reason] += 1
            if not isinstance(record, Document):
                continue
            read += 1
            for changes in trace(record, params.deidentify.model_dump_json(), known):
                counts[changes.step, changes.rule] += len(changes.changes)
                lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(record, changes))
        if not read:
            raise ValueError(f"{file}: no record could be read: {'; '.join(sorted(reason for _, reason in counts))}")
    return counts


def _rows(document: Document, traced: RuleChanges) -> Iterator[dict[str, Any]]:
    """What one rule changed; ``line`` and ``offset`` are of the text before the rule, an identifier's offset of all texts joined."""
    text = traced.text
    spans = find_spans(text, lexicon().drugs)
    for change in traced.changes:
        lost = lost_spans(RuleChanges(traced.step, traced.rule, text, [change]), spans)
        yield {
            "position": document.position,
            "id": document.id,
            "step": traced.step,
            "rule": traced.rule,
            "offset": change.start,
            "line": text[: change.start].rpartition(BORDER)[2].count("\n") + 1,
            "before": change.before,
            "after": change.after,
            "left": text[max(0, change.start - CONTEXT) : change.start],
            "right": text[change.end : change.end + CONTEXT],
            "clinical": sorted({span.type for span in lost}),
        }
