"""The figures of an annotation: numbers alone, in a file that the registry reads, and what they say in words and as a page."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.corpus.deidentify.policy import TYPES
from tasks.runtime import html
from tasks.runtime.artifacts import ANNOTATION
from tasks.runtime.digests import code_digest
from tasks.runtime.files import whole

FILE, PAGE = "figures.json", "report.html"
ALL = "all"  # the name of the row of all types
NONE = "not annotated on this site: recall and damage on its own notes are not known"
# What decides masks and repairs of a note, below tasks/corpus/, and what of preprocess.deidentify only measures them.
_CODE = ("cleaning", "deidentify", "readers")
_MEASURES = frozenset({"injections", "min_recall"})


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Share(_Strict):
    """How many of something; the interval is Wilson's at 95 %, with the number of notes as the number of trials."""

    name: str  # a type of identifier, ALL, or what is said of whole notes
    notes: int  # that have any of it
    total: int
    count: int
    share: float
    low: float
    high: float


class Rate(_Strict):
    """Per 1,000 words, with an interval at 95 % from a bootstrap over notes."""

    value: float
    low: float
    high: float


class Figures(_Strict):
    """All figures of the finished notes, and what they were measured with."""

    format: Literal[1] = 1
    date: str
    seed: int  # of the sample
    rules: str  # ``rules_digest``
    data: str  # DVC's digest of the raw files
    notes: int
    words: int
    recall: list[Share] = Field(min_length=1)  # identifiers that are masked: of ALL, then by type
    damage: list[Share] = Field(min_length=1)  # masks that are wrong: of ALL, then by type
    missed: Share  # notes with an identifier that is not masked
    damaged: Share  # notes with a wrong mask, or clinical text that a repair lost
    wrong_per_1000_words: Rate  # masks
    mistyped: int  # masks of identifiers that are of another type
    lost: int  # repairs that lost clinical text
    unjudged: int  # masks that nobody has judged: later rules made them
    # Of the version that carries the figures; None where they were not compared with one.
    same_rules: bool | None = None
    same_data: bool | None = None


def rules_digest(preprocess: Mapping[str, Any]) -> str:
    """SHA-256 of the rules: their code, and of the section ``preprocess`` (as plain values) what they depend on."""
    deidentify = {name: value for name, value in preprocess["deidentify"].items() if name not in _MEASURES}
    params = json.dumps({"deidentify": deidentify, "files": preprocess["files"]}, sort_keys=True)
    code = code_digest(Path(__file__).parents[1] / name for name in _CODE)
    return hashlib.sha256(f"{code}\n{params}".encode()).hexdigest()


def write(figures: Figures, folder: Path = ANNOTATION) -> None:
    """Write the figures and their page into the folder, whose owner alone may read it."""
    for name, text in ((FILE, figures.model_dump_json(indent=1, exclude_none=True) + "\n"), (PAGE, page(figures))):
        with whole(folder / name) as partial:
            partial.write_text(text, encoding="utf-8")


def read(folder: Path = ANNOTATION) -> Figures | None:
    """The figures in the folder, None where nobody annotated; ``ValueError`` for a file that holds something else."""
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return Figures.model_validate_json(path.read_bytes())
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_input=False, include_url=False)[0]["loc"]))
        again = "make them again: python -m tasks.corpus annotate --report"
        raise ValueError(f"{path} holds no figures that this version reads ({where}); {again}") from None


def metrics(figures: Figures) -> dict[str, float]:
    """The figures for the tracker."""
    values = {f"site_recall_{row.name}": row.share for row in figures.recall if row.total}
    values |= {f"site_wrong_masks_{row.name}": row.share for row in figures.damage if row.total}
    values |= {"site_notes_missed": figures.missed.share, "site_notes_damaged": figures.damaged.share}
    values |= {"site_wrong_masks_per_1000_words": figures.wrong_per_1000_words.value}
    return values | {"site_notes": float(figures.notes), "site_masks_unjudged": float(figures.unjudged)}


def sentences(figures: Figures | None) -> Iterator[str]:
    """What the figures say, for terminals, model cards and pages."""
    if figures is None:
        yield NONE
        return
    recall, damage, rate = figures.recall[0], figures.damage[0], figures.wrong_per_1000_words
    yield (
        f"annotated on this site: {figures.notes:,} notes with {figures.words:,} words, seed {figures.seed}, {figures.date}, "
        f"{_measured_with(figures)}"
    )
    yield f"recall {_interval(recall)} of {recall.total:,} identifiers; {_interval(figures.missed)} of the notes have one that is missed"
    yield f"wrong masks {_interval(damage)} of {damage.total:,}, {rate.value} ({rate.low} to {rate.high}) per 1,000 words"
    yield f"{_interval(figures.damaged)} of the notes have clinical text that is changed"
    if figures.unjudged:
        yield f"{figures.unjudged:,} masks are newer than the annotation and not judged"


def page(figures: Figures) -> str:
    """The figures as a page, complete in itself."""
    return _PAGE.render(section=section(figures))


def section(figures: Figures) -> str:
    """The figures as a part of a page, HTML."""
    return _SECTION.render(figures=figures, sentences=list(sentences(figures)), types=TYPES | {ALL: "all types"}, interval=_interval)


def _measured_with(figures: Figures) -> str:
    if figures.same_rules is None:
        return f"with the rules of SHA-256 {figures.rules[:12]}"
    rules = "with the rules of this version" if figures.same_rules else "with other rules than those of this version"
    return rules + ("" if figures.same_data else ", on other raw files")


def _interval(row: Share) -> str:
    return f"{row.share:.3f} ({row.low:.3f} to {row.high:.3f})" if row.total else "not known"


_SECTION = html.ENVIRONMENT.from_string("""<h2>Recall and damage on this site's own notes</h2>
{% for sentence in sentences %}
<p>{{ sentence[0] | upper }}{{ sentence[1:] }}.
{% endfor %}
<p>A person read the notes with the masks in view, which lets some of what they miss go unseen: the recall is rather an upper limit.
Intervals are at 95 % and count notes, as what one note has is mostly seen or missed together: Wilson's, and per 1,000 words a bootstrap
over notes. Nothing is said of what only all records together decide, such as boilerplate and duplicates.</p>
{% macro table(title, rows, total, count) %}
<table><caption>{{ title }}</caption><tr><th>type<th>notes with it<th>{{ total }}<th>{{ count }}<th>share, 95 % interval</tr>
{% for row in rows %}
<tr><td>{{ row.name }}: {{ types[row.name] }}<td class="n">{{ "{:,}".format(row.notes) }}<td class="n">{{ "{:,}".format(row.total) }}
<td class="n">{{ "{:,}".format(row.count) }}<td class="n">{{ interval(row) }}</tr>
{% endfor %}
</table>
{% endmacro %}
{{ table("Recall", figures.recall, "identifiers", "masked") }}
{{ table("Wrong masks", figures.damage, "masks", "clinical or nobody's") }}
<p>{{ "{:,}".format(figures.mistyped) }} masks have another type than the identifier; {{ "{:,}".format(figures.lost) }} repairs lost
clinical text. Rules: SHA-256 <code>{{ figures.rules }}</code>. Raw files: DVC <code>{{ figures.data }}</code>.</p>
""")
_PAGE = html.page("Annotation of this site's notes", "{{ section | safe }}", style="caption { text-align: left; font-weight: 600 }")
