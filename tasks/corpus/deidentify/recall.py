"""How much of what it should detect the de-identification detects, measured on identifiers injected into copies of the run's own text.

The values of one template are mostly detected or missed together, so that a confidence interval counts templates, not injections.
"""

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from random import Random

from tasks.corpus.cleaning import shingles
from tasks.corpus.deidentify.analyzer import PiiAnalyzer, PiiSpan, get_analyzer
from tasks.corpus.deidentify.known import KnownPeople
from tasks.corpus.deidentify.languages import LANGUAGES, in_language, own_language
from tasks.corpus.deidentify.pii_templates import FilledTemplate, PiiTemplate, fill, read_templates
from tasks.corpus.deidentify.policy import KNOWN_BY, TYPES, DeidentifyParams
from tasks.corpus.documents import KnownPerson, read_lines
from tasks.runtime.pool import are_processes_kept, run_all

PII, HARD_NEGATIVES = "pii-templates", "hard-negatives"  # the tables
HOST_TEXTS = 200  # texts of the run, into which identifiers are injected
HOST_CHARS = 300  # characters of them on either side
LANGUAGE_SHARE = 3  # of the English templates, one of so many takes the names of a language
_ENDS_OF_SENTENCES = (".", "!", "?")
Z = 1.96  # of a two-sided interval of 95 %


@dataclass(frozen=True)
class Share:
    """A share of injections, for one type of identifier, names of one language, or one reason of hard negatives."""

    name: str
    half: str  # all, or held-out: templates, and languages of names beside English, that nobody who wrote a recognizer has seen
    templates: int
    injections: int
    share: float
    low: float  # of Wilson's interval at 95 %, with the number of templates as the number of trials
    high: float
    language: str = ""  # whose names were injected; empty: those of all, or no names


@dataclass(frozen=True)
class Hits:
    """How often what was injected with one template was detected, or of a hard negative touched."""

    template: PiiTemplate
    language: str
    hits: int
    known_hits: int  # where the data names whom the injected identifiers belong to
    injections: int

    def is_unseen(self) -> bool:
        """Whether nobody who wrote a recognizer has looked at its names either: English ones always were those of held-out templates."""
        return self.language in ("", "en") or LANGUAGES[self.language].held_out or bool(own_language(self.template.text))


def measure_recall(params: DeidentifyParams, seed: int, work: Path) -> dict[str, list[Share]]:
    """``recall`` by type and, of names, by ``languages``; ``known``: by type, where the data names the people that the identifiers belong
    to; ``hard_negatives`` touched, by reason, and ``all_hard_negatives``.

    The hosts are clean documents in ``work``. The same seed, params and documents give the same numbers.
    """
    hosts = host_texts(work)
    groups = _groups(params)
    keys = sorted(groups)
    arguments = [(table, groups[table, name, language], language, hosts, params, seed) for table, name, language in keys]
    # By rules alone that takes less time than new processes need to begin.
    hits = run_all(_count_hits, arguments, desc="injected identifiers", here=not params.entity_model and not are_processes_kept())
    by_key = dict(zip(keys, hits, strict=True))
    by_name: dict[tuple[str, str], list[Hits]] = {}
    for (table, name, _), of_key in by_key.items():
        by_name.setdefault((table, name), []).extend(of_key)
    return {
        "recall": [share for (table, name), of_name in by_name.items() if table == PII for share in _shares(name, of_name)],
        "known": [
            share
            for (table, name), of_name in by_name.items()
            if table == PII and name in KNOWN_BY
            for share in _shares(name, [replace(h, hits=h.known_hits) for h in of_name])
        ],
        "languages": [
            share for (_, name, language), of_key in by_key.items() if language for share in _shares(name, of_key, LANGUAGES[language].name)
        ],
        "hard_negatives": [share for (table, name), of_name in by_name.items() if table != PII for share in _shares(name, of_name)],
        "all_hard_negatives": list(_shares("hard_negatives", [h for (t, _), hits in by_name.items() if t != PII for h in hits])),
    }


def below(recall: Sequence[Share], min_recall: Mapping[str, float]) -> list[str]:
    """A message for each type, and names of each language, whose recall is below the minimum of the type."""
    return [
        f"{s.name}{f' in {s.language}' if s.language else ''} {s.share:.3f} < {min_recall[s.name]}"
        for s in recall
        if s.half == "all" and s.share < min_recall.get(s.name, 0)
    ]


def _groups(params: DeidentifyParams) -> dict[tuple[str, str, str], list[PiiTemplate]]:
    """The templates of types that the policy does not keep, by table, name and language of their names."""
    kept = {type_ for type_ in TYPES if params.action(type_) == "keep"}
    groups: dict[tuple[str, str, str], list[PiiTemplate]] = {}
    for table in (PII, HARD_NEGATIVES):
        for number, template in enumerate(read_templates(table)):
            for language in _languages(table, template, number) if template.name not in kept else ():
                groups.setdefault((table, template.name, language), []).append(template)
    return groups


