"""Finds identifiers in text with Presidio: the recognizers of this package, some of its own, and a named-entity model if one is told."""

import logging
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec

import regex
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry, RecognizerResult
from presidio_analyzer.nlp_engine import NerModelConfiguration, NlpEngine, NoOpNlpEngine, SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import CreditCardRecognizer, IbanRecognizer, SpacyRecognizer

from tasks.corpus.deidentify.medical import is_medical, is_public
from tasks.corpus.deidentify.policy import TYPES, DeidentifyParams
from tasks.corpus.deidentify.recognizers import RuleRecognizer

logging.getLogger("presidio-analyzer").setLevel(logging.ERROR)
SURELY_A_NAME = 0.7
FROM_PRESIDIO = {"CREDIT_CARD": "ACCOUNT", "IBAN_CODE": "ACCOUNT", "PERSON": "NAME"}
_CHARACTER = regex.compile(r"\X")  # a letter with its marks
_REST_OF_A_WORD = regex.compile(r"[\p{Lu}\p{Ll}\p{Lt}\p{M}]*+")


@dataclass(frozen=True, slots=True)
class Found:
    start: int
    end: int
    type: str  # one of TYPES


class Finder:
    def __init__(self, params: DeidentifyParams):
        """``ValueError`` where the entity model that is told is not installed."""
        self.params, self.key = params, params.key()
        self._kept = frozenset(type_ for type_ in TYPES if params.action(type_) == "keep")
        self._allowed = frozenset(allowed.casefold() for allowed in params.allow)
        registry = RecognizerRegistry(recognizers=[RuleRecognizer(), CreditCardRecognizer(), IbanRecognizer()])
        if params.entity_model:
            registry.add_recognizer(SpacyRecognizer(supported_entities=["PERSON"]))
        self._entities = sorted({entity for recognizer in registry.recognizers for entity in recognizer.supported_entities})
        self._engine = AnalyzerEngine(registry=registry, nlp_engine=_nlp(params.entity_model), supported_languages=["en"])

    def find(self, text: str) -> list[Found]:
        """What is found, in order and without overlaps, less what the policy keeps and what is public or medical."""
        if unicodedata.is_normalized("NFC", text):
            return self._find(text)
        composed, starts, ends = _composed(text)
        return [Found(starts[f.start], ends[f.end - 1], f.type) for f in self._find(composed)]

    def _find(self, text: str) -> list[Found]:
        results = self._engine.analyze(text, "en", entities=self._entities, score_threshold=0.3)
        wanted = [
            (r.start, _end(r, text), FROM_PRESIDIO.get(r.entity_type, r.entity_type), r.score)
            for r in results
            if text[r.start : r.end].casefold() not in self._allowed and not _is_left_alone(r, text)
        ]
        return [found for found in _merged(wanted) if found.type not in self._kept]


@lru_cache(maxsize=1)
def finder(params: str) -> Finder:
    """The Finder for params given as JSON, made once per process."""
    return Finder(DeidentifyParams.model_validate_json(params))


def _nlp(model: str) -> NlpEngine:
    if not model:
        return NoOpNlpEngine([{"lang_code": "en", "model_name": "none"}])
    model, _, version = model.partition("==")
    if find_spec(model) is None:
        raise ValueError(f"params.yaml: preprocess.deidentify.entity_model: {model} is not installed; 'make entity-model' installs one")
    if (installed := import_module(model).__version__) != version:
        raise ValueError(f"params.yaml: preprocess.deidentify.entity_model must be {model}=={installed}, of which the result depends")
    entities = NerModelConfiguration(model_to_presidio_entity_mapping={"PERSON": "PERSON"}, labels_to_ignore=[])
    return SpacyNlpEngine(models=[{"lang_code": "en", "model_name": model}], ner_model_configuration=entities)


def _composed(text: str) -> tuple[str, list[int], list[int]]:
    """Text whose letters are in parts (NFD) with composed ones, which the rules see, and where each of them begins and ends in the text."""
    composed: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for found in _CHARACTER.finditer(text):
        made = unicodedata.normalize("NFC", found.group())
        composed.append(made)
        if made == found.group():
            starts += range(found.start(), found.end())
            ends += range(found.start() + 1, found.end() + 1)
        else:
            starts += [found.start()] * len(made)
            ends += [found.end()] * len(made)
    return "".join(composed), starts, ends


def _end(found: RecognizerResult, text: str) -> int:
    """Where it ends, of a name with the rest of its last word."""
    is_name = FROM_PRESIDIO.get(found.entity_type, found.entity_type) == "NAME"
    return _REST_OF_A_WORD.match(text, found.end).end() if is_name else found.end


def _is_left_alone(found: RecognizerResult, text: str) -> bool:
    if found.entity_type in ("PHONE", "FAX", "URL", "EMAIL"):
        return is_public(text[found.start : found.end])
    # A title makes even an eponym a person.
    unsure = found.entity_type == "PERSON" or (found.entity_type == "NAME" and found.score < SURELY_A_NAME)
    return unsure and is_medical(text, found.start, found.end)


def _merged(found: list[tuple[int, int, str, float]]) -> list[Found]:
    """What overlaps becomes one, of the type of its surest part: nothing of a part may be left standing."""
    merged: list[tuple[int, int, str, tuple[float, int]]] = []
    for start, end, type_, score in sorted(found):
        weight = (score, end - start)
        if merged and start < merged[-1][1]:
            begun, ended, other, heavier = merged[-1]
            merged[-1] = (begun, max(end, ended), *((type_, weight) if weight > heavier else (other, heavier)))
        else:
            merged.append((start, end, type_, weight))
    return [Found(start, end, type_) for start, end, type_, _ in merged]
