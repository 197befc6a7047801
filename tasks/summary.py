"""What a run came to, for the terminal: the table, two answers side by side, the registered version and what to try next."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

TITLES = {"test": "Answer perplexity on held-out groups", "other": "Answer perplexity on text of another origin"}
MOST_CHARACTERS = 420
NEXT = """\
  python -m model.generate {checkpoint} --chat --prompt "What is arachnodactyly?"
  python -m tasks.lineage show {version}
  make ui"""


def show(checkpoint: Path, evaluation: Path, registration: dict[str, Any], console: Console) -> None:
    metrics, answers = (json.loads((evaluation / name).read_text(encoding="utf-8")) for name in ("metrics.json", "answers.json"))
    console.print()
    for split, rows in metrics.items():
        if rows:
            console.print(_table(TITLES[split], rows))
    for pair in answers[:2]:
        grid = Table(title=Text(f"\n{pair['prompt']}"), expand=True, show_lines=False, title_justify="left")
        grid.add_column("base", ratio=1)
        grid.add_column("tuned", ratio=1)
        grid.add_row(*(_cut(pair[role]) for role in ("base", "tuned")))
        console.print(grid)
    lines = [f"{name.removeprefix('dvc.'):30} {digest}" for name, digest in registration["digests"].items()]
    title = f"{registration['name']} version {registration['version']}" if registration["version"] else "not registered"
    console.print(Panel(Text("\n".join(lines)), title=title, title_align="left", highlight=False))
    version = f"{registration['name']}/{registration['version']}" if registration["version"] else f"{registration['name']}@champion"
    commands = NEXT.format(checkpoint=checkpoint, version=version)
    console.print("Not medical advice: a model of this size makes facts up. Try next:", commands, sep="\n\n", highlight=False, markup=False)


def _table(title: str, rows: dict[str, Any]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("kind", "documents", "tokens", "base", "tuned", "tuned / base"):
        table.add_column(column, justify="left" if column == "kind" else "right", no_wrap=True)
    for kind, row in rows.items():
        if kind == "all":
            table.add_section()
        perplexities = (f"{row[name]:.2f}" for name in ("base_perplexity", "tuned_perplexity", "ratio"))
        table.add_row(Text(kind), f"{row['documents']:,}", f"{row['tokens']:,}", *perplexities)
    return table


def _cut(text: str) -> Text:
    """The text as it is: what a model or a user wrote is no markup."""
    return Text(text if len(text) <= MOST_CHARACTERS else text[:MOST_CHARACTERS] + " …")
