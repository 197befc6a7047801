"""Versions, decisions on them, and the aliases: the real pipeline on a tiny corpus, with a real tracking store."""

import csv
import json
import sys
from html import unescape
from pathlib import Path
from typing import Any

import mlflow
import pytest
from helpers.builders import sentences, write_table
from helpers.project import Project, commit
from helpers.versions import version_of
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from ruamel.yaml import YAML

from tasks.corpus.documents import read_documents
from tasks.evaluation.findings import findings, tags
from tasks.evaluation.scores import Score, read_scores
from tasks.registry import outcomes, promotion, tracking, versions
from tasks.registry.challenge import _held_out
from tasks.runtime.digests import sha256


def store(project: Project) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{project.path / 'mlflow.db'}")


def champion(project: Project) -> int:
    return int(store(project).get_model_version_by_alias("medical-llm", "champion").version)


def decision(project: Project) -> dict[str, Any]:
    registered: dict[str, Any] = json.loads((project.path / "artifacts" / "registration.json").read_text())["decision"]
    return registered


def ask(project: Project, *arguments: str, fails: bool = False) -> str:
    result = project.run(sys.executable, "-m", "tasks.registry", *arguments, check=False)
    assert (result.returncode != 0) is fails and "Traceback" not in result.stdout, result.stdout
    return result.stdout


