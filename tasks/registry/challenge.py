"""Compares the challenger's scores with the champion's, and keeps what was decided as a numbered record.

The champion's stored scores serve where the same scorer scored the same items; else it is scored again on today's. Where it cannot be,
that is said, and it stays champion.
"""

import json
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.evaluation.findings import findings
from tasks.evaluation.metrics import current_name
from tasks.evaluation.scores import RENAMED_SPLITS, Score, read_scores
from tasks.registry.gate import Decision, Expected, decide
from tasks.registry.lineage.passport import compare_checkpoint, digests_of
from tasks.registry.params import GateParams
from tasks.runtime import html
from tasks.runtime.artifacts import ANSWERS, METRICS, SCORER, SCORES
from tasks.runtime.digests import sha256
from tasks.runtime.files import write_whole
from tasks.runtime.params import read_section

# 2: `created` and `files`, which were `made` and `beside`; the gate's files by the names that the version has.
DECISION_FORMAT = 2


@dataclass(frozen=True)
class Scored:
    """What a model is scored with and on, as validate takes it."""

    base: Path
    documents: Path
    cleaning: Path
    shards: Path


@dataclass(frozen=True)
class Challenge:
    """What was decided on an evaluation, and against which champion, if any."""

    decision: Decision
    champion: dict[str, Any] | None  # its version, and where its scores come from
    answers: dict[str, str | None]  # the champion's by prompt, as its own evaluation shows or withholds them


def challenge(client: Any, scored: Scored, evaluation: Path, params: GateParams, version: Any, folder: Path) -> Challenge:
    """Decide on an evaluation. ``version``: the challenger's, where it has one.

    The thresholds' results go to ``folder / "gate"``.
    """
    from tasks.registry import promotion, versions

    name = params.model_dump()["name"]
    challenger = read_scores(evaluation)
    expected = Expected(tuple(json.loads((evaluation / SCORER).read_bytes()).get("tasks", ())))
    number = versions.aliases(client, name).get(promotion.CHAMPION)
    if number is None:
        return Challenge(decide(challenger, None, params, folder / "gate", expected=expected), None, {})
    against: dict[str, Any] = {"version": int(number)}
    champion_scores, unknown, answers = None, "", {}
    if version is not None and str(version.version) == str(number):
        unknown = "it is this version itself"
    else:
        champion_version = client.get_model_version(name, str(number))
        try:
            _check_whole(client, champion_version)
            answers = _answers(client, champion_version)
            expected = replace(expected, measured=_measured(client, champion_version))
            champion_scores = _stored(client, champion_version, evaluation)
            against["scores"] = "stored with an evaluation on the same items"
            if champion_scores is None:
                champion_scores = rescored(scored, versions.artifact(client, champion_version.run_id, "checkpoint"), folder / "champion")
                against["scores"] = "scored again on today's items"
            champion_scores, left_out = _held_out(client, champion_version, champion_scores)
            if left_out:
                against["scores"] += f"; {left_out} that were in its train or validation split do not count"
        except (ValueError, OSError, RuntimeError) as error:
            unknown = f"version {number} cannot be loaded or scored any more ({error})"
    if unknown:
        against["scores"] = f"none: {unknown}"
    decision = decide(challenger, champion_scores, params, folder / "gate", expected=expected, unknown=unknown)
    return Challenge(decision, against, answers)


def rescored(scored: Scored, champion: Path, folder: Path) -> list[Score]:
    """The champion's scores on today's items."""
    from tasks.evaluation.params import ValidateParams
    from tasks.evaluation.run import evaluate

    params = read_section("validate", ValidateParams)
    print("register: the champion was scored on other items or by another scorer; it is scored again", flush=True)
    evaluate(scored.base, champion, scored.documents, scored.cleaning, scored.shards, folder, params)
    return read_scores(folder)


def _held_out(client: Any, champion: Any, scores: list[Score]) -> tuple[list[Score], int]:
    """Without the items that the champion may have been trained on, and how many those are: another seed, or a record that makes one
    group of two, may have moved them since. Of those that it did not come to, it may have learnt from others of their group."""
    from tasks.registry import promotion

    ids = {s.id for s in scores if s.split != "train"}
    exposure = promotion.seen_by(client, champion, ids) or {}
    moved = {key for key, seen in exposure.items() if seen.split in promotion.TRAINING}
    return [s for s in scores if s.split == "train" or s.id not in moved], len(moved)


def _check_whole(client: Any, champion: Any) -> None:
    """``ValueError`` where the champion's files are not those of its passport."""
    from tasks.registry import versions
    from tasks.registry.lineage import verification

    folder = versions.artifact(client, champion.run_id, "checkpoint")
    passport = verification.read(folder, version=champion, public_key=None)
    if wrong := [f for f in passport.findings if f.state == "differs"]:
        raise ValueError("; ".join(map(str, wrong)))
    if wrong := [f for f in compare_checkpoint(passport.document, folder, called="checkpoint") if f.state in ("differs", "absent")]:
        raise ValueError("; ".join(map(str, wrong[:3])))


