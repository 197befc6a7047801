"""Light slips in a question: two letters exchanged, one left out or doubled, no capital, no question mark."""

import re

from tasks.corpus.augmentation.invariant import protected
from tasks.corpus.documents import share


def with_typos(question: str, topic: str, seed: int, key: str) -> str:
    """The question with one or two slips; never in its topic, in a protected word or in one under five letters."""
    named = topic.lower()
    slips = [_lower_first, _without_mark, _in_a_word]
    for turn in range(1 + int(share(seed, "typos", key) * 2)):
        question = slips[int(share(seed, "slip", turn, key) * len(slips))](question, named, f"{seed} {turn} {key}")
    return question


def _lower_first(question: str, named: str, _: str) -> str:
    first = question.split(" ", 1)[0]
    return question if first.lower() in named or not first.istitle() else question[0].lower() + question[1:]


def _without_mark(question: str, named: str, _: str) -> str:  # noqa: ARG001
    return question.removesuffix("?")


def _in_a_word(question: str, named: str, key: str) -> str:
    words = [m for m in re.finditer(r"\b[a-z]{5,}\b", question) if m.group() not in named and not protected(m.group())]
    if not words:
        return question
    match = words[int(share(key, "word") * len(words))]
    word, position = match.group(), 1 + int(share(key, "place") * (len(match.group()) - 2))
    slipped = (
        word[:position] + word[position + 1] + word[position] + word[position + 2 :],
        word[:position] + word[position + 1 :],
        word[: position + 1] + word[position:],
    )[int(share(key, "kind") * 3)]
    return question[: match.start()] + slipped + question[match.end() :]
