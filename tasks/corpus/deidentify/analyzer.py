"""Detects identifiers in text: by rules, and with an entity model if one is set."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import regex

from tasks.corpus.deidentify.allowlist import is_medical, is_public
from tasks.corpus.deidentify.cues import SCORE_OF_A_PERSON
from tasks.corpus.deidentify.detection import Detected, detect
from tasks.corpus.deidentify.entity_marks import marked
from tasks.corpus.deidentify.entity_models import Entity, EntityModel, no_model, spacy_model
from tasks.corpus.deidentify.policy import TYPES, DeidentifyParams, TokenClassifierParams

SURELY_A_NAME = 0.7
BY_MODEL = 0.4  # below every rule: where both mark a place, the rule says of which type it is, and a name is asked like an unsure one
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
    """Detects the identifiers that a policy does not keep. One with an entity model takes seconds to build; see ``get_analyzer``."""

    def __init__(self, params: DeidentifyParams):
        """``ValueError`` where the entity model of the params is not installed, or the key file is not usable."""
        self.params, self.key = params, params.key()
        self._kept = frozenset(type_ for type_ in TYPES if params.action(type_) == "keep")
        self._allowed = frozenset(allowed.casefold() for allowed in params.allow)
        self._entity_model = lru_cache(maxsize=1)(_entity_model(params.entity_model))  # a text is measured in several ways at once

    def analyze(self, text: str, *, by_rules: bool = True) -> list[PiiSpan]:
        """The identifiers in order and without overlaps, less what the policy keeps and what is public or medical.

        ``by_rules=False``: those of the entity model by itself.
        """
        if unicodedata.is_normalized("NFC", text):
            return self._analyze(text, by_rules=by_rules)
        composed, starts, ends = _composed(text)
        return [PiiSpan(starts[span.start], ends[span.end - 1], span.type) for span in self._analyze(composed, by_rules=by_rules)]

    def entities(self, text: str) -> list[Entity]:
        """What the entity model takes for identifiers that the policy does not keep, before any list is asked."""
        return [entity for entity in self._entity_model(text) if entity.type not in self._kept]

    def _analyze(self, text: str, *, by_rules: bool) -> list[PiiSpan]:
        by_model = (Detected(*entity, BY_MODEL) for entity in marked(self.entities(text), text))
        detected = [
            (r.start, _end(r, text), r.type, r.score)
            for r in (*(detect(text) if by_rules else ()), *by_model)
            if not self._is_allowed(r, text)
        ]
        return [span for whole in merged(detected) if whole.type not in self._kept for span in _within_lines(whole, text)]

    def _is_allowed(self, result: Detected, text: str) -> bool:
        value = text[result.start : result.end]
        if value.casefold() in self._allowed:
            return True
        if result.type in ("PHONE", "FAX", "URL", "EMAIL"):
            return is_public(value)
        # A title makes even an eponym a person.
        is_unsure = result.type == "NAME" and result.score < SURELY_A_NAME
        return is_unsure and is_medical(text, result.start, result.end, as_person=result.score >= SCORE_OF_A_PERSON)

    def with_known(self, spans: list[PiiSpan], known: list[PiiSpan]) -> list[PiiSpan]:
        """Spans joined with what is known of people, less what the policy keeps."""
        if not known:
            return spans
        taken = [(span.start, span.end, span.type, 0.5) for span in spans]
        return merged([*taken, *((span.start, span.end, span.type, 1.0) for span in known if span.type not in self._kept)])


@lru_cache(maxsize=2)
def get_analyzer(params: str) -> PiiAnalyzer:
    """The analyzer for params given as JSON, built once per process; two are kept, with an entity model and without it."""
    return PiiAnalyzer(DeidentifyParams.model_validate_json(params))


def _entity_model(params: str | TokenClassifierParams) -> EntityModel:
    if isinstance(params, TokenClassifierParams):
        from tasks.corpus.deidentify.token_classifier import TokenClassifier  # what it imports costs time and memory

        return TokenClassifier(params).entities
    return spacy_model(params) if params else no_model


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


def _end(result: Detected, text: str) -> int:
    """The end of an identifier, of a name with the rest of its last word."""
    return _REST_OF_A_WORD.match(text, result.end).end() if result.type == "NAME" else result.end


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
