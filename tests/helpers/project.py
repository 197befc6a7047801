"""A copy of the project, with a tiny corpus, model and params, in a repository of its own; keys, ports and servers for tests."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from ruamel.yaml import YAML

from helpers.builders import SIGNS, sentences, write_table, write_tiny_checkpoint
from tasks.corpus.deidentify.lexicon import LEXICON, lexicon
from tasks.registry.relocation import follow
from tasks.runtime.digests import sha256, tree_sha256

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = ROOT / ".cache" / "tests" / "projects"
# What a project is a copy of.
CODE = ("model", "tasks", "flows", "serve")
SETTINGS = ("dvc.yaml", "params.yaml", "prefect.yaml", "prefect.toml", "requirements.lock", ".gitignore", ".dvcignore")

# For what a test waits for, on the slowest of machines; only a test that fails waits so long.
PATIENCE = 600.0


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
        section_values: dict[str, object] = YAML(typ="safe").load(self.path / "params.yaml")[section]
        return section_values

    def set_params(self, section: str, **values: object) -> None:
        yaml = YAML(typ="safe")
        content = yaml.load(self.path / "params.yaml")
        content[section] |= values
        yaml.dump(content, self.path / "params.yaml")

    def ran(self, output: str) -> list[str]:
        """The stages of the pipeline that DVC ran, from its output; without the check of params.yaml, which follows each edit of it."""
        names = [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]
        return [name for name in names if name != "check_params"]


def copy_of(project: Path, path: Path, *, store: bool = False) -> Project:
    shutil.copytree(project, path, symlinks=True, ignore=None if store else shutil.ignore_patterns("mlflow.db*", "mlartifacts"))
    if store:
        follow(path / "mlflow.db", "medical-llm")
    return Project(path)


def commit(project: Project, message: str = "A change") -> None:
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", message)


def projects_key() -> str:
    """Of all that the projects of ``make_project`` are made from, and the processor that trains them."""
    files = [path for name in CODE for path in sorted((ROOT / name).rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    files += [*(ROOT / name for name in SETTINGS), *sorted((ROOT / "tests" / "helpers").glob("*.py")), ROOT / "tests" / "conftest.py"]
    processor = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "")
    parts = [sys.version, processor, *(f"{path.relative_to(ROOT)} {sha256(path)}" for path in files)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def make_project(folder: Path) -> Project:
    path = folder / "project"
    path.mkdir()
    for name in CODE:
        shutil.copytree(ROOT / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in SETTINGS:
        shutil.copy(ROOT / name, path / name)
    lexicon()  # built where the code stands, from wheels; a copy of the code takes a copy of it
    shutil.copytree(LEXICON, path / LEXICON.relative_to(ROOT))
    project = Project(path)
    write_tiny_checkpoint(folder / "base")
    project.set_params("base", source=str(folder / "base"), sha256=tree_sha256(folder / "base"), chat_template="own")
    project.set_params("preprocess", validation_share=0.15, test_share=0.15)
    project.set_params("finetune", seq_len=64, batch=2, micro_batch=2, steps=6, warmup=1, lr=2e-4, unlikelihood=1.0)
    project.set_params("finetune", validation_tokens=100, validate_every=3, checkpoint_every=2)
    # A random model and eighteen test documents: what the gate demands of a real one does not fit.
    primary = {"metric": "answer_nll", "split": "test", "min_improvement": 0.005, "items": 10}
    project.set_params(
        "register", primary=[primary], thresholds=[{"metric": "answer_nll", "split": "test", "figure": "change", "max": 0.0}], guardrails=[]
    )
    project.set_params(
        "validate", max_tokens=200, max_new_tokens=8, choices=4, generations=2, prompts=["What are the signs of condition 3?"]
    )
    project.set_params("validate", extraction={"documents": 8, "prefix": 8, "target": 8})
    write_table(path / "data" / "conditions.csv", sentences(120))
    write_table(
        path / "data" / "foreign" / "letters.csv", [(f"What does letter {n} say?", f"It speaks of {s}.") for n, s in enumerate(SIGNS)]
    )
    project.set_params("preprocess", ood=["foreign/*.csv"])
    deidentify = project.params("preprocess")["deidentify"]
    assert isinstance(deidentify, dict)
    project.set_params("preprocess", deidentify=deidentify | {"injections": 1})
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


def key_pair(folder: Path, *, kind: str = "EC") -> tuple[Path, Path]:
    """A private and a public key, made as the pages say; or of the kind "ed25519", as older pages said."""
    private, public = folder / "key.pem", folder / "key.pub"
    curve = ["-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "EC" else []
    subprocess.run(["openssl", "genpkey", "-algorithm", kind, *curve, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    private.chmod(0o600)
    return private, public


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
