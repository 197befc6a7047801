"""What a stage says before it starts, from what earlier runs on this machine took."""

import json
from pathlib import Path

import pytest
from helpers.project import ROOT
from ruamel.yaml import YAML

from tasks import forecast
from tasks.forecast import INDEPENDENT, Measured, Work
from tasks.params import STAGES, read_params
from tasks.runtime.params import Params
from tasks.runtime.words import duration


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Params]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.csv").write_bytes(b"x" * 1_000_000)
    return read_params(ROOT / "params.yaml")


def took(stage: str, params: dict[str, Params], seconds: float) -> None:
    path = forecast.DURATIONS
    content = json.loads(path.read_text()) if path.exists() else {}
    work = forecast.work_of(stage, params)
    content[stage] = {"work": {"unit": work.unit, "amount": work.amount, "params": work.params}, "seconds": seconds}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def test_what_ran_here_before_is_forecast_as_it_was_with_the_stages_after_it(params: dict[str, Params]) -> None:
    for stage, seconds in zip(STAGES, (5, 70, 10, 10, 140, 90, 15), strict=True):
        took(stage, params, seconds)
    assert forecast.announce("base", params) == "base: about 5 s here; with the stages after it about 5 min 40 s"
    assert forecast.announce("finetune", params) == "finetune: about 2 min 20 s here; with the stages after it about 4 min"
    assert forecast.announce("register", params) == "register: about 15 s here"


def test_more_data_or_other_params_give_a_range(params: dict[str, Params]) -> None:
    took("shard", params, 104.0)
    with open("data/notes.csv", "ab") as file:
        file.write(b"x" * 1_000_000)
    low, high = 204 / forecast.ROUGH, 204 * forecast.ROUGH
    assert forecast.announce("shard", params).startswith(f"shard: {duration(low)} to {duration(high)} here; ")
    other = params | {"shard": params["shard"].model_copy(update={"loss_on": "all"})}
    one = forecast.forecast("shard", forecast.work_of("shard", other), Measured(forecast.work_of("shard", params), 50.0))
    assert one and one.low < 50 < one.high


def test_a_first_run_says_a_range_and_that_it_goes_by_other_machines(params: dict[str, Params]) -> None:
    assert forecast.announce("register", params).endswith(" here, going by other machines")
    assert " to " in forecast.announce("finetune", params)


def test_epochs_have_no_estimate_before_a_first_run(params: dict[str, Params]) -> None:
    params |= {"finetune": params["finetune"].model_copy(update={"steps": 0, "epochs": 1.0})}
    said = forecast.announce("finetune", params)
    assert said.startswith("finetune: no estimate before a first run here; with the stages after it more than ")
    took("finetune", params, 600.0)
    assert forecast.announce("finetune", params).startswith("finetune: about 10 min here; ")


def test_a_larger_model_trains_longer() -> None:
    measured = Measured(Work("tokens x bytes of weights", 1e12, "p"), 104.0)
    one = forecast.forecast("finetune", Work("tokens x bytes of weights", 1e13, "p"), measured)
    assert one and one.low * forecast.ROUGH == pytest.approx(1004)


@pytest.mark.parametrize("content", ["{", "[]", '{"base": 3}', '{"base": {"work": {}, "seconds": 3}}', '{"base": {"work": {"unit": "x"}}}'])
def test_a_file_that_is_none_of_ours_is_as_none(params: dict[str, Params], content: str) -> None:
    forecast.DURATIONS.parent.mkdir()
    forecast.DURATIONS.write_text(content)
    assert forecast.announce("base", params).startswith("base: ")


def test_which_stages_follow_is_what_dvc_yaml_says() -> None:
    definitions = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    outs = {name: {o if isinstance(o, str) else next(iter(o)) for o in definitions[name]["outs"]} for name in STAGES}
    after = {name: {name} for name in STAGES}
    for name in STAGES:
        for other in STAGES:
            if after[name] & {maker for maker in STAGES if outs[maker] & set(definitions[other]["deps"])}:
                after[name].add(other)
    for position, name in enumerate(STAGES):
        assert after[name] - {name} == set(STAGES[position + 1 :]) - set(INDEPENDENT.get(name, ()))
