"""Tiny real parts for the tests: a checkpoint directory, a corpus, a copy of the project that runs in seconds."""

import csv
import ctypes
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch
from browser import browser
from filelock import FileLock
from ruamel.yaml import YAML

from model.checkpoint.config import config_json
from model.checkpoint.hf import save_weights
from model.checkpoint.json_file import write_json
from model.llama import LlamaConfig, Transformer
from tasks.base import CHATML, base
from tasks.registry.relocation import follow
from tasks.runtime.digests import tree_sha256
from tasks.training.params import BaseParams

ROOT = Path(__file__).resolve().parent.parent
# Two test processes share two cores, and tiny models gain nothing from threads.
torch.set_num_threads(1)
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "WORKERS": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}

# For what a test waits for, on the slowest of machines; only a test that fails waits so long.
PATIENCE = 600.0

TINY = LlamaConfig(dim=32, n_layers=2, n_heads=4, n_kv_heads=2, ffn_dim=64, vocab_size=400, head_dim=8, max_seq_len=256, tied=True)
SIGNS = ("fever", "cough", "a red rash", "blurred vision", "joint pain", "fatigue", "a stiff neck", "swollen ankles")


def sentences(count: int) -> list[tuple[str, str]]:
    """Made-up questions and answers, all different."""
    return [
        (f"What are the signs of condition {n}?", f"Condition {n} shows {SIGNS[n % 8]}, later {SIGNS[(n // 8) % 8]} on day {n}.")
        for n in range(count)
    ]


def write_tiny_checkpoint(directory: Path, config: LlamaConfig = TINY, *, seed: int = 0) -> Path:
    """A random model with a byte-level BPE vocabulary learned from the made-up corpus."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE

    directory.mkdir(parents=True)
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=config.vocab_size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(pair) for pair in sentences(200)], trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "chat_template": CHATML},
    )
    write_json(directory / "generation_config.json", {"eos_token_id": 2})
    write_json(directory / "config.json", config_json(config, torch.float32, eos_id=2))
    save_weights(dict(random_model(config, seed).named_parameters()), directory, dtype=torch.float32)
    return directory


def random_model(config: LlamaConfig, seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (1.0 if parameter.dim() == 1 else 0.0))
    return model.eval()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The modules that run pipelines first, so that in the end no process has much left while the other waits."""
    slow = {item.path for item in items if "new" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The real default base model, converted once and kept in .cache."""
    directory = ROOT / ".cache" / "tests" / "smollm2"
    if not (directory / "config.json").exists():
        params = YAML(typ="safe").load(ROOT / "params.yaml")["base"]
        partial = directory.with_name(f"smollm2.{os.getpid()}")
        here = Path.cwd()
        os.chdir(ROOT)
        try:
            base(partial, params=BaseParams(**params))
        finally:
            os.chdir(here)
        try:
            partial.rename(directory)
        except OSError:  # another test process was first
            shutil.rmtree(partial)
    return directory


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("Question", "Answer"), *rows])


def write_cleaning_report(folder: Path, *, public: bool = False) -> None:
    """What preprocess reports, of a corpus of which nothing was removed."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"step": "records", "source": "s", "rule": "", "records": 83, "examples": ["0"]}]
    (folder / "funnel.json").write_text(json.dumps({"rows": rows, "overlap": [0] * 10, "public": public}))
    share = {"name": "SSN", "half": "all", "forms": 24, "plantings": 96, "share": 0.99, "low": 0.9, "high": 1.0}
    (folder / "deidentification.json").write_text(json.dumps({"recall": [share], "look_alikes": []}))


class Project:
    """A copy of the project in a repository of its own, with a tiny corpus, model and params."""

    def __init__(self, directory: Path):
        self.path = directory
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_T", "PREFECT_API", "DVC_", "GIT_"))}
        self.environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_HOME": str(directory.parent / "prefect"),
            "DVC_SITE_CACHE_DIR": str(directory / ".cache" / "dvc"),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
            "SHELL": "/bin/sh",  # what services and CI have; it may stay between DVC and a stage where bash would not
        }

    def run(self, *command: str, check: bool = True, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment,
            check=False,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout,
        )
        assert not check or result.returncode == 0, result.stdout
        return result

    def params(self, section: str) -> dict[str, object]:
        found: dict[str, object] = YAML(typ="safe").load(self.path / "params.yaml")[section]
        return found

    def set_params(self, section: str, **values: object) -> None:
        yaml = YAML(typ="safe")
        content = yaml.load(self.path / "params.yaml")
        content[section] |= values
        yaml.dump(content, self.path / "params.yaml")

    def ran(self, output: str) -> list[str]:
        """The stages of the pipeline that DVC ran, from its output; without the check of params.yaml, which follows each edit of it."""
        names = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]
        return [name for name in names if name != "check_params"]


@pytest.fixture
def project(new: Path, tmp_path: Path) -> Project:
    """One that has not run yet."""
    return copy_of(new / "project", tmp_path / "project")