def _languages(table: str, template: PiiTemplate, number: int) -> Sequence[str]:
    """The languages of names that fill a template: its own where it is written in one; those in English take English and some others."""
    if table != PII or template.name != "NAME":
        return ("",)
    if own := own_language(template.text):
        return (own,)
    return tuple(name for i, name in enumerate(LANGUAGES) if name == "en" or i % LANGUAGE_SHARE == number % LANGUAGE_SHARE)


def inject(filled: FilledTemplate, host: str, rng: Random) -> FilledTemplate:
    """A sentence put between two sentences of a host text, of which at most HOST_CHARS characters stay on either side.

    What does not end as a sentence does is a line of its own, as in notes.
    """
    parts = shingles.sentences(host)
    position = rng.randrange(0, len(parts), 2) if parts else 0
    before, after = "".join(parts[:position])[-HOST_CHARS:], "".join(parts[position:])[:HOST_CHARS]
    between = " " if filled.text.endswith(_ENDS_OF_SENTENCES) else "\n"
    text = f"{before}{between if before and not before.endswith(between) else ''}"
    spans = tuple((len(text) + start, len(text) + end) for start, end in filled.spans)
    return FilledTemplate(f"{text}{filled.text}{between}{after}", spans)


def is_covered(text: str, start: int, end: int, detected: Sequence[PiiSpan]) -> bool:
    """Whether every letter, digit and combining mark from ``start`` to ``end`` is in a detected span."""
    telling = (i for i in range(start, end) if text[i].isalnum() or unicodedata.category(text[i]).startswith("M"))
    return all(any(span.start <= i < span.end for span in detected) for i in telling)


def _count_hits(
    table: str, templates: list[PiiTemplate], language: str, hosts: list[str], params: DeidentifyParams, seed: int
) -> list[Hits]:
    analyzer = get_analyzer(params.model_dump_json())
    counted = []
    for template in templates:
        text = in_language(template.text, language) if language and not own_language(template.text) else template.text
        hits, known_hits, spans = 0, 0, 0
        for i in range(params.injections if language in ("", "en") and table == PII else 1):
            rng = Random(f"{seed} {template.text} {i}{f' {language}' if language not in ('', 'en') else ''}")
            injected = inject(fill(text, rng), rng.choice(hosts), rng)
            detected = analyzer.analyze(injected.text)
            known = _with_known(analyzer, injected, detected, template.name) if table == PII else detected
            for start, end in injected.spans:
                known_hits += is_covered(injected.text, start, end, known)
                touched = any(span.start < end and start < span.end for span in detected)
                hits += is_covered(injected.text, start, end, detected) if table == PII else touched
                spans += 1
        counted.append(Hits(template, language, hits, known_hits, spans))
    return counted


def _with_known(analyzer: PiiAnalyzer, injected: FilledTemplate, detected: list[PiiSpan], type_: str) -> list[PiiSpan]:
    """What is detected where the data names whom the injected identifiers belong to."""
    if type_ not in KNOWN_BY:
        return detected
    person = KnownPerson("", tuple((type_, injected.text[start:end]) for start, end in injected.spans))
    return analyzer.with_known(detected, KnownPeople([person]).find(injected.text, ""))


def _shares(name: str, counted: Sequence[Hits], language: str = "") -> Iterator[Share]:
    """Of all templates and of those that are held out; of the names of all languages together, only the unseen count there."""
    unseen = [h for h in counted if h.template.held_out and (language or h.is_unseen())]
    for half, members in (("all", counted), ("held-out", unseen)):
        by_template: dict[PiiTemplate, list[Hits]] = {}
        for hits in members:
            by_template.setdefault(hits.template, []).append(hits)
        shares = [sum(h.hits for h in hits) / sum(h.injections for h in hits) for hits in by_template.values()]
        yield mean_share(name, half, shares, sum(h.injections for h in members), language)


def mean_share(name: str, half: str, by_template: list[float], injections: int, language: str = "") -> Share:
    """The mean of the shares of templates, each of which is one trial of the interval."""
    n, p = len(by_template), sum(by_template) / len(by_template)
    return Share(name, half, n, injections, round(p, 4), *wilson(p, n), language)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's score interval at 95 % of a share of ``n`` trials: E. B. Wilson, J. Am. Stat. Assoc. 22 (1927), 209-212."""
    if not n:
        return 0.0, 1.0
    middle, spread = share + Z * Z / (2 * n), Z * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    low, high = (max(0.0, min(1.0, (middle + sign * spread) / (1 + Z * Z / n))) for sign in (-1, 1))
    return round(low, 4), round(high, 4)


def host_texts(work: Path) -> list[str]:
    """Answers, or notes with a task, of the first documents by id, which is a sample of all, as ids are digests."""
    answers: list[str] = []
    for path in sorted((work / "clean").glob("*.jsonl")):
        answers += [document.question if document.task else document.answer for document in read_lines(path)]
        if len(answers) >= HOST_TEXTS:
            break
    return answers[:HOST_TEXTS] or [""]
