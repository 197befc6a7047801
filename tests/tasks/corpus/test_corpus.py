import json
import subprocess
from pathlib import Path

import pytest
from helpers.project import ROOT
from ruamel.yaml import YAML

from tasks.corpus.default_corpus import build, is_default_corpus
from tasks.corpus.manifest import DEFAULT_PATTERNS
from tasks.params import read_params
from tasks.runtime.digests import dvc_digest, sha256


@pytest.mark.slow
def test_the_default_corpus_is_what_the_committed_pointer_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the downloads are kept
    for command in ("init -q", "-c user.name=a -c user.email=b commit -q --allow-empty -m c"):  # which no file may name
        subprocess.run(["git", "-C", tmp_path, *command.split()], check=True)
    build(tmp_path / "data")
    assert YAML(typ="safe").load(ROOT / "data.dvc")["outs"][0]["md5"] == dvc_digest(tmp_path / "data")
    assert is_default_corpus(ROOT / "data.dvc")
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    assert all(f["licence"] and f["credit"] and sha256(tmp_path / "data" / f["path"]) == f["sha256"] for f in manifest["files"])
    build(tmp_path / "data")  # again: nothing to do
    (tmp_path / "data" / "mine.csv").write_text("Question,Answer\n")
    with pytest.raises(ValueError, match="holds other files than the default corpus"):
        build(tmp_path / "data")
    assert {p.name for p in tmp_path.iterdir()} == {"data", ".git"}


def test_every_pattern_of_the_default_params_is_known_as_one_of_the_default_corpus() -> None:
    preprocess = read_params(ROOT / "params.yaml")["preprocess"].model_dump()
    assert {*preprocess["ood"], *(rule["files"] for rule in preprocess["shares"])} <= DEFAULT_PATTERNS
