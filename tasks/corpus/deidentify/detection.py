"""Applies the rules to a text. Most texts hold little of what rules begin with, so the rules with one prefilter are tried together."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import regex

from tasks.corpus.deidentify import name_runs
from tasks.corpus.deidentify.recognizers import NEED_DIGITS, RULES, Prefilter, Rule

Pattern: TypeAlias = re.Pattern[str] | regex.Pattern[str]
NEAR = 160  # characters on either side of what a prefilter finds, in which its rules are tried; identifiers are shorter
WITHOUT_A_CUE = 0.5  # the score of a name that only its words give away
_WORDS, _BLANK, _DIGIT = re.compile(r"[^\W\d_]+"), re.compile(r"\s|$"), re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Detected:
    """What a rule takes for an identifier: the characters from ``start`` to ``end``, and how sure it is."""

    start: int
    end: int
    type: str
    score: float


def detect(text: str) -> list[Detected]:
    """The identifiers that the rules find, in no order; they may overlap."""
    words, has_digit, has_name = frozenset(_WORDS.findall(text.lower())), bool(_DIGIT.search(text)), name_runs.may_hold_a_name(text)
    return [
        Detected(start, end, rule.type, rule.score)
        for group in GROUPS
        if (has_digit or not group.needs_digit) and (has_name or not group.needs_name)
        if group.words is None or not group.words.isdisjoint(words)
        for window in _windows(group.pattern, text)
        for rule in group.rules
        for match in rule.pattern.finditer(text, *window)
        if rule.holds(match["span"])
        for start, end in (rule.refine(text, *match.span("span")) if rule.refine else (match.span("span"),))
        if rule.type != "NAME" or rule.score > WITHOUT_A_CUE or name_runs.is_name_of_its_language(text, start, end)
    ]


def _windows(pattern: Pattern | None, text: str) -> list[tuple[int, int]]:
    """The parts of a text in which rules can match: what stands near where a prefilter's pattern does; all of it without one."""
    if pattern is None:
        return [(0, len(text))]
    windows: list[tuple[int, int]] = []
    for match in pattern.finditer(text):
        if windows and match.end() + NEAR <= windows[-1][1]:
            continue
        start, end = max(0, match.start() - NEAR), min(match.end() + NEAR, len(text))
        end = blank.start() if (blank := _BLANK.search(text, end)) else len(text)  # no word is cut
        if windows and start <= windows[-1][1]:
            windows[-1] = (windows[-1][0], end)
        else:
            windows.append((start, end))
    return windows


@dataclass(frozen=True, slots=True)
class Group:
    """The rules that have a prefilter, and what a text must have for one of them to match."""

    rules: tuple[Rule, ...]
    words: frozenset[str] | None  # one of these
    pattern: Pattern | None  # a match, near which the rules are tried
    needs_digit: bool
    needs_name: bool  # a word that can be one


def groups(rules: Iterable[Rule]) -> Iterator[Group]:
    """Rules by their prefilters."""
    by_prefilter: dict[Prefilter, list[Rule]] = {}
    for rule in rules:
        by_prefilter.setdefault(rule.prefilter, []).append(rule)
    for prefilter, members in by_prefilter.items():
        words, pattern = prefilter if isinstance(prefilter, tuple) else (None, prefilter)
        if isinstance(pattern, frozenset):
            words, pattern = pattern, None
        needs_name = all(rule.refine in name_runs.NEED_NAMES for rule in members)
        yield Group(tuple(members), words, pattern, prefilter in NEED_DIGITS, needs_name)


GROUPS = tuple(groups(RULES))
