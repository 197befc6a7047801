"""Gates on data: Great Expectations suites, run, redacted and rendered. The only importer of great_expectations.

Its results and pages hold values of records; only counts leave this module. Its pages load styles from other hosts; those
links are taken out and a style sheet of our own stands in.
"""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import great_expectations as gx
import great_expectations.expectations as gxe
import pandas as pd
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.view import DefaultJinjaPageView

from tasks.documents import SPLITS, Document
from tasks.record import write_whole

# Keys of a result that hold values of records, whatever the result format.
VALUES = re.compile(r"^(partial_)?unexpected_(list|counts|index_list|rows|index_query)$|^details$|^partial_unexpected")
NOTHING_RAISED = {"raised_exception": False, "exception_traceback": None, "exception_message": None}
# Characters that cleaning removes; one that is still there means that cleaning failed.
HIDDEN = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff\ufffd]"


@dataclass(frozen=True)
class Gate:
    """The result of one suite: counts only."""

    name: str
    passed: int
    failed: tuple[str, ...]


def clean_documents(documents: Sequence[Document], *, min_answer: int, max_answer: int) -> tuple[pd.DataFrame, list[gxe.Expectation]]:
    """The suite for what preprocess hands on: structure, lengths, hidden characters, and groups that stay in one split."""
    frame = pd.DataFrame(
        {
            "id": [d.id for d in documents],
            "question": [d.question for d in documents],
            "answer": [d.answer for d in documents],
            "split": [d.split for d in documents],
            "group": [d.group for d in documents],
            "kind": [d.kind for d in documents],
            "position": [d.position for d in documents],
        }
    )
    frame["splits_of_group"] = frame.groupby("group")["split"].transform("nunique")
    suite: list[gxe.Expectation] = [
        gxe.ExpectTableRowCountToBeBetween(min_value=1),
        gxe.ExpectColumnValuesToBeUnique(column="id"),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["question", "answer"]),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS)),
        gxe.ExpectColumnValuesToBeBetween(column="splits_of_group", min_value=1, max_value=1),
        gxe.ExpectColumnValueLengthsToBeBetween(column="answer", min_value=min_answer, max_value=max_answer),
        gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=["train", "validation", "test"]),
    ]
    for column in ("id", "answer", "kind", "group", "position"):
        suite.append(gxe.ExpectColumnValuesToNotBeNull(column=column))
        suite.append(gxe.ExpectColumnValueLengthsToBeBetween(column=column, min_value=1))
    for column in ("question", "answer"):
        suite.append(gxe.ExpectColumnValuesToNotMatchRegex(column=column, regex=HIDDEN))
        suite.append(gxe.ExpectColumnValuesToNotMatchRegex(column=column, regex=r"^\s*(nan|NaN|N/A|null|None)\s*$"))
    return frame, suite


def check(name: str, frame: pd.DataFrame, expectations: Sequence[gxe.Expectation], report: Path) -> Gate:
    """Run a suite and write ``<name>.json`` and ``<name>.html`` into ``report``, both without any value of a record."""
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)  # its warnings quote values
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=list(expectations)))
    batch = context.data_sources.add_pandas("memory").add_dataframe_asset(name).add_batch_definition_whole_dataframe(name)
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=suite))
    result = definition.run(batch_parameters={"dataframe": frame}, result_format="SUMMARY")
    _redact(result)
    report.mkdir(parents=True, exist_ok=True)
    write_whole(report / f"{name}.json", _stable(result.to_json_dict()))
    (report / f"{name}.html").write_text(_page(result), encoding="utf-8")
    failed = tuple(_describe(r) for r in result.results if not r.success)
    return Gate(name, len(result.results) - len(failed), failed)


def _redact(result: ExpectationSuiteValidationResult) -> None:
    for outcome in result.results:
        for key in [k for k in outcome.result if VALUES.search(k)]:
            del outcome.result[key]
        if isinstance(outcome.result.get("observed_value"), str | list):
            del outcome.result["observed_value"]
        if outcome.exception_info != NOTHING_RAISED:
            # A message may quote a value; that something went wrong is said by the outcome.
            outcome.exception_info = {"raised_exception": True}


def _stable(result: dict[str, Any]) -> dict[str, Any]:
    """Without ids and times of the run, so that equal data gives an equal report."""
    meta = result.get("meta", {})
    for key in ("run_id", "validation_time", "batch_markers", "validation_id", "checkpoint_id"):
        meta.pop(key, None)
    result.pop("id", None)
    for outcome in result.get("results", []):
        outcome.get("expectation_config", {}).pop("id", None)
    return result


def _describe(outcome: Any) -> str:
    config = outcome.expectation_config
    column = config.kwargs.get("column") or ", ".join(config.kwargs.get("column_list", []))
    count = outcome.result.get("unexpected_count")
    return f"{config.type}{f' ({column})' if column else ''}" + (f": {count} records" if count else "")


def _page(result: ExpectationSuiteValidationResult) -> str:
    html = DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=True).render(result))
    html = re.sub(r"<script\b.*?</script>", "", html, flags=re.S)
    html = re.sub(r"<link\b[^>]*>", "", html)
    html = re.sub(r"<(img|iframe|source)\b[^>]*>", "", html)
    html = re.sub(r'(href|src)="(https?://|//|\.\.)[^"]*"', "", html)  # also links to pages that do not exist here
    html = re.sub(r"\d{4}-?\d\d-?\d\dT[\d:.]+Z", "", html)  # the time of the run, so that equal data gives an equal page
    html = re.sub(r"@import[^;]*;|url\([^)]*\)", "", html)
    return html.replace("</head>", f"<style>{STYLE}</style></head>", 1)


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; background: #fff }
table { border-collapse: collapse; width: 100%; margin: .5rem 0 } td, th { border: 1px solid #ddd; padding: .3rem .6rem; text-align: left }
.badge { border: 1px solid #bbb; border-radius: .3rem; padding: 0 .3rem } ul { padding-left: 1.2rem }
.text-success { color: #1a7f37 } .text-danger { color: #c62828 }
.fas { font-style: normal } .fa-check-circle::before { content: "✓ passed" } .fa-times::before { content: "✗ failed" }
.navbar, .card, .modal, .sticky, footer, button { display: none }
"""
