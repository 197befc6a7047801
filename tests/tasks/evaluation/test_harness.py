"""lm-evaluation-harness on our model: the same log-likelihoods as its own Hugging Face backend; task files that cannot be taken."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.builders import SIGNS, write_tiny_checkpoint

from model.generation.completion import Llama
from tasks.evaluation import harness
from tasks.evaluation.likelihood import ScoringConfig
from tasks.runtime.digests import tree_sha256

SCORING_CONFIG = ScoringConfig(batch_tokens=1024, precision="float32")
TASK = """
task: signs
dataset_path: json
dataset_kwargs:
  data_files: {test: items.jsonl}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list:
  - {metric: acc}
  - {metric: acc_norm}
"""


def write_task(folder: Path, count: int = 200, text: str = TASK) -> Path:
    folder.mkdir(parents=True)
    items = [
        {
            "question": f"What are the signs of condition {n}?",
            "choices": [f"{SIGNS[(n + k) % 8]} on day {n + 3 * k}" for k in range(4)],
            "label": n % 4,
        }
        for n in range(count)
    ]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    (folder / "signs.yaml").write_text(text)
    return folder / "signs.yaml"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where the harness's cache goes


def loaded(path: Path) -> harness.Tasks:
    return harness.load({str(path): tree_sha256(path.parent)})


def likelihoods(lm: Any, tasks: harness.Tasks) -> dict[int, list[tuple[float, bool]]]:
    from lm_eval.evaluator import evaluate

    result = evaluate(lm=lm, task_dict={"tasks": tasks[0].tasks, "groups": {}, "group_map": {}}, bootstrap_iters=0, log_samples=True)
    return {s["doc_id"]: [r[0] for r in s["resps"]] for s in result["samples"]["signs"]}


@pytest.mark.slow
def test_our_log_likelihoods_are_those_of_the_hugging_face_backend(tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tasks.evaluation.harness_model import Adapter

    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    adapter = Adapter(Llama.build(checkpoint), SCORING_CONFIG)
    reference = AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32")
    reference_model = HFLM(pretrained=reference, tokenizer=AutoTokenizer.from_pretrained(checkpoint), batch_size=16, device="cpu")
    tasks = loaded(write_task(tmp_path / "task"))
    actual, expected = likelihoods(adapter, tasks), likelihoods(reference_model, tasks)
    assert len(actual) == 200 and set(actual) == set(expected)
    for index, of_item in actual.items():
        for (one, greedy), (other, also) in zip(of_item, expected[index], strict=True):
            assert float(one) == pytest.approx(float(other), abs=1e-3) and greedy == also
    # Whole texts, also without context, shorter and longer than the context.
    texts = ["Condition 3 shows fever.", "A red rash. " * 200]
    rolling = [[Instance("loglikelihood_rolling", {}, (text,), n) for n, text in enumerate(texts)] for _ in range(2)]
    assert adapter.loglikelihood_rolling(rolling[0]) == pytest.approx(reference_model.loglikelihood_rolling(rolling[1]), rel=1e-5, abs=1e-3)
    pairs = [Instance("loglikelihood", {}, ("", " fever and cough"), 0), Instance("loglikelihood", {}, ("A stiff ", "neck"), 1)]
    for (one, _), (other, _) in zip(adapter.loglikelihood(pairs), reference_model.loglikelihood(pairs), strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    asked = Instance("generate_until", {}, ("What are the signs of", {"until": ["\n"], "max_gen_toks": 12}), 0)
    assert adapter.generate_until([asked]) == reference_model.generate_until([asked])


def test_each_item_is_a_choice_with_its_own_value(tmp_path: Path) -> None:
    llama = Llama.build(write_tiny_checkpoint(tmp_path / "checkpoint"))
    tasks = loaded(write_task(tmp_path / "task", 20))
    values = list(harness.values(llama, tasks, SCORING_CONFIG))
    assert [v.item.id for v in values] == [f"signs-{n}" for n in range(20)]
    assert {(v.metric, v.item.split, v.item.category, v.item.source, v.weight) for v in values} == {
        ("choice", "task", "signs", "signs.yaml", 1)
    }
    assert {v.total for v in values} <= {0.0, 1.0}


def test_task_files_that_cannot_be_taken_are_named(tmp_path: Path) -> None:
    path = write_task(tmp_path / "task", 3)
    with pytest.raises(ValueError, match=r"task/none.yaml is missing"):
        harness.load({str(path.with_name("none.yaml")): ""})
    with pytest.raises(ValueError, match=f"signs.yaml has the SHA-256 {tree_sha256(path.parent)}, not ''"):
        harness.load({str(path): ""})
    broken = write_task(tmp_path / "broken", 3, "task: [signs")
    with pytest.raises(ValueError, match=r"signs.yaml is no task of lm-evaluation-harness that can be loaded"):
        loaded(broken)
    generating = write_task(tmp_path / "generating", 3, TASK.replace("output_type: multiple_choice", "output_type: generate_until"))
    with pytest.raises(ValueError, match="output_type generate_until; only multiple_choice is taken"):
        loaded(generating)
    secret = write_task(tmp_path / "secret", 3)
    (secret.parent / "items.jsonl").write_text('{"question": "Zebrafink", broken\n')
    with pytest.raises(ValueError, match="can be loaded") as error:
        loaded(secret)
    assert "Zebrafink" not in str(error.value)


def test_without_tasks_the_harness_is_not_asked(tmp_path: Path) -> None:
    assert harness.load({}) == [] and list(harness.values(Llama.build(write_tiny_checkpoint(tmp_path / "c")), [], SCORING_CONFIG)) == []
