"""The audit trail as a page: whether it is whole, who was champion when, and every entry. Complete in itself, without scripts."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from tasks.registry import hash_chain
from tasks.runtime import html

REGISTRY = "registry"  # the trail of the registered model; others are serving logs, by their paths
# What the verbs of entries mean to people.
VERBS = {
    "register": "version registered",
    "configure": "gate's params changed",
    "sign-off": "signed off",
    "promote": "made champion",
    "rollback": "no longer champion",
    "taint": "saw withdrawn records",
    "spare": "had withdrawn records in its splits and did not see them",
    "serve": "began to answer",
    "stop": "takes no more requests",
    "refuse": "not served",
    "object": "answers against the registry's word",
}


def page(name: str, trails: Mapping[str, Mapping[int, str]]) -> str:
    """The page of a registered model as HTML. ``trails``: entries by their numbers as they are stored, of each trail by its name."""
    shown = []
    for trail, numbered in trails.items():
        rows = [{"number": number, "sha256": hash_chain.sha256(text), **_event(text)} for number, text in numbered.items()]
        shown.append({"name": trail, "rows": rows[::-1], "problems": list(hash_chain.problems(numbered))})
    events = [event for text in trails.get(REGISTRY, {}).values() if (event := _event(text))]
    written = datetime.now(UTC).isoformat(timespec="seconds")
    return _PAGE.render(name=name, written=written, trails=shown, champions=list(_champions(events))[::-1], verbs=VERBS)


def _event(text: str) -> dict[str, Any]:
    """An entry; empty for what is none."""
    try:
        event = json.loads(text)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _champions(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Who was champion from when until when, oldest first; the present one has no end."""
    line: list[dict[str, Any]] = []
    present: dict[str, Any] | None = None
    for event in events:
        if event.get("verb") not in ("promote", "rollback"):
            continue
        if present:
            yield present | {"until": event["when"]}
        if event["verb"] == "promote":
            line.append(event)
        elif line:
            line.pop()
        present = {"version": line[-1]["version"], "since": event["when"], "who": event["who"], "why": event["why"]} if line else None
    if present:
        yield present | {"until": ""}


_PAGE = html.page(
    "Audit trail of {{ name }}",
    """<h1>Audit trail of {{ name }}</h1>
<p>Written {{ written }}. Every entry holds the SHA-256 of the one before, so a removed, changed or reordered one shows. Whether the end
was removed, or the whole written anew, only a last digest shows that was noted elsewhere: <code>audit verify --head</code>.</p>
{% for trail in trails %}
<p class="{{ "worse" if trail.problems else "better" }}"><b>{{ trail.name }}</b>:
{% if trail.problems %}{{ trail.problems | join("; ") }}{% else %}{{ trail.rows | length }} entries, each follows the one before{% endif %}
{% if trail.rows %}<br>last digest <code>{{ trail.rows[0].sha256 }}</code>{% endif %}</p>
{% endfor %}
{% if champions %}
<h2>Champions</h2>
<table><tr><th>version<th>since<th>until<th>by<th>why</tr>
{% for one in champions %}
<tr><td>{{ one.version }}<td class="t">{{ one.since }}<td class="t">{{ one.until or "now" }}<td>{{ one.who }}<td>{{ one.why }}</tr>
{% endfor %}
</table>
{% endif %}
{% for trail in trails %}
<h2>{{ "Registry" if trail.name == "registry" else "Served: " + trail.name }}</h2>
<table><tr><th>entry<th>when<th>what<th>version<th>who<th>why<th>evidence<th>commit<th>its digest</tr>
{% for row in trail.rows %}
<tr><td class="n">{{ row.number }}<td class="t">{{ row.when }}<td>{{ verbs.get(row.verb, row.verb or "no entry") }}
<td>{{ (row.model + " ") if row.model }}{{ row.version if row.version is not none }}<td>{{ row.who }}<td>{{ row.why }}
<td><code title="{{ row.evidence }}">{{ (row.evidence or "")[:12] }}</code><td><code>{{ (row.commit or "")[:12] }}</code>
<td><code title="{{ row.sha256 }}">{{ row.sha256[:12] }}</code></tr>
{% else %}
<tr><td colspan="9">no entries</tr>
{% endfor %}
</table>
{% endfor %}
""",
    style="""body { max-width: 84rem } td { overflow-wrap: anywhere; min-width: 4rem } td.t, td code { white-space: nowrap }""",
)
