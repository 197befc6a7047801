"""The result of a run, for the terminal: the tables, two answers side by side, the registered version and what to try next."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tasks.evaluation.findings import findings

EXTRACTION = {"test": "Values extracted from notes of patients that training never saw", "ood": "The same of another hospital"}
# Metric of the base and the tuned model, that of the base model with examples, and how it is called.
EXTRACTED = (
    ("field_f1", "field_f1_few_shot", "F1, of all fields"),
    ("hallucinated", "hallucinated_few_shot", "stated nowhere in the note, of those given"),
    ("parsed", "parsed_few_shot", "answers that parse"),
)
TITLES = {"test": "Answer perplexity on held-out groups", "ood": "Answer perplexity on text of another origin"}
COLOURS = {"worse": "bold red", "better": "green", "unclear": "default"}
WITHHELD = "withheld: not every source of the training text is public"
MAX_CHARACTERS = 420
NEXT = """\
  make chat    # the base and the tuned model side by side, on a page
  python -m tasks.registry show {version}
  make ui"""


def show(evaluation: Path, registration: dict[str, Any], trained: str, annotation: Iterable[str], console: Console) -> None:
    """``trained``: how much the model saw, in words; ``annotation``: recall and damage on the site's own notes, in sentences."""
    metrics, answers = (json.loads((evaluation / name).read_text(encoding="utf-8")) for name in ("metrics.json", "answers.json"))
    console.print()
    for split, title in EXTRACTION.items():
        if "field_f1" in metrics.get(split, {}).get("all", {}):
            console.print(_extraction_table(title, metrics[split]["all"]))
    for split, title in TITLES.items():
        if split in metrics:
            console.print(_table(title, metrics[split]))
    console.print(Text(f"All numbers, with what is uncertain about them: {evaluation / 'report.html'}"))
    for pair in answers[:2]:
        grid = Table(title=Text(f"\n{pair['prompt']}"), expand=True, show_lines=False, title_justify="left")
        grid.add_column("base", ratio=1)
        grid.add_column("tuned", ratio=1)
        grid.add_row(*(_cut(WITHHELD if pair[role] is None else pair[role]) for role in ("base", "tuned")))
        console.print(grid)
    lines = [f"{name.removeprefix('dvc.'):30} {digest}" for name, digest in registration["digests"].items()]
    title = f"{registration['name']} version {registration['version']}" if registration["version"] else "not registered"
    console.print(Panel(Text("\n".join(lines)), title=title, title_align="left", highlight=False))
    number = f"/{registration['version']}" if registration["version"] else "@champion"
    version = f"models:/{registration['name']}{number}"
    console.print(Text(f"The model was {trained}."))
    for sentence in annotation:
        console.print(Text(f"{sentence[0].upper()}{sentence[1:]}."))
    for name, listed in findings(metrics).items():
        console.print(Text(f"{name.capitalize()}: {'' if listed else 'nothing'}".rstrip(), style=COLOURS[name]))
        for sentence in listed:
            console.print(Text(f"  {sentence}", style=COLOURS[name]))
    if decision := registration["decision"]:
        console.print(Text(f"Decision: {decision['verdict']}, {decision['outcome']}"))
        for reason in decision["reasons"]:
            console.print(Text(f"  {reason}"))
    commands = NEXT.format(version=version)
    console.print("Not medical advice: a model of this size makes facts up. Try next:", commands, sep="\n\n", highlight=False, markup=False)


def _extraction_table(title: str, rows: dict[str, Any]) -> Table:
    notes = rows["field_f1"]
    table = Table(title=f"{title} ({notes['items']:,} notes, {notes['groups']:,} patients)", title_justify="left")
    for column in ("", "base", "base, examples", "tuned"):
        table.add_column(column, justify="right" if column else "left")
    for metric, few_shot, name in EXTRACTED:
        examples = _percent(rows[few_shot]["base"]) if few_shot in rows else ""
        table.add_row(name, _percent(rows[metric]["base"]), examples, _percent(rows[metric]["tuned"]))
    return table


def _percent(of: dict[str, float]) -> str:
    spread = f" ({100 * of['low']:.0f}-{100 * of['high']:.0f})" if "low" in of else ""
    return f"{100 * of['value']:.0f} %{spread}"


def _table(title: str, parts: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("category", "documents", "tokens", "base", "tuned", "tuned / base"):
        table.add_column(column, justify="left" if column == "category" else "right", no_wrap=True)
    for category, rows in [*parts["category"].items(), ("all", parts["all"])]:
        if category == "all":
            table.add_section()
        row = rows["answer_nll"]
        base, tuned = row["perplexity"]["base"], row["perplexity"]["tuned"]
        ratio = {name: f"{math.exp(value):.2f}" for name, value in row["change"].items()}
        spread = f" ({ratio['low']}-{ratio['high']})" if "low" in ratio else ""
        table.add_row(
            Text(category), f"{row['items']:,}", f"{row['weight']:,.0f}", f"{base:.2f}", f"{tuned:.2f}", f"{ratio['value']}{spread}"
        )
    return table


def _cut(text: str) -> Text:
    """The text as it is: what a model or a user wrote is no markup."""
    return Text(text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + " …")
