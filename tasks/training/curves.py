"""The curves of a training run: a table that DVC plots and compares, and a picture."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

from tasks.training.step_metrics import StepMetrics

COLUMNS = ("step", "loss", "validation_loss", "lr", "gradient_norm")  # the same in every run; times go to the tracking store only


def write_table(history: list[StepMetrics], folder: Path) -> None:
    """``loss.csv``: a row per step."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "loss.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([[int(metrics["step"]), *(metrics.get(name, "") for name in COLUMNS[1:])] for metrics in history])


def plot(history: list[StepMetrics], folder: Path) -> None:
    """``loss.png``: loss of training and validation above, learning rate and gradient norm below."""
    figure = Figure(figsize=(8, 6), dpi=110, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    above.plot(*_line(history, "loss"), color="#8aa4c8", label="training, by step")
    above.plot(*_line(history, "validation_loss"), color="#c0392b", marker="o", label="validation")
    above.set_ylabel("nats per token")
    above.legend(frameon=False)
    below.plot(*_line(history, "lr"), color="#555555", label="learning rate")
    below.set_ylabel("learning rate")
    below.set_xlabel("step")
    norms = below.twinx()
    norms.plot(*_line(history, "gradient_norm"), color="#7fb38a", label="gradient norm")
    norms.set_ylabel("gradient norm")
    norms.set_ylim(bottom=0)
    figure.legend(
        *zip(*[(line, line.get_label()) for axes in (below, norms) for line in axes.lines], strict=True), loc="outside lower right", ncols=2
    )
    figure.savefig(folder / "loss.png", metadata={"Software": None})


def _line(history: list[StepMetrics], name: str) -> tuple[list[float], list[float]]:
    return [p["step"] for p in history if name in p], [p[name] for p in history if name in p]
