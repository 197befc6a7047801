"""The methods by which a variant of a document is made, by their names in params.yaml, and the check that it states the same."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from tasks.corpus.augmentation import abbreviation, lay, paraphrase, spelling, typo
from tasks.corpus.augmentation.invariant import protected
from tasks.corpus.documents import Document, share

Method = Callable[[Document, int, Mapping[str, str]], Document | None]


def states_the_same(document: Document, variant: Document, method: str) -> bool:
    """Whether a variant holds the same protected words and numbers; abbreviations count as what they are short for."""
    # Texts that are equal need no comparison.
    differing = [(one, other) for one, other in zip(document.texts(), variant.texts(), strict=True) if one != other]
    texts = ["\n".join(of_one) for of_one in zip(*differing, strict=True)] or ["", ""]
    if method == "abbreviation":
        texts = [abbreviation.without_defined(text, document.answer) for text in texts]
    return protected(texts[0]) == protected(texts[1])


def _paraphrase(document: Document, seed: int, _: Mapping[str, str]) -> Document | None:
    templates, topic = paraphrase.question_templates(document)
    return replace(document, question=_pick(templates, seed, "wording", document.id).format(topic=topic)) if templates and topic else None


def _synonym(document: Document, seed: int, _: Mapping[str, str]) -> Document | None:
    templates, topic = paraphrase.question_templates(document)
    names = paraphrase.other_names(document)
    if not (templates and topic and names):
        return None
    name = _pick(tuple(names), seed, "name", document.id)
    return replace(document, question=_pick(templates, seed, "wording", document.id).format(topic=name), topic=name)


def _lay(document: Document, _: int, terms: Mapping[str, str]) -> Document | None:
    return replace(document, answer=lay.glossed(document.answer, terms))


def _spelling(document: Document, seed: int, _: Mapping[str, str]) -> Document | None:
    table = spelling.TO_UK if share(seed, "direction", document.id) < 0.5 else spelling.TO_US
    return document.map_texts(lambda text: spelling.respelled(text, table))


def _abbreviation(document: Document, seed: int, _: Mapping[str, str]) -> Document | None:
    change = abbreviation.expanded if share(seed, "longer", document.id) < 0.5 else abbreviation.shortened
    return replace(document, answer=change(document.answer))


def _typo(document: Document, seed: int, _: Mapping[str, str]) -> Document | None:
    return replace(document, question=typo.with_typos(document.question, document.topic, seed, document.id)) if document.question else None


METHODS: dict[str, Method] = {
    "paraphrase": _paraphrase,
    "synonym": _synonym,
    "lay": _lay,
    "spelling": _spelling,
    "abbreviation": _abbreviation,
    "typo": _typo,
}


def _pick(choices: tuple[str, ...], seed: int, purpose: str, key: str) -> str:
    return choices[int(share(seed, purpose, key) * len(choices))]