@pytest.mark.system
def test_versions_come_and_go_by_evidence(copied: Project) -> None:  # noqa: PLR0915
    """One project's story, because each step costs a training."""
    assert champion(copied) == 1 and decision(copied)["verdict"] == "first"

    # Trained ten times longer: better.
    copied.set_params("finetune", steps=60)
    commit(copied)
    copied.run("dvc", "repro")
    assert decision(copied)["verdict"] == "better", decision(copied)
    assert decision(copied)["champion"] == {"version": 1, "scores": "stored with an evaluation on the same items"}
    assert champion(copied) == 2
    assert versions.aliases(store(copied), "medical-llm") == {"champion": "2", "previous": "1"}

    # Back, in one command; and what was rolled back does not come again by itself.
    assert "version 1 is champion again" in ask(copied, "rollback", "--by", "A. Person", "--why", "it was rude")
    assert versions.aliases(store(copied), "medical-llm") == {"champion": "1"}
    copied.run("dvc", "repro")
    assert champion(copied) == 1
    assert "there is nothing to go back to" in ask(copied, "rollback", fails=True)
    assert "version 2 is champion" in ask(copied, "promote", "2", "--by", "A. Person", "--why", "it was not")
    listed = ask(copied, "list")
    for words in (
        "version 2  champion",
        "decision 1: better promoted",
        "rollback version 2 by A. Person: it was rude",
        "promote  version 2",
    ):
        assert words in listed

    # A scheduled run on new data: only data.dvc and dvc.lock change, so that the code is that of a commit. The champion is scored again.
    copied.set_params("register", sign_off="required")
    copied.set_params("finetune", steps=150)
    commit(copied)
    write_table(copied.path / "data" / "more.csv", [(q.replace("condition", "syndrome"), a) for q, a in sentences(40)])
    copied.run("dvc", "repro")
    decided = decision(copied)
    assert decided["champion"] == {"version": 2, "scores": "scored again on today's items"}
    assert (decided["verdict"], decided["outcome"]) == ("better", "waits for sign-off"), decided
    assert versions.aliases(store(copied), "medical-llm") == {"champion": "2", "previous": "1", "challenger": "3"}
    assert store(copied).get_model_version("medical-llm", "3").tags["code.dirty"] == "false"
    ask(copied, "promote", "models:/medical-llm@challenger", "--by", "Dr. Who")
    assert versions.aliases(store(copied), "medical-llm") == {"champion": "3", "previous": "2"}
    signed, promoted = promotion.events(store(copied), "medical-llm")[-2:]
    assert (signed["verb"], promoted["verb"]) == ("sign-off", "promote") and signed["who"] == promoted["who"] == "Dr. Who"
    assert "signed off on decision-1.json" in signed["why"]
    assert signed["evidence"] == sha256(versions.artifact(store(copied), version_of(copied, "3").run_id, "decision-1.json"))
    trail = list(csv.DictReader(ask(copied, "audit", "export").splitlines()))
    assert [row["version"] for row in trail if row["verb"] == "register"] == ["1", "2", "3"]
    assert len([row for row in trail if row["verb"] == "configure"]) >= 2
    assert f"{len(trail)} entries, each follows the one before" in ask(copied, "audit", "verify", "--head", trail[0]["sha256"])
    assert "no entry has the digest" in ask(copied, "audit", "verify", "--head", "0" * 64, fails=True)

    # A decision that is carried out late, after another version became champion.
    number, late = promotion.latest_decision(store(copied), store(copied).get_model_version("medical-llm", "2"))
    store(copied).delete_model_version_tag("medical-llm", "2", f"decision.{number}.outcome")
    assert outcomes.apply_decision(store(copied), "medical-llm", "2", number, late, sign_off=False).startswith("waits for --why")
    assert champion(copied) == 3

    # The same checkpoint under another gate: one version, a further decision.
    gate = {"metric": "answer_nll", "split": "test", "min_improvement": 0.5, "items": 10}
    copied.set_params("register", primary=[gate], sign_off="none")
    commit(copied)
    copied.run("dvc", "repro")
    version = store(copied).get_model_version("medical-llm", "3")
    assert [int(v.version) for v in versions.versions_of(store(copied), "medical-llm")] == [1, 2, 3]
    assert version.tags["decision.2.outcome"] == "kept" and "it is this version itself" in version.tags["decision.2.reason"]

    # Trained worse, and with uncommitted code.
    copied.set_params("finetune", steps=2)
    copied.run("dvc", "repro")
    assert decision(copied)["verdict"] == "refused" and champion(copied) == 3
    assert "was refused by decision 1 and cannot be promoted" in ask(copied, "promote", "4", "--why", "I want it", fails=True)

    # A champion whose weights are damaged: said, kept, nothing promoted.
    weights = next((copied.path / "mlartifacts").rglob(f"{version.run_id}/artifacts/checkpoint/model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    copied.set_params("finetune", steps=200)
    copied.run("dvc", "repro")
    assert "version 3 cannot be loaded or scored any more (differs  checkpoint/model.safetensors)" in decision(copied)["reasons"][0]
    assert decision(copied)["outcome"] == "waits for --allow-dirty" or decision(copied)["outcome"] == "kept"
    assert champion(copied) == 3
    assert "was not found better by decision 1" in ask(copied, "promote", "5", fails=True)
    assert "--allow-dirty promotes it anyway" in ask(copied, "promote", "5", "--why", "the champion is gone", fails=True)
    ask(copied, "promote", "5", "--why", "the champion is gone", "--allow-dirty")
    assert champion(copied) == 5


@pytest.mark.system
def test_a_withdrawn_record_taints_the_versions_that_saw_it(copied: Project) -> None:
    client = store(copied)
    with open(copied.path / "artifacts" / "documents" / "train.jsonl") as file:
        documents = [json.loads(line) for line in file]
    seen = promotion.seen_by(client, client.get_model_version("medical-llm", "1"), [d["id"] for d in documents])
    assert seen and seen.keys() == {d["id"] for d in documents}
    # A short run comes to some of the documents only, and knows which.
    number, withdrawn = next((n, d) for n, d in enumerate(documents, 1) if seen[d["id"]].use == "trained")
    spared = next(d for d in documents if seen[d["id"]].use == "unused")
    assert "version 1 did not see it (split train)" in copied.run(sys.executable, "-m", "tasks.registry", "record", spared["id"]).stdout
    before = copied.run(sys.executable, "-m", "tasks.registry", "record", withdrawn["id"]).stdout
    for words in (
        f"raw file data/{withdrawn['source']}, {withdrawn['position']}",
        f"document artifacts/documents/train.jsonl, line {number} (split train",
        "shard artifacts/shards/train_00000.bin: ",
        "medical-llm version 1 was trained on it (split train)",
    ):
        assert words in before
    assert withdrawn["answer"] not in before
    assert promotion.mark_tainted(client, "medical-llm", [spared["id"]]) == []
    assert client.get_model_version("medical-llm", "1").tags["spared"] == "1 withdrawn record in its splits, which it did not come to"
    copied.set_params("preprocess", withdrawn=[withdrawn["id"]])
    commit(copied)
    output = copied.run("dvc", "repro").stdout
    assert "version 1 saw withdrawn records; it is marked as tainted" in output
    assert client.get_model_version("medical-llm", "1").tags["tainted"] == "saw 1 withdrawn record, 1 of them in training"
    assert "tainted" not in client.get_model_version("medical-llm", "2").tags
    ask(copied, "promote", "2", "--why", "the other is tainted")
    for tag in ("tainted", "taint.asked"):  # as where no run has asked since
        client.delete_model_version_tag("medical-llm", "1", tag)
    assert "version 1 is tainted" in ask(copied, "rollback", fails=True)
    assert "is tainted and cannot be promoted" in ask(copied, "promote", "1", "--why", "I want it", fails=True)
    after = copied.run(sys.executable, "-m", "tasks.registry", "record", withdrawn["id"]).stdout
    assert "the version is tainted" in after and "raw file" not in after
    assert "no record" in copied.run(sys.executable, "-m", "tasks.registry", "record", "nothing", check=False).stdout


class TestVersion:
    """What a version carries."""

    @pytest.fixture(scope="class")
    def version(self, finished: Project) -> ModelVersion:
        return store(finished).get_model_version_by_alias("medical-llm", "champion")

    @pytest.fixture(scope="class")
    def folder(self, finished: Project, version: ModelVersion) -> Path:
        assert version.run_id
        return Path(store(finished).download_artifacts(version.run_id, ""))

    def test_items_that_it_was_trained_on_do_not_count_for_it(self, finished: Project, version: ModelVersion) -> None:
        scores = read_scores(finished.path / "artifacts" / "evaluation")
        assert _held_out(store(finished), version, scores) == (scores, 0)
        with open(finished.path / "artifacts" / "documents" / "train.jsonl") as file:
            moved = Score("answer_nll", json.loads(file.readline())["id"], "test", "qa", "a.csv", 1, 1, 1, 1)
        assert _held_out(store(finished), version, [*scores, moved]) == (scores, 1)

    def test_what_it_came_to_and_what_it_saw_are_the_same_everywhere(self, finished: Project, version: ModelVersion, folder: Path) -> None:
        metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
        lists = findings(metrics)
        assert {name: version.tags[name] for name in lists} == tags(metrics)
        card = (folder / "checkpoint" / "README.md").read_text()
        pages = [unescape((folder / name).read_text()) for name in ("decision-1.html", "evaluation/report.html")]
        for sentence in (sentence for listed in lists.values() for sentence in listed):
            assert sentence in card and all(sentence in page for page in pages)
        counted = json.loads((finished.path / "artifacts" / "runs" / "finetune.json").read_text())["metrics"]
        assert counted["documents_seen"] < len(list(read_documents(finished.path / "artifacts" / "documents", "train")))
        assert f"trained on {counted['documents_seen']:,.0f} documents, {counted['tokens_seen']:,.0f} tokens" in card
        stages = json.loads((folder / "passport.json").read_text())["stages"]
        run = store(finished).get_run(version.tags["run.finetune"])
        for name in ("documents_seen", "tokens_seen", "epochs_seen"):
            assert stages["finetune"]["metrics"][name] == run.data.metrics[name] == counted[name]

    def test_it_carries_the_extraction_tasks_of_training(self, finished: Project, folder: Path) -> None:
        written = finished.path / "artifacts" / "documents" / "tasks.json"
        assert (folder / "checkpoint" / "tasks.json").read_bytes() == written.read_bytes()

    @pytest.mark.slow
    def test_mlflow_opens_it_as_a_pyfunc(self, finished: Project, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{finished.path / 'mlflow.db'}")
        code = (
            "import mlflow, json, os\n"
            "mlflow.set_tracking_uri(os.environ['MLFLOW_TRACKING_URI'])\n"
            "model = mlflow.pyfunc.load_model('models:/medical-llm@champion')\n"
            "print(json.dumps(model.predict(['Fever'], params={'max_new_tokens': 4, 'chat': False})))\n"
        )
        finished.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{finished.path / 'mlflow.db'}"
        try:  # where neither model/ nor tasks/ of the project can be imported
            output = Project(finished.path.parent)
            output.environment = finished.environment
            (answer,) = json.loads(output.run(sys.executable, "-c", code).stdout.splitlines()[-1])
        finally:
            del finished.environment["MLFLOW_TRACKING_URI"]
        from model.generation.completion import Llama

        (expected,) = Llama.build(folder / "checkpoint").text_completion(["Fever"], max_gen_len=4, temperature=0.0)
        assert answer == expected.text

    def test_its_signature_and_example_are_stated(self, folder: Path) -> None:
        model = mlflow.models.Model.load(str(folder / "checkpoint"))
        assert [kind.name for kind in model.signature.inputs.input_types()] == ["string"] and model.saved_input_example_info
        assert {p.name for p in model.signature.params} == {"max_new_tokens", "temperature", "top_p", "seed", "chat"}

    def test_transformers_opens_it(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folder / "checkpoint")
        tokenizer = AutoTokenizer.from_pretrained(folder / "checkpoint")
        with torch.no_grad():
            assert model(tokenizer("Fever", return_tensors="pt").input_ids).logits.isfinite().all()

    def test_no_file_is_a_pickle_or_names_this_machine(self, finished: Project, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                start = path.read_bytes()
                assert path.suffix not in (".pkl", ".pth", ".pt", ".pyc") and not (start[:1] == b"\x80" and start[-1:] == b"."), path
                assert start[:4] != b"PK\x03\x04", path
        assert str(finished.path) not in (folder / "checkpoint" / "MLmodel").read_text()

    def test_the_card_states_facts(self, folder: Path) -> None:
        card = (folder / "checkpoint" / "README.md").read_text()
        for words in (
            "not a medical device",
            "| conditions.csv | not stated |",
            "Licence: not stated",
            "nats per token of held-out answers",
            "6 steps",
        ):
            assert words in card
        assert "day 3" not in card  # no text of a record

    def test_nothing_of_a_private_record_is_among_its_files(self, folder: Path) -> None:
        answers = [answer for _, answer in sentences(120)]
        for path in folder.rglob("*"):
            if path.is_file() and path.name != "tokenizer.json":
                content = path.read_text(errors="replace")
                assert not [a for a in answers if a in content], path


@pytest.mark.system
def test_mlflow_that_fails_half_way_leaves_nothing_and_a_second_run_completes_it(copied: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    copied.set_params("finetune", steps=8)
    copied.run("dvc", "repro", "validate")
    monkeypatch.chdir(copied.path)
    client = store(copied)
    kept = len(versions.versions_of(client, "medical-llm"))
    runs = {r.info.run_id for r in client.search_runs(["1"])}

    def broken(*_: object, **__: object) -> None:
        raise tracking.MlflowException("the connection was lost")

    from tasks import register as stage

    with monkeypatch.context() as patched:
        patched.setattr(MlflowClient, "create_model_version", broken)
        patched.setattr(sys, "argv", ["register"])
        params = stage.RegisterParams.model_validate_json(json.dumps(_section(copied)))
        paths = [Path(word) for word in _command(copied)[:-1]]
        with pytest.raises(ValueError, match=r"refused: the connection was lost; run it again"):
            stage.register(*paths, Path("artifacts/new.json"), params=params)  # type: ignore[misc, arg-type]
    assert len(versions.versions_of(client, "medical-llm")) == kept
    left = [r for r in client.search_runs(["1"], "tags.stage = 'register'") if r.info.run_id not in runs]
    assert not left
    copied.run("dvc", "repro")
    assert len(versions.versions_of(client, "medical-llm")) == kept + 1


def _command(project: Project) -> list[str]:
    """The paths that dvc.yaml gives to register."""
    command: str = YAML(typ="safe").load(project.path / "dvc.yaml")["stages"]["register"]["cmd"]
    return command.split()[5:]


def _section(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(project.path / "params.yaml")["register"]
    return found