def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all test processes share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project that has not run, for all test processes."""
    folder = shared(tmp_path_factory)
    with FileLock(folder / "new.lock"):
        if not (folder / "new").exists():
            making = folder / "making-new"
            making.mkdir()
            make_project(making)
            (folder / "new").symlink_to(making)
    return folder / "new"


@pytest.fixture(scope="session")
def made(new: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three projects that all test processes share and copy: ``sharded``, whose data stages ran, ``trained``, whose
    checkpoint was validated too, ``finished``, whose version is registered.
    """
    folder = shared(tmp_path_factory)
    with FileLock(folder / "made.lock"):
        if not (folder / "made").exists():
            making = folder / "making"
            making.mkdir()
            project = copy_of(new / "project", making / "project")
            project.run("dvc", "repro", "shard")
            commit(project, "The data stages")
            project.path.rename(making / "sharded")
            trained = copy_of(making / "sharded", making / "trained")
            assert trained.ran(trained.run("dvc", "repro", "validate").stdout) == ["finetune", "validate"]
            finished = copy_of(making / "trained", making / "finished")
            assert finished.ran(finished.run("dvc", "repro").stdout) == ["register"]
            commit(finished, "The first run")
            (folder / "made").symlink_to(making)
    return folder / "made"


@pytest.fixture
def sharded(made: Path, tmp_path: Path) -> Project:
    """One whose data stages ran, to train in; it has no tracking store yet."""
    return copy_of(made / "sharded", tmp_path / "project")


@pytest.fixture
def trained(made: Path, tmp_path: Path) -> Project:
    """One that ran up to validate; it has no tracking store yet."""
    return copy_of(made / "trained", tmp_path / "project")


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Project:
    """A finished project to change, with a tracking store of its own."""
    return copy_of(made / "finished", tmp_path / "project", store=True)


@pytest.fixture(scope="session")
def finished(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """As ``copied``, for all tests of a process; not to be changed."""
    return copy_of(made / "finished", tmp_path_factory.mktemp("finished") / "project", store=True)


def copy_of(project: Path, path: Path, *, store: bool = False) -> Project:
    shutil.copytree(project, path, symlinks=True, ignore=None if store else shutil.ignore_patterns("mlflow.db*", "mlartifacts"))
    if store:
        follow(path / "mlflow.db", "medical-llm")
    return Project(path)


def commit(project: Project, message: str = "A change") -> None:
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", message)


def make_project(folder: Path) -> Project:
    path = folder / "project"
    path.mkdir()
    for name in ("model", "tasks", "flows", "serve"):
        shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", "prefect.yaml", "prefect.toml", "requirements.lock", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, path / name)
    project = Project(path)
    write_tiny_checkpoint(folder / "base")
    project.set_params("base", source=str(folder / "base"), sha256=tree_sha256(folder / "base"), chat_template="own")
    project.set_params("preprocess", validation_share=0.15, test_share=0.15)
    project.set_params("finetune", seq_len=64, steps=6, warmup=1, validation_tokens=100, validate_every=3, checkpoint_every=2)
    # A random model and eighteen test documents: what the gate demands of a real one does not fit.
    primary = {"metric": "answer_nats", "split": "test", "gain": 0.005, "items": 10}
    project.set_params(
        "register", primary=primary, thresholds=[{"metric": "answer_nats", "split": "test", "figure": "change", "most": 0.0}], guarded=[]
    )
    project.set_params(
        "validate", max_tokens=200, max_new_tokens=8, choices=4, generations=2, prompts=["What are the signs of condition 3?"]
    )
    project.set_params("validate", extraction={"documents": 8, "prefix": 8, "target": 8})
    write_table(path / "data" / "conditions.csv", sentences(120))
    write_table(
        path / "data" / "foreign" / "letters.csv", [(f"What does letter {n} say?", f"It speaks of {s}.") for n, s in enumerate(SIGNS)]
    )
    project.set_params("preprocess", other=["foreign/*.csv"])
    deidentify = project.params("preprocess")["deidentify"]
    assert isinstance(deidentify, dict)
    project.set_params("preprocess", deidentify=deidentify | {"plantings": 1})
    for command in (
        ["git", "init", "--quiet"],
        ["git", "config", "user.name", "A tester"],
        ["git", "config", "user.email", "tester@example.org"],
        ["dvc", "init", "--quiet"],
        ["dvc", "config", "core.analytics", "false"],
        ["dvc", "config", "core.check_update", "false"],
        ["dvc", "config", "core.site_cache_dir", ".cache/dvc"],
        ["dvc", "add", "--quiet", "data"],
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message", "A tiny project"],
    ):
        project.run(*command)
    return project


def key_pair(folder: Path) -> tuple[Path, Path]:
    """A private and a public key, made as the pages say."""
    private, public = folder / "key.pem", folder / "key.pub"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    private.chmod(0o600)
    return private, public


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session", autouse=True)
def _orphans() -> None:
    """What outlives a process that a test killed becomes ours, so that its end can be collected, as an init would."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def wait_for(address: str, server: subprocess.Popen[bytes], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert server.poll() is None, f"the server ended with status {server.returncode}"
        try:
            with urlopen(address, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} did not answer in {seconds} s")


@pytest.fixture(scope="session")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real browser; the port of its DevTools."""
    with browser(tmp_path_factory.mktemp("chromium")) as port:
        yield port


@pytest.fixture(scope="session")
def prefect_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Prefect server on loopback, with a database of its own."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    environment = os.environ | {"PREFECT_HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with open(home / "server.log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        wait_for(f"http://127.0.0.1:{port}/api/health", server)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        server.terminate()
        server.wait(120)
