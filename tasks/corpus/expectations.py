"""Gates on data: Great Expectations suites, run, redacted and rendered. The only importer of great_expectations.

They look at tables of row metrics (row_metrics.py), never at text. Results could still hold values of a column, such as names of files;
only counts leave this module. Great Expectations' pages load styles from other hosts; those links are taken out and replaced by a style
sheet of our own.
"""

import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import great_expectations as gx
import great_expectations.expectations as gxe
from great_expectations.core import ExpectationSuiteValidationResult
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.expectations.metadata_types import FailureSeverity
from great_expectations.expectations.registry import register_renderer
from great_expectations.render import LegacyDiagnosticRendererType, RenderedStringTemplateContent
from great_expectations.render.renderer import ValidationResultsPageRenderer
from great_expectations.render.renderer.renderer import renderer
from great_expectations.render.view import DefaultJinjaPageView

from tasks.corpus.documents import SPLITS
from tasks.corpus.row_metrics import Gate, RowMetrics, read_row_metrics, to_table
from tasks.runtime import html
from tasks.runtime.files import write_whole

# Keys of a result that hold values of a column, whatever the result format.
VALUES = re.compile(r"^(partial_)?(unexpected|missing)_(list|counts|index_list|rows|index_query)$|^details$|^partial_unexpected")
NOTHING_RAISED = {"raised_exception": False, "exception_traceback": None, "exception_message": None}
WARN, FAIL = FailureSeverity.WARNING, FailureSeverity.CRITICAL
SuiteName = Literal["raw-records", "clean-documents", "augmented-documents", "sharded-documents"]


def raw_records() -> list[gxe.Expectation]:
    """What raw records should be like: violations only warn, since cleaning repairs or rejects such records."""
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, severity=FAIL),
        *(_none_is(flag, mostly=0.99, severity=WARN) for flag in ("hidden_characters", "html", "mojibake", "control_tokens")),
        *(_none_is(flag, mostly=0.999, severity=WARN) for flag in ("empty_value", "asks_nothing", "answer_is_a_question")),
        _none_is("suspect_numbers", mostly=0.999, severity=WARN),
        _none_is("link_list", mostly=0.99, severity=WARN),
        _none_is("lost_characters", mostly=0.95, severity=WARN),
        _none_is("site_chrome", mostly=0.95, severity=WARN),
        gxe.ExpectColumnValuesToBeBetween(column="answer_words", min_value=10, max_value=5000, mostly=0.95, severity=WARN),
        gxe.ExpectColumnValuesToBeUnique(column="id", mostly=0.99, severity=WARN),
    ]


def clean_documents(*, min_answer: int, max_answer: int) -> list[gxe.Expectation]:
    """What must hold for the documents that are handed on."""
    nothing = ("hidden_characters", "empty_value", "asks_nothing", "answer_is_a_question", "link_list", "suspect_numbers")
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, severity=FAIL),
        gxe.ExpectColumnValuesToBeUnique(column="id", severity=FAIL),
        gxe.ExpectColumnValuesToBeUnique(column="content", severity=FAIL),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=list(SPLITS), severity=FAIL),
        gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=["train", "validation", "test"], severity=FAIL),
        gxe.ExpectColumnValuesToBeBetween(column="splits_of_group", min_value=1, max_value=1, severity=FAIL),
        gxe.ExpectColumnValuesToBeBetween(column="answer_chars", min_value=min_answer, max_value=max_answer, severity=FAIL),
        *(gxe.ExpectColumnValuesToNotBeNull(column=column, severity=FAIL) for column in ("id", "category", "source", "split", "content")),
        *(_none_is(flag, severity=FAIL) for flag in nothing),
        _none_is("html", mostly=0.999, severity=WARN),
        _none_is("mojibake", mostly=0.999, severity=WARN),
        _none_is("lost_characters", mostly=0.95, severity=WARN),
    ]


def augmented_documents() -> list[gxe.Expectation]:
    """What must hold for variants: each of a train document that exists, another text than it, with a method."""
    return [
        gxe.ExpectColumnValuesToBeUnique(column="id", severity=FAIL),
        gxe.ExpectColumnValuesToNotBeNull(column="method", severity=FAIL),
        gxe.ExpectColumnValuesToBeInSet(column="split", value_set=["train"], severity=FAIL),
        _none_is("without_parent", severity=FAIL),
        _none_is("same_as_parent", severity=FAIL),
        _none_is("other_group", severity=FAIL),
        _none_is("changed_facts", severity=FAIL),
        gxe.ExpectColumnValuesToBeBetween(column="copies_of_parent", min_value=1, max_value=4, mostly=0.999, severity=WARN),
    ]


