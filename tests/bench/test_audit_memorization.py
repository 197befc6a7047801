"""Canaries in a tiny model's training: the more often planted, the more exposed."""

from pathlib import Path

import numpy as np
import pytest
from helpers.builders import write_tiny_checkpoint
from helpers.evaluation import write_evaluation_inputs
from helpers.training import PARAMS

from bench.audit_memorization import Plan, audit, page
from tasks.runtime.digests import tree_sha256

PLAN = Plan(counts=(1, 10, 100), each=4, documents=50, references=127, limit=5.0, seed=3)


@pytest.mark.slow
def test_exposure_rises_with_repetition_and_the_gate_refuses_the_most_repeated(tmp_path: Path) -> None:
    folder = write_evaluation_inputs(tmp_path)
    before = tree_sha256(folder)
    training = PARAMS.model_copy(update={"lr": 3e-3, "batch": 4, "micro_batch": 4, "seq_len": 96})
    exposures = audit(folder / "base", folder / "shards", PLAN, training)
    means = [float(np.mean(e.after)) for e in exposures]
    assert means[0] < means[1] < means[2] and means[2] == pytest.approx(7.0, abs=0.5)  # of log2(128)
    assert [e.refused for e in exposures] == [False, False, True]
    assert all(np.mean(e.before) < 4 for e in exposures)
    assert tree_sha256(folder) == before  # no model, no shard, no state is left
    text = page(exposures, PLAN, training)
    assert text.count("refused</tr>") == 1 and "http" not in text


def test_an_audit_needs_documents_to_train_on(tmp_path: Path) -> None:
    base = write_tiny_checkpoint(tmp_path / "base")
    (tmp_path / "shards").mkdir()
    with pytest.raises(ValueError, match="index.json cannot be read"):
        audit(base, tmp_path / "shards", PLAN, PARAMS)
