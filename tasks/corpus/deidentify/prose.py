"""Whether a sentence is English, by its function words: in another language a word that no list has says nothing of a name.

German writes every noun with a capital, and no list here has the words of other languages. It knows nothing of names.
"""

import re
from functools import lru_cache

from tasks.corpus.deidentify.lexicon import lexicon

MIN_IN_SENTENCE = 2  # function words by which one language is ahead
MIN_IN_TEXT, SHARE_OF_TEXT = 3, 0.1  # foreign function words that make a text foreign; one where it has no English one
_WORD = re.compile(r"[^\W\d_]{2,}")
_END = re.compile(r"[.!?](?=\s|$)|\n")
_REACH = 400  # characters of a sentence on either side


def is_foreign(text: str, at: int) -> bool:
    """Whether the sentence around a place is of another language than English; where it does not say so, whether its text is."""
    before = text[max(0, at - _REACH) : at]
    start = at - len(before) + max((match.end() for match in _END.finditer(before)), default=0)
    end = match.start() if (match := _END.search(text, at, at + _REACH)) else at + _REACH
    foreign, english, _ = _counts(text[start:end])
    return foreign > english if abs(foreign - english) >= MIN_IN_SENTENCE else _is_foreign_text(text)


@lru_cache(maxsize=8)
def _is_foreign_text(text: str) -> bool:
    foreign, english, words = _counts(text)
    return foreign > english and foreign >= max(MIN_IN_TEXT if english else 1, SHARE_OF_TEXT * words)


def _counts(text: str) -> tuple[int, int, int]:
    """Function words of other languages, of English, and all words."""
    words, lists = _WORD.findall(text.lower()), lexicon()
    return sum(word in lists.foreign for word in words), sum(word in lists.function for word in words), len(words)
