"""Pictures that stand within a page: matplotlib's figures as SVG text."""

import io
import re

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("svg")


def svg(figure: Figure, *, salt: str) -> str:
    """Equal data gives equal bytes: no date, and ids from ``salt``, which names the page."""
    sink = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}):
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(r"^.*?(?=<svg)", "", sink.getvalue(), count=1, flags=re.S)
