"""Errors that several rooms share, and words that help the reader of one."""

import difflib
from collections.abc import Collection


class Unavailable(ValueError):
    """Something outside of this process does not answer: the same run may succeed later, with nothing changed."""


def did_you_mean(word: object, candidates: Collection[str]) -> str:
    """The known word that is most like this one, as the end of a sentence; nothing where none is."""
    closest = difflib.get_close_matches(str(word).lower(), candidates, n=1)
    return f"; did you mean {closest[0]!r}?" if closest else ""


def printable(name: object) -> str:
    """A name as a message can show it in one line: line breaks, control characters and undecoded bytes as escapes."""
    text = str(name)
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
