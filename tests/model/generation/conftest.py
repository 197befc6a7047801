"""What tests of generation share."""

from collections.abc import Iterator

import pytest

from model.generation import compiled, graphs
from model.generation.native import Native


@pytest.fixture(params=["c", "torch", "graphs"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """All ways of stepping; the C step must not be missing where there is a compiler. The GPU's is run without a recording."""
    if request.param == "graphs":
        monkeypatch.setattr(graphs, "suits", lambda device: True)
    if request.param != "c":
        monkeypatch.setattr(Native, "of", lambda model: None)
    else:
        assert not isinstance(compiled.library(), str), compiled.library()
    yield request.param
