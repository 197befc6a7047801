"""What an entity model is, from a text to the entities in it, and installed spaCy models as such.

It knows nothing of rules, lists of words or masks.
"""

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple, TypeAlias

KEY = "params.yaml: preprocess.deidentify.entity_model"
_PIECE = re.compile(r".{1,100000}(?:\n|\Z)|.{1,100000}", re.S)  # of a text, in whole lines: spaCy's memory grows with the length
# Components of a spaCy model that take most of its time and find no entities.
_NOT_NEEDED = ("tagger", "parser", "senter", "morphologizer", "attribute_ruler", "lemmatizer")


class Entity(NamedTuple):
    """What a model takes for an identifier: the characters of a text from ``start`` to ``end``."""

    start: int
    end: int
    type: str  # one of policy.TYPES


EntityModel: TypeAlias = Callable[[str], Sequence[Entity]]


def no_model(_: str) -> Sequence[Entity]:
    """What stands where no model is set: it finds nothing."""
    return ()


def spacy_model(requirement: str) -> EntityModel:
    """The installed spaCy model of that name and version, ``name==version``, which marks names alone; ``ValueError`` for another one."""
    name, _, version = requirement.partition("==")
    if find_spec(name) is None:
        raise ValueError(f"{KEY}: {name} is not installed; install the wheel that its maker releases, with pip and --no-deps")
    package = import_module(name)
    if package.__version__ != version:
        raise ValueError(f"{KEY} must be {name}=={package.__version__}, as the result depends on it")
    model = package.load(exclude=_NOT_NEEDED)

    def entities(text: str) -> list[Entity]:
        return [
            Entity(piece.start() + entity.start_char, piece.start() + entity.end_char, "NAME")
            for piece in _PIECE.finditer(text)
            for entity in model(piece.group()).ents
            if entity.label_ == "PERSON"
        ]

    return entities
