"""Gates on data in a process of their own, which imports Great Expectations, seconds of it, while the stage works."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tasks.corpus.row_metrics import Gate
from tasks.runtime.ahead import started_ahead

if TYPE_CHECKING:
    from tasks.corpus.expectations import SuiteName


class CheckFiles(Protocol):
    """Runs a suite over files of row metrics, as ``expectations.check_files`` does."""

    def __call__(self, name: "SuiteName", files: Sequence[Path], work: Path, report: Path, **options: Any) -> Gate: ...


@contextmanager
def started_gates() -> Iterator[CheckFiles]:
    """A process for gates begins now; what is yielded runs suites in it."""
    with started_ahead("tasks.corpus.expectations") as call:

        def check_files(name: "SuiteName", files: Sequence[Path], work: Path, report: Path, **options: Any) -> Gate:
            gate: Gate = call("check_files", name, list(files), work, report, options)
            return gate

        yield check_files
