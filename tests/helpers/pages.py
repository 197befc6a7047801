"""What pages show of the project's output."""

import re

from helpers.project import ROOT


def shown_outputs(page: str, heading: str) -> list[list[str]]:
    """The parts of each output that a page shows below a heading of the second level, between the signs for what is left out."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    below = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    outputs = re.findall(r"^```text\n(.*?)^```", below, flags=re.M | re.S)
    return [[plain(part).removeprefix("preprocess: ") for part in output.split("…") if part.strip()] for output in outputs]


def plain(text: str) -> str:
    """A text in one line."""
    return " ".join(text.split())