def sharded_documents(*, vocabulary: int) -> list[gxe.Expectation]:
    """What must hold for tokenized documents."""
    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, severity=FAIL),
        gxe.ExpectColumnValuesToBeUnique(column="id", severity=FAIL),
        gxe.ExpectColumnValuesToBeBetween(column="tokens", min_value=2, severity=FAIL),
        gxe.ExpectColumnValuesToBeBetween(column="tokens", max_value=4096, mostly=0.99, severity=WARN),
        gxe.ExpectColumnValuesToBeBetween(column="supervised", min_value=1, severity=FAIL),
        gxe.ExpectColumnValuesToBeBetween(column="largest_token", min_value=0, max_value=vocabulary - 1, severity=FAIL),
        gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=["train", "validation", "test"], severity=FAIL),
        # Fewer than one byte or more than eight per token: a tokenizer that does not fit the text.
        gxe.ExpectColumnValuesToBeBetween(column="bytes_per_token", min_value=1.5, max_value=12, mostly=0.98, severity=WARN),
    ]


def _none_is(flag: str, *, severity: FailureSeverity, mostly: float = 1.0) -> gxe.Expectation:
    return gxe.ExpectColumnValuesToBeInSet(column=flag, value_set=[0], mostly=mostly, severity=severity)


SUITES: dict[SuiteName, Callable[..., list[gxe.Expectation]]] = {
    "raw-records": raw_records,
    "clean-documents": clean_documents,
    "augmented-documents": augmented_documents,
    "sharded-documents": sharded_documents,
}


def check_files(name: SuiteName, files: Sequence[Path], work: Path, report: Path, options: dict[str, Any]) -> Gate:
    """``check`` with the suite of a name, made with ``options``, over files of row metrics."""
    return check(name, read_row_metrics(files), SUITES[name](**options), work, report)


def check(name: str, rows: Iterable[RowMetrics], suite: Sequence[gxe.Expectation], work: Path, report: Path) -> Gate:
    """Run a suite over a table of row metrics, built in ``work``, and write ``<name>.json`` and ``<name>.html`` into ``report``.

    ``ValueError`` where there are no rows: nothing to check is nothing that passed.
    """
    if not to_table(rows, table := work / f"{name}.sqlite"):
        raise ValueError(f"there are no records for the suite {name}")
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)  # its warnings quote values
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    expected = context.suites.add(gx.ExpectationSuite(name=name, expectations=list(suite)))
    # Great Expectations takes no blank in an address; the project's path may have one.
    source = context.data_sources.add_sqlite("facts", connection_string=f"sqlite:///{os.path.relpath(table)}")
    batch = source.add_table_asset(name, table_name="records").add_batch_definition_whole_table(name)
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=expected))
    result = definition.run(result_format="SUMMARY")
    table.unlink()
    missing = {id(outcome): _missing_values(outcome) for outcome in result.results}
    _redact(result)
    report.mkdir(parents=True, exist_ok=True)
    write_whole(report / f"{name}.json", _stable(result.to_json_dict()))
    (report / f"{name}.html").write_text(_page(result), encoding="utf-8")
    missed = [r for r in result.results if not r.success]
    warned, failed = (tuple(_describe(r, missing[id(r)]) for r in missed if (_severity(r) == FAIL) is fatal) for fatal in (False, True))
    return Gate(name, len(result.results) - len(missed), warned, failed)


def _severity(outcome: Any) -> FailureSeverity:
    return FailureSeverity(outcome.expectation_config.severity)


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


