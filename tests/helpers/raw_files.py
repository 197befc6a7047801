"""A folder for raw files. A plugin of pytest, so that tests that need no torch also run without conftest.py, which does."""

from pathlib import Path

import pytest


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty folder for raw files."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data"
