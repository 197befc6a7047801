"""Every command that the README and the pages in docs/ show is run: here, on a tiny project, or by a test that is named."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from helpers.project import ROOT, Project
from ruamel.yaml import YAML

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("python", "medllama", "dvc", "make", "prefect", "git", "dask", "mlflow", "model_signing", "cp", "pg_dump", "pg_restore")
# Run below, in this order, as they stand.
HERE = [
    "dvc status",
    "dvc repro",
    "dvc metrics diff",
    "dvc plots diff",
    "dvc exp show --only-changed --no-pager",
    'python -m model generate artifacts/model --prompt "The patient was diagnosed with"',
    'python -m model generate artifacts/model --chat --prompt "What is arachnodactyly?" --temperature 0.7 --top-p 0.9',
    'python -m model generate artifacts/model --prompt "Asthma is" --quantize int8 --top-k 40 --stop "." --seed 1',
    "python -m model convert artifacts/model tuned-meta --format meta --files 2",
    "python -m tasks.registry show models:/medical-llm@champion",
    "python -m tasks.registry verify models:/medical-llm@champion",
    "python -m tasks.registry list",
    "python -m tasks.registry chain",
    "python -m tasks.registry chain shard finetune",
    "python -m tasks.training plan --size llama-3.1-8b --mode lora --gpus 1 --seq 2048",
    "python -m tasks.registry drift artifacts/documents artifacts/drift --nats 0.5",
    "cp mlflow.db mlflow-backup.db",
    "mlflow db upgrade sqlite:///mlflow.db",
    "prefect server database upgrade -y",
]
# What another test runs, or what does not end by itself.
ELSEWHERE = {
    "make run": "test_pipeline.py",
    "make flow": "test_pipeline.py",
    "make deploy": "test_schedule.py",
    "make ui": "test_ui.py",
    "make chat": "test_page_served.py",
    "make check": "the continuous integration",
    "make gpu-check": "test_gpu_speed.py",
    "make setup TORCH=cu130": "by hand: it needs PyTorch's own index",
    "make test": "the continuous integration",
    "make test-system": "the continuous integration",
    "make gc": "test_lineage.py",
    "make rebuild VERSION=1": "test_lineage.py",
    "make sweep LR=2e-4,4e-4": "test_experiments.py",
    "make bench-deps && python -m bench.generate_speed artifacts/base": "make test-system, by hand",
    "prefect deployment run pipeline/pipeline": "test_deployments.py",
    "git commit --message": "test_stores.py",
    "dvc push --run-cache": "test_stores.py",
    "dvc remote add": "test_stores.py",
    "dvc remote modify": "test_stores.py",
    "pg_dump": "test_stores.py",
    "pg_restore": "test_stores.py",
    "MLFLOW_S3_ENDPOINT_URL": "test_stores.py",
    "FINETUNE_LAUNCH=": "test_team.py",
    "dask scheduler": "test_nodes.py",
    "dask worker": "test_nodes.py",
    "python -m serve": "test_serve.py",
    "PASSPORT_PUBLIC_KEY=key.pub python -m serve": "test_rollout.py",
    "medllama": "test_wheel.py",
    "make bundle": "test_bundle.py",
    "python -m model convert Llama3": "test_convert.py",
    "python -m model convert artifacts/model tuned.gguf": "test_convert.py",
    "python -m model inspect": "test_convert.py",
    "python -m tasks.corpus annotate": "test_annotation_page.py",
    "python -m tasks.corpus explain": "test_damage.py",
    "PYTHONPATH=.cache/clinosim python -m clinosim.simulator.cli": "test_simulated_hospital.py",
    "cp -r .cache/hospital/fhir_r4 data/": "test_simulated_hospital.py",
    "dvc repro preprocess": "test_simulated_hospital.py",
    "OPENLINEAGE": "test_lineage_events.py",
    "python -m tasks.registry record ID": "test_lineage.py",
    "python -m tasks.registry audit": "test_registry.py",
    "python -m tasks.registry standards": "test_standards.py",
    "python -m tasks.registry compliance": "test_compliance.py",
    "cp FOLDER/compliance.yaml .": "test_compliance.py",
    "python -m tasks.registry patient": "test_erasure.py",
    "python -m tasks.registry forget --case": "test_erasure.py",
    "python -m tasks.registry certificate": "test_erasure.py",
    "make advisories": "by hand: it needs a source of advisories",
    "make release": "test_wheel.py",
    "model_signing verify key DIR": "test_verification.py",
    "model_signing verify certificate DIR": "test_certificates.py",
    "PASSPORT_KEY=key.pem PASSPORT_CERTIFICATE=chain.pem dvc repro register": "test_certificates.py",
    "PASSPORT_PUBLIC_KEY=roots.pem python -m tasks.registry verify": "test_certificates.py",
    "python -m tasks.registry verify --deployed": "test_lineage.py",
    "python -m tasks.registry promote": "test_registry.py",
    "python -m tasks.registry rollback": "test_registry.py",
}


def shown() -> set[str]:
    """The commands of all pages, without what is said of them."""
    found = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        fenced = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S))
        for line in [*re.findall(r"^ {4,}(\S.*)$", text, flags=re.M), *fenced.splitlines()]:
            command = re.sub(r"\s+#.*$", "", line).strip()
            if re.match(rf"(?:[A-Z_0-9]+=\S+ )*(?:{'|'.join(PROGRAMS)}) ", command.replace('"', "")) or command.startswith(
                "FINETUNE_LAUNCH="
            ):
                found.add(re.sub(r"\s+", " ", command))
    return found


def test_every_command_of_the_pages_is_run_by_a_test() -> None:
    commands = shown()
    assert len(commands) > 30
    assert not [c for c in commands if c not in HERE and not c.startswith(tuple(ELSEWHERE))]
    assert not set(HERE) - commands, "run here, and on no page any more"
    assert not [c for c in ELSEWHERE if not any(command.startswith(c) for command in commands)], "on no page any more"
    for test in ELSEWHERE.values():
        assert not test.endswith(".py") or list((ROOT / "tests").rglob(test)), test


@pytest.mark.system
def test_the_commands_work(trained: Project) -> None:
    trained.environment["PATH"] = f"{Path(sys.executable).parent}:{trained.environment['PATH']}"
    for command in HERE:
        result = trained.run(*shlex.split(command), check=False)
        assert result.returncode == 0 and "Traceback" not in result.stdout, (command, result.stdout[-3000:])


def test_the_table_of_training_has_the_defaults_of_params_yaml() -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")["finetune"]
    table = (ROOT / "docs/fine-tuning.md").read_text(encoding="utf-8").partition("| key | default |")[2].partition("\n\n")[0]
    rows = [[cell.strip().replace("`", "") for cell in line.split("|")[1:3]] for line in table.splitlines()[2:]]
    shown = dict(pair for keys, defaults in rows for pair in zip(keys.split(", "), defaults.split(", "), strict=True))
    flat = {f"adapter.{key}": value for key, value in params["adapter"].items()} | {k: v for k, v in params.items() if k != "adapter"}
    assert shown.pop("adapter.targets") == "all seven" and len(flat.pop("adapter.targets")) == 7
    assert {key: YAML(typ="safe").load(value) for key, value in shown.items()} == flat


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target
