"""Detects identifiers in text: by rules, and with a named-entity model if one is set."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec

import regex

from tasks.corpus.deidentify.allowlist import is_medical, is_public
from tasks.corpus.deidentify.cues import SCORE_OF_A_PERSON
from tasks.corpus.deidentify.name_runs import names_near_a_cue
from tasks.corpus.deidentify.policy import TYPES, DeidentifyParams
from tasks.corpus.deidentify.recognizers import Detected, detect

SURELY_A_NAME = 0.7
SCORE = 0.85  # of what an entity model finds
PERSON = "PERSON"  # what an entity model takes for a name
_CHARACTER = regex.compile(r"\X")  # a letter with its marks
_LINE = regex.compile(r"[^\s](?:[^\n]*[^\s])?")
_REST_OF_A_WORD = regex.compile(r"[\p{Lu}\p{Ll}\p{Lt}\p{M}]*+")


@dataclass(frozen=True, slots=True)
class PiiSpan:
    """An identifier in a text: the characters from ``start`` to ``end``."""

    start: int
    end: int
    type: str  # one of TYPES


class PiiAnalyzer:
    """Detects the identifiers that a policy does not keep. Building one takes seconds; see ``get_analyzer``."""

    def __init__(self, params: DeidentifyParams):
        """``ValueError`` where the entity model of the params is not installed, or the key file is not usable."""
        self.params, self.key = params, params.key()
        self._kept = frozenset(type_ for type_ in TYPES if params.action(type_) == "keep")
        self._allowed = frozenset(allowed.casefold() for allowed in params.allow)
        self._entities = _entity_model(params.entity_model)

    def analyze(self, text: str) -> list[PiiSpan]:
        """The identifiers in order and without overlaps, less what the policy keeps and what is public or medical."""
        if unicodedata.is_normalized("NFC", text):
            return self._analyze(text)
        composed, starts, ends = _composed(text)
        return [PiiSpan(starts[span.start], ends[span.end - 1], span.type) for span in self._analyze(composed)]

    def _analyze(self, text: str) -> list[PiiSpan]:
        detected = [
            (start, _end(r, end, text), "NAME" if r.type == PERSON else r.type, r.score)
            for r in (*detect(text), *self._entities(text))
            for start, end in _without_ordinary_words(r, text)
            if text[start:end].casefold() not in self._allowed and not _is_allowed(r, start, end, text)
        ]
        return [span for whole in merged(detected) if whole.type not in self._kept for span in _within_lines(whole, text)]

    def with_known(self, spans: list[PiiSpan], known: list[PiiSpan]) -> list[PiiSpan]:
        """Spans joined with what is known of people, less what the policy keeps."""
        if not known:
            return spans
        taken = [(span.start, span.end, span.type, 0.5) for span in spans]
        return merged([*taken, *((span.start, span.end, span.type, 1.0) for span in known if span.type not in self._kept)])


@lru_cache(maxsize=1)
def get_analyzer(params: str) -> PiiAnalyzer:
    """The analyzer for params given as JSON, built once per process."""
    return PiiAnalyzer(DeidentifyParams.model_validate_json(params))


def _entity_model(name: str) -> Callable[[str], list[Detected]]:
    """A function from a text to the persons that a spaCy model finds in it."""
    if not name:
        return lambda text: []
    model, _, version = name.partition("==")
    if find_spec(model) is None:
        raise ValueError(f"params.yaml: preprocess.deidentify.entity_model: {model} is not installed; 'make entity-model' installs one")
    if (installed := import_module(model).__version__) != version:
        raise ValueError(f"params.yaml: preprocess.deidentify.entity_model must be {model}=={installed}, as the result depends on it")
    nlp = import_module(model).load()
    return lambda text: [Detected(e.start_char, e.end_char, PERSON, SCORE) for e in nlp(text).ents if e.label_ == PERSON]


def _composed(text: str) -> tuple[str, list[int], list[int]]:
    """Text whose letters are in parts (NFD) with composed ones, which the rules see, and where each of them begins and ends in the text."""
    composed: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for match in _CHARACTER.finditer(text):
        character = unicodedata.normalize("NFC", match.group())
        composed.append(character)
        if character == match.group():
            starts += range(match.start(), match.end())
            ends += range(match.start() + 1, match.end() + 1)
        else:
            starts += [match.start()] * len(character)
            ends += [match.end()] * len(character)
    return "".join(composed), starts, ends


def _within_lines(span: PiiSpan, text: str) -> Iterator[PiiSpan]:
    """A span as one of each of its lines: a mask that crosses lines would join them."""
    for line in _LINE.finditer(text, span.start, span.end):
        yield PiiSpan(line.start(), line.end(), span.type)


def _without_ordinary_words(result: Detected, text: str) -> Iterator[tuple[int, int]]:
    """What an entity model takes for a person, less words of language, medicine and drugs; other results as they are."""
    if result.type == "PERSON":
        yield from names_near_a_cue(text, result.start, result.end)
    else:
        yield result.start, result.end


def _end(result: Detected, end: int, text: str) -> int:
    """The end of an identifier, of a name with the rest of its last word."""
    is_name = result.type in ("NAME", PERSON)
    return _REST_OF_A_WORD.match(text, end).end() if is_name else end


def _is_allowed(result: Detected, start: int, end: int, text: str) -> bool:
    if result.type in ("PHONE", "FAX", "URL", "EMAIL"):
        return is_public(text[start:end])
    # A title makes even an eponym a person.
    unsure = result.type == "PERSON" or (result.type == "NAME" and result.score < SURELY_A_NAME)
    return unsure and is_medical(text, start, end, as_person=result.score >= SCORE_OF_A_PERSON)


def merged(detected: Iterable[tuple[int, int, str, float]]) -> list[PiiSpan]:
    """Spans that overlap become one, of the type of the surest: nothing of any of them may stay in the text."""
    merged: list[tuple[int, int, str, tuple[float, int]]] = []
    for start, end, type_, score in sorted(detected):
        weight = (score, end - start)
        if merged and start < merged[-1][1]:
            last_start, last_end, last_type, last_weight = merged[-1]
            surest = (type_, weight) if weight > last_weight else (last_type, last_weight)
            merged[-1] = (last_start, max(end, last_end), *surest)
        else:
            merged.append((start, end, type_, weight))
    return [PiiSpan(start, end, type_) for start, end, type_, _ in merged]