# What a miss means, by the column that is looked at; every sentence begins with a number of records.
SENTENCES = {
    "id": "have the id of another record, as the same text twice has, or none",
    "content": "say the same as another, word for word",
    "split": "are in a split that there is not",
    "splits_of_group": "are of a group that is in more than one split; look at the column split, or name a wider group",
    "answer_chars": "have an answer that is shorter or longer than preprocess.min_answer_chars and max_answer_chars allow",
    "answer_words": "have an answer of under 10 or over 5,000 words",
    "category": "have no category",
    "source": "have no source",
    "hidden_characters": "have characters that are not seen",
    "empty_value": "have a question or an answer that stands for no value",
    "asks_nothing": "have a question about nothing",
    "answer_is_a_question": "have an answer that is only a question",
    "link_list": "have an answer that is only a list of links",
    "suspect_numbers": "have numbers or units that look corrupted",
    "html": "have HTML in their text",
    "mojibake": "have wrongly decoded characters; set the encoding in preprocess.files",
    "control_tokens": "have a chat template's control tokens in their text",
    "lost_characters": "have words that lost an apostrophe or an accent",
    "site_chrome": "have words of a web page's frame",
    "method": "are variants without a method",
    "without_parent": "are variants of a document that is not in train",
    "same_as_parent": "are variants that say the same as their original",
    "other_group": "are variants of another group than their original",
    "changed_facts": "are variants that state other facts than their original",
    "copies_of_parent": "are more variants of one document than there may be",
    "tokens": "are shorter than two tokens or longer than 4,096",
    "supervised": "have no token with loss",
    "largest_token": "have a token that the tokenizer does not have",
    "bytes_per_token": "have so few or many bytes per token that the tokenizer may not fit their text",
}


def _describe(outcome: Any, missing: Sequence[str] = ()) -> str:
    """What an expectation missed, as a sentence with its column in brackets; counts only."""
    config = outcome.expectation_config
    column = config.kwargs.get("column") or ", ".join(config.kwargs.get("column_list", []))
    count = outcome.result.get("unexpected_count")
    if missing:
        return (
            f"no document is left in {' and '.join(missing)}, perhaps as all were duplicates; add data, or raise "
            "preprocess.test_share and validation_share (split)"
        )
    if config.type == "expect_table_row_count_to_be_between":
        return "there are no records"
    if column in SENTENCES and count:
        return f"{count:,} records {SENTENCES[column]} ({column})"
    return f"{config.type}{f' ({column})' if column else ''}" + (f": {count} records" if count else "")


def _missing_values(outcome: Any) -> list[str]:
    """Of a set of values that must all be there, those that are not; our own names of splits, and no record's."""
    if outcome.success or outcome.expectation_config.type != "expect_column_distinct_values_to_contain_set":
        return []
    observed = outcome.result.get("observed_value") or []
    return [value for value in outcome.expectation_config.kwargs["value_set"] if value not in observed]


@renderer(renderer_type=LegacyDiagnosticRendererType.STATUS_ICON)
def _status_icon(result: Any = None, **_: Any) -> RenderedStringTemplateContent:
    """What an expectation's row begins with. Great Expectations' own shows a miss that only warns as a failure."""
    icon = "passed" if result.success else "failed" if _severity(result) == FAIL else "warned"
    template = {"template": "$icon", "params": {"icon": ""}, "styling": {"params": {"icon": {"tag": "i", "classes": [icon]}}}}
    return RenderedStringTemplateContent(content_block_type="string_template", string_template=template)


def _page(result: ExpectationSuiteValidationResult) -> str:
    for kind in {config.type for outcome in result.results if (config := outcome.expectation_config)}:
        register_renderer(kind, gxe.Expectation, _status_icon)
    page = DefaultJinjaPageView().render(ValidationResultsPageRenderer(run_info_at_end=True).render(result))
    failed = any(not outcome.success and _severity(outcome) == FAIL for outcome in result.results)
    state = "failed" if failed else "passed" if result.success else "warned"
    page = re.sub(r'<i class="fas [^"]*"[^>]*></i>\s*(Succeeded|Failed)', f'<i class="{state}"></i>', page)
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.S)
    page = re.sub(r"<link\b[^>]*>", "", page)
    page = re.sub(r"<(img|iframe|source)\b[^>]*>", "", page)
    page = re.sub(r'(href|src)="(https?://|//|\.\.)[^"]*"', "", page)  # also links to pages that do not exist here
    page = re.sub(r"\d{4}-?\d\d-?\d\dT[\d:.]+Z", "", page)  # the time of the run, so that equal data gives an equal page
    page = re.sub(r"@import[^;]*;|url\([^)]*\)", "", page)
    return page.replace("</head>", f"<style>{html.STYLE}{STYLE}</style></head>", 1)


# What Great Expectations' pages need besides the common style.
STYLE = """
.badge { border: 1px solid #bbb; border-radius: .3rem; padding: 0 .3rem } ul { padding-left: 1.2rem }
i { font-style: normal } .passed { color: #1a7f37 } .warned { color: #8a5a00 } .failed { color: #c62828 }
.passed::before { content: "✓ passed" } .warned::before { content: "! warned" } .failed::before { content: "✗ failed" }
.navbar, .card, .modal, .sticky, footer, button { display: none }
"""
