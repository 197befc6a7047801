"""Drafts of the tokens that come next: what followed the last tokens where they stood before (prompt lookup decoding).

An answer that copies from its prompt, or fills a known form, mostly goes on so. A step computes the drafted tokens beside the next one,
in one reading of the weights; what was drafted wrongly is dropped, and no token changes (Leviathan et al. 2023, arXiv:2211.17192).
"""

from collections.abc import Sequence

LENGTHS = {4: 3, 3: 3, 2: 3, 1: 1}  # of the run that is looked up: how many tokens that followed it are drafted
TRIES, ACCEPTED = 12, 0.3  # after so many drafted tokens at least this share was right, or such drafts end
_BORDER = -1  # between texts


class PromptLookup:
    """The tokens of one sequence, and where each run of up to four of them last went on."""

    def __init__(self, tokens: Sequence[int], hints: Sequence[int] = ()):
        """``hints``: other tokens that the answer may have, such as the keys of its form."""
        self._tokens: list[int] = []
        self._next: dict[tuple[int, ...], int] = {}
        self._drafted: list[int] = []
        self._length = 0  # of the run that the draft is from
        self._tried, self._right = dict.fromkeys(LENGTHS, 0), dict.fromkeys(LENGTHS, 0)
        for token in (*hints, _BORDER, *tokens):
            self._append(token)

    def push(self, token: int) -> None:
        """Take the next token of the sequence."""
        if self._drafted:
            is_right = self._drafted.pop(0) == token
            self._right[self._length] += is_right
            if not is_right:
                self._drafted = []
        self._append(token)

    def propose(self, count: int) -> list[int]:
        """Up to ``count`` tokens that may come next; none where nothing like the last tokens stood before."""
        self._drafted = []
        for length, limit in LENGTHS.items():
            if self._tried[length] >= TRIES and self._right[length] < ACCEPTED * self._tried[length]:
                continue
            if start := self._next.get(tuple(self._tokens[-length:])):
                drafted = self._tokens[start : start + min(count, limit)]
                if _BORDER in drafted:
                    drafted = drafted[: drafted.index(_BORDER)]
                self._length, self._drafted = length, drafted
                self._tried[length] += len(drafted)
                return list(drafted)
        return []

    def _append(self, token: int) -> None:
        for length in LENGTHS:
            if len(self._tokens) >= length:
                self._next[tuple(self._tokens[-length:])] = len(self._tokens)
        self._tokens.append(token)