def _stored(client: Any, champion: Any, evaluation: Path) -> list[Score] | None:
    """Scores that came with the champion and can be compared item by item, newest first; none where there are none."""
    from tasks.registry import promotion, versions

    scorer = (evaluation / SCORER).read_bytes()
    for number in range(promotion.latest_decision(client, champion)[0], 0, -1):
        try:
            document = versions.artifact(client, champion.run_id, f"decision-{number}.json")
            folder = versions.artifact(client, champion.run_id, f"evaluation-{number}" if number > 1 else "evaluation")
        except ValueError:
            continue
        listed = json.loads(document.read_text(encoding="utf-8"))["evaluation"]
        untouched = sha256(document) == champion.tags.get(f"decision.{number}.sha256") and all(
            sha256(folder / name) == listed[name] for name in (SCORER, SCORES)
        )
        if untouched and json.loads((folder / SCORER).read_bytes()) == json.loads(scorer):
            return read_scores(folder)
    return None


def _measured(client: Any, champion: Any) -> set[tuple[str, str]]:
    """Metric and split of all that the latest decision on the champion had before it."""
    from tasks.registry import promotion

    rows = promotion.latest_decision(client, champion)[1]["table"]
    return {(current_name(row["metric"]), RENAMED_SPLITS.get(row["split"], row["split"])) for row in rows}


def _answers(client: Any, champion: Any) -> dict[str, str | None]:
    """What the champion said when it was evaluated last; its own corpus decided then whether that may be shown."""
    from tasks.registry import promotion, versions

    number = promotion.latest_decision(client, champion)[0]
    folder = versions.artifact(client, champion.run_id, f"evaluation-{number}" if number > 1 else "evaluation")
    return {row["prompt"]: row["tuned"] for row in json.loads((folder / ANSWERS).read_bytes())}


def write_decision(folder: Path, number: int, decided: Challenge, evaluation: Path) -> Path:
    """``decision-<n>.json`` and the same as a page; the path of the former."""
    path = folder / f"decision-{number}.json"
    answers = json.loads((evaluation / ANSWERS).read_bytes())
    content = {
        "format": DECISION_FORMAT,
        "number": number,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "champion": decided.champion,
        **asdict(decided.decision),
        "findings": findings(json.loads((evaluation / METRICS).read_bytes())),
        "answers": [row | ({"champion": decided.answers.get(row["prompt"])} if decided.champion else {}) for row in answers],
        "evaluation": digests_of(evaluation),
    }
    page = path.with_suffix(".html")
    page.write_text(_PAGE.render(**content, titles=TITLES), encoding="utf-8")
    stored_as = "gate" if number == 1 else f"gate-{number}"
    gate = {f"{stored_as}/{name}": digest for name, digest in digests_of(folder / "gate").items()}
    write_whole(path, content | {"files": {page.name: sha256(page)} | gate})
    return path


TITLES = {
    "first": "There was no champion: it may become one.",
    "better": "Better than the champion: it may take its place.",
    "unclear": "Not shown to be good enough: nothing changes.",
    "refused": "Refused: it must not become champion.",
}
_PAGE = html.page(
    "Decision {{ number }}",
    """<h1>{{ titles[verdict] }}</h1>
<p>Decision {{ number }}, {{ created }}. {% if champion %}Champion: version {{ champion.version }}, {{ champion.scores }}.{% endif %}
<ul>{% for reason in reasons %}<li>{{ reason }}{% endfor %}</ul>
<h2>Worse, better, unclear</h2>
{% for name, listed in findings.items() %}
<h3 class="{{ name }}">{{ name }}</h3>
<ul>{% for sentence in listed %}<li>{{ sentence }}{% else %}<li>nothing{% endfor %}</ul>
{% endfor %}
{% macro interval(of) %}{{ "%.4f" | format(of.value) }} ({{ "%.4f" | format(of.low) }} to {{ "%.4f" | format(of.high) }}){% endmacro %}
{% if comparisons %}
<h2>Challenger less champion</h2>
<table><tr><th>metric<th>split<th>items<th>difference<th></tr>
{% for row in comparisons %}
<tr><td>{{ row.metric }}<td>{{ row.split or "all" }}<td class="n">{{ row["items"] }}<td class="n">
{{- interval(row.difference) if row.difference }}<td>{{ row.judgement }}</tr>
{% endfor %}
</table>
{% endif %}
<h2>Base and tuned</h2>
<table><tr><th>metric<th>split<th>items<th>base<th>tuned<th>tuned less base</tr>
{% for row in table %}
<tr><td>{{ row.metric }}<td>{{ row.split }}<td class="n">{{ row["items"] }}<td class="n">{{ interval(row.base) }}
<td class="n">{{ interval(row.tuned) }}<td class="n">{{ interval(row.change) }}</tr>
{% endfor %}
</table>
{% if answers %}
<h2>Answers to the prompts</h2>
{% for row in answers %}
<h3>{{ row.prompt }}</h3>
<dl>
{% for role in ("base", "tuned", "champion") if role in row %}<dt>{{ role }}<dd>{{ row[role] or "(withheld or not asked)" }}
{% endfor %}
</dl>
{% endfor %}
{% endif %}
<p>Intervals are at 95 %, by the bootstrap over groups of items (the notes of a patient), paired for differences between models.</p>
""",
    style="""dt { font-weight: 600 } dd { margin: 0 0 .5rem; white-space: pre-wrap }""",
)
