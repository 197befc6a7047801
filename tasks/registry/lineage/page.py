"""A version's lineage as a page: a picture of its stages and, below it, the tree with digests, times, counts and gates.

Complete in itself; made from the passport alone.
"""

from collections.abc import Mapping
from typing import Any

from tasks.corpus.annotation import figures
from tasks.registry.lineage.tree import MEANING, Node, about, ancestry
from tasks.runtime import html

WIDE, HIGH, GAP, ROW = 196, 58, 52, 84  # of a box, between columns, between rows


def page(name: str, document: Mapping[str, Any], runs: Mapping[str, str]) -> str:
    """The page as HTML. ``document``: the passport; ``runs``: by stage what the tracking store says of its run."""
    trees = ancestry(document)
    shown: set[str] = set()

    def again(node: Node) -> bool:
        """Whether a node stood there before."""
        repeated = node.path in shown
        shown.add(node.path)
        return repeated

    return _PAGE.render(
        name=name,
        code=document["code"],
        picture=_picture(trees, document),
        trees=trees,
        about=lambda node: about(document, node, runs),
        again=again,
        meaning=MEANING,
        annotation=figures.section(figures.Figures.model_validate(stated)) if (stated := document.get("annotation")) else "",
    )


def _picture(trees: list[Node], document: Mapping[str, Any]) -> str:
    nodes: dict[str, Node] = {}
    edges: set[tuple[str, str]] = set()

    def collect(node: Node) -> int:
        """How many steps a node is from raw files."""
        nodes[node.path] = node
        edges.update((child.path, node.path) for child in node.children)
        depth = 1 + max((collect(child) for child in node.children), default=-1)
        columns[node.path] = depth
        return depth

    columns: dict[str, int] = {}
    for tree in trees:
        collect(tree)
    rows: dict[str, int] = {}
    for path, column in sorted(columns.items(), key=lambda item: item[1]):
        rows[path] = sum(columns[other] == column for other in rows)
    position = {path: (10 + columns[path] * (WIDE + GAP), 10 + rows[path] * ROW) for path in nodes}
    boxes = []
    for path, node in nodes.items():
        started = document["stages"][node.stage]["started"][:16].replace("T", " ") if node.stage else "data.dvc"
        boxes.append({"x": position[path][0], "y": position[path][1], "lines": [MEANING.get(path, path), started, node.digest[:12]]})
    paths = []
    for source, target in sorted(edges):
        x, y = position[source][0] + WIDE, position[source][1] + HIGH / 2
        u, v = position[target][0], position[target][1] + HIGH / 2
        skips = columns[target] - columns[source] > 1
        bow = (1 + max(rows.values())) * ROW if skips and y == v else (y + v) / 2
        paths.append(
            f"M{x},{y} C{x + GAP},{bow} {u - GAP},{bow} {u},{v}" if skips else f"M{x},{y} C{x + GAP / 2},{y} {u - GAP / 2},{v} {u},{v}"
        )
    size = (20 + (1 + max(columns.values())) * (WIDE + GAP) - GAP, 20 + (1.4 + max(rows.values())) * ROW)
    return _SVG.render(boxes=boxes, paths=paths, width=size[0], height=size[1], wide=WIDE, high=HIGH)


_SVG = html.ENVIRONMENT.from_string("""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ width }} {{ height }}" role="img">
<title>What was made from what</title>
<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">
<path d="M0,0 L8,4 L0,8 z" fill="#666"/></marker></defs>
{% for path in paths %}
<path d="{{ path }}" fill="none" stroke="#666" marker-end="url(#end)"/>
{% endfor %}
{% for box in boxes %}
<rect x="{{ box.x }}" y="{{ box.y }}" width="{{ wide }}" height="{{ high }}" rx="6" fill="#eef3f9" stroke="#4a7ab5"/>
{% for line in box.lines %}
<text x="{{ box.x + 10 }}" y="{{ box.y + 17 + 16 * loop.index0 }}" font-size="{{ 13 if loop.first else 11 }}"
 font-weight="{{ 600 if loop.first else 400 }}" font-family="system-ui, sans-serif" fill="#222">{{ line }}</text>
{% endfor %}
{% endfor %}
</svg>""")
_PAGE = html.page(
    "Lineage of {{ name }}",
    """<h1>Lineage of {{ name }}</h1>
<p>Code: commit <code>{{ code.commit }}</code>{{ ", with uncommitted changes" if code.dirty == "true" }}. Digests are DVC's; those of every
file stand in passport.json.</p>
<div class="pictures">{{ picture | safe }}</div>
{% macro branch(node) %}
<li><b>{{ meaning.get(node.path, node.path) }}</b> {{ node.path }} <code>{{ node.digest }}</code>
{% if again(node) %}(as above)</li>
{% else %}
{% for sentence in about(node) %}<small>{{ sentence }}</small>{% endfor %}
{% if node.children %}<ul>{% for child in node.children %}{{ branch(child) }}{% endfor %}</ul>{% endif %}</li>
{% endif %}
{% endmacro %}
<ul>{% for tree in trees %}{{ branch(tree) }}{% endfor %}</ul>
{{ annotation | safe }}
""",
    style="""body { max-width: 76rem } .pictures > svg { width: 100%; min-width: 70rem }
code { font-size: .85em; color: #555; overflow-wrap: anywhere }
small { display: block; color: #444 }
ul { border-left: 2px solid #c8d6e8; list-style: none; padding-left: 1.1rem; margin: .2rem 0 .8rem }
@media (max-width: 44rem) { ul { padding-left: .5rem } }""",
)
