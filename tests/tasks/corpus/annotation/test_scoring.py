"""Figures of marks and masks, against ones that were counted by hand."""

from collections.abc import Sequence

import pytest

from tasks.corpus.annotation.figures import Figures, Share, metrics, sentences
from tasks.corpus.annotation.marks import Mark
from tasks.corpus.annotation.notes import Mask, Note, Repair
from tasks.corpus.annotation.scoring import NoteScore, mask_states, score_note, summarize
from tasks.corpus.deidentify.recall import wilson

TEXT = "Ann Smith, called Bo, has pH 7.38 and Bell palsy since 3/4/19."


def span(part: str) -> tuple[int, int]:
    return TEXT.index(part), TEXT.index(part) + len(part)


def mark(part: str, verdict: str, type_: str = "") -> Mark:
    start, end = span(part)
    return Mark(start=start, end=end, verdict=verdict, type=type_)  # type: ignore[arg-type]


def note(*masks: tuple[str, str], repairs: Sequence[str] = ()) -> Note:
    spans = sorted((*span(part), type_) for part, type_ in masks)
    return Note("id", "s", "1", TEXT, tuple(Mask(*each, "[X]") for each in spans), tuple(Repair(*span(part), "") for part in repairs))


GOLD = (
    mark("Ann Smith", "right", "NAME"),
    mark("Bo", "missed", "NAME"),
    mark("7.38", "wrong"),
    mark("3/4/19", "right", "DATE"),
)


def counted(masks: Sequence[tuple[str, str]], marks: Sequence[Mark] = GOLD) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
    """Identifiers covered, masks judged, masks wrong; by type, those that are none left out."""
    score = score_note(note(*masks), marks)
    return dict(+score.covered), dict(score.masks), dict(+score.wrong)


def test_the_rules_of_the_day_are_measured_by_what_was_accepted_and_missed() -> None:
    masks = (("Ann Smith", "NAME"), ("7.38", "PHONE"), ("3/4/19", "DATE"))
    score = score_note(note(*masks), GOLD)
    assert score.identifiers == {"NAME": 2, "DATE": 1} and score.misses() and score.is_damaged()
    assert counted(masks) == ({"NAME": 1, "DATE": 1}, {"NAME": 1, "PHONE": 1, "DATE": 1}, {"PHONE": 1})
    assert score.words == 12


@pytest.mark.parametrize(
    ("masks", "covered", "wrong", "unjudged"),
    [
        ([("Ann Smith", "NAME"), ("Bo", "NAME"), ("3/4/19", "DATE")], 3, 0, 0),  # better rules
        ([("Ann", "NAME"), ("Smith", "NAME")], 1, 0, 0),  # the same letters in two masks
        ([("Ann Smith, called Bo", "NAME")], 2, 0, 1),  # a word that nobody judged
        ([("Smith", "NAME")], 0, 0, 0),  # a part is no identifier that is masked
        ([("Bell", "NAME")], 0, 0, 1),
        ([("pH 7.38", "PHONE")], 0, 1, 0),  # wider than what must stay
        ([], 0, 0, 0),
    ],
)
def test_later_rules_are_measured_by_the_same_marks(masks: list[tuple[str, str]], covered: int, wrong: int, unjudged: int) -> None:
    score = score_note(note(*masks), GOLD)
    assert (score.covered.total(), score.wrong.total(), score.unjudged) == (covered, wrong, unjudged)
    assert score.identifiers.total() == 3


def test_a_mask_that_is_too_wide_is_wrong_and_what_it_covers_is_masked() -> None:
    marks = [mark("Ann Smith, called", "wrong"), mark("Ann Smith", "missed", "NAME")]
    wide = score_note(note(("Ann Smith, called", "NAME")), marks)
    assert (wide.covered.total(), wide.wrong.total()) == (1, 1)
    exact = score_note(note(("Ann Smith", "NAME")), marks)
    assert (exact.covered.total(), exact.wrong.total(), exact.unjudged) == (1, 0, 0)


def test_identifiers_that_overlap_are_one_of_the_type_that_a_person_chose() -> None:
    score = score_note(note(("Ann", "FACILITY")), [mark("Ann", "right", "FACILITY"), mark("Ann Smith", "missed", "NAME")])
    assert score.identifiers == {"NAME": 1} and not score.covered.total() and score.mistyped == 1
    assert mask_states(note(("Ann", "FACILITY")), [mark("Ann", "right", "NAME")]) == ["right"]


def test_a_type_that_the_policy_keeps_is_no_identifier() -> None:
    score = score_note(note(("Ann Smith", "NAME")), [*GOLD, mark("Bell", "missed", "FACILITY")], kept={"FACILITY", "DATE"})
    assert score.identifiers == {"NAME": 2}


def test_a_repair_that_lost_clinical_text_is_damage_as_long_as_rules_make_it() -> None:
    lost = [mark("Bell palsy", "lost")]
    assert score_note(note(repairs=["Bell palsy"]), lost).is_damaged()
    assert not score_note(note(repairs=["called"]), lost).is_damaged()
    assert score_note(note(("Bell", "NAME")), lost).wrong.total() == 1


def scored(identifiers: int, covered: int, judged: int, wrong: int, words: int = 100) -> NoteScore:
    score = NoteScore(words)
    score.identifiers["NAME"], score.covered["NAME"] = identifiers, covered
    score.masks["NAME"], score.wrong["NAME"] = judged, wrong
    return score


def summary(*scores: NoteScore) -> Figures:
    return summarize(scores, date="2026-11-28", seed=1, rules="ab", data="cd")


def test_intervals_count_notes() -> None:
    figures = summary(scored(8, 6, 10, 2), scored(2, 2, 5, 0), scored(0, 0, 0, 0, words=200), scored(0, 0, 5, 0))
    low, high = wilson(0.8, 2)
    assert figures.recall[0] == Share(name="all", notes=2, total=10, count=8, share=0.8, low=low, high=high)
    low, high = wilson(0.1, 3)
    assert figures.damage[0] == Share(name="all", notes=3, total=20, count=2, share=0.1, low=low, high=high)
    low, high = wilson(0.25, 4)
    assert (figures.missed.count, figures.missed.share, figures.missed.low, figures.missed.high) == (1, 0.25, low, high)
    assert (figures.notes, figures.words, figures.damaged.count) == (4, 500, 1)
    rate = figures.wrong_per_1000_words
    assert rate.value == 4.0 and rate.low == 0.0 and 4.0 < rate.high <= 20.0
    assert metrics(figures)["site_recall_NAME"] == 0.8 and metrics(figures)["site_wrong_masks_per_1000_words"] == 4.0


def test_a_bootstrap_covers_a_true_rate() -> None:
    figures = summary(*(scored(1, 1, 2, int(i % 10 == 0)) for i in range(200)))
    rate = figures.wrong_per_1000_words
    assert rate.value == 1.0 and 0.5 < rate.low < 0.7 and 1.3 < rate.high < 1.6


def test_without_a_wrong_mask_the_upper_limit_is_not_zero() -> None:
    rate = summary(*(scored(1, 1, 2, 0) for _ in range(50))).wrong_per_1000_words
    assert (rate.value, rate.low) == (0.0, 0.0) and rate.high == round(1000 * wilson(0.0, 50)[1] / 100, 3)


def test_of_nothing_nothing_is_said() -> None:
    with pytest.raises(ValueError, match="no note is finished"):
        summary()
    figures = summary(scored(0, 0, 0, 0))
    assert "site_recall_all" not in metrics(figures)
    assert "recall not known of 0 identifiers" in list(sentences(figures))[1]
