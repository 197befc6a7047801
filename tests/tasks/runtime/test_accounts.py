"""Another account of the machine reads nothing of a project, and nothing that it plants in a cache is ever run by the owner.

As root the tests are two accounts; where they are not, they need sudo.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.accounts import GROUP, MEMBER, OTHER, OWNER, as_root, run_as
from helpers.project import ROOT, Project

from tasks.runtime.permissions import CACHES

pytestmark: list[pytest.MarkDecorator] = [] if os.geteuid() == 0 else [pytest.mark.system]
STAGE = (sys.executable, "-m", "tasks.augment")  # its first act is to close the project; then it asks for its paths
CLOSE = (sys.executable, "-c", "from tasks.runtime.permissions import close_to_others; close_to_others(); print('closed')")


ATTEMPTS = (
    "cat data/conditions.csv",
    "ls artifacts/documents",
    "cat mlflow.db",
    "cat local.yaml .dvc/config.local",
    "find mlartifacts -type f | grep .",
    "ls .dvc/cache/files/md5",
    "ls .cache/records",
    "ls .dvc/tmp",
    "touch .cache/planted",
    "mv .cache/dvc .cache/mine",
    "mkdir -p .cache/dvc/repo/token/links",
    "touch .dvc/tmp/planted",
    "touch mlartifacts/planted",
    "mv .cache mine",
    "touch planted.py",
    "touch .dvc/config.local",
)


class Machine:
    """A directory that every account reaches, and in it the owner's home with a finished project."""

    def __init__(self, folder: Path, finished: Project):
        self.folder, self.home, self.project = folder, folder / "owner", folder / "owner" / "project"
        self.marker = folder / "shared" / "ran"  # what the other account's code writes, where it runs
        as_root("chmod", "755", folder)
        for name, mode in (("owner", 0o755), ("shared", 0o1777)):
            (folder / name).mkdir()
            (folder / name).chmod(mode)
        shutil.copytree(finished.path, self.project, symlinks=True)
        (self.project / "local.yaml").write_text("{}\n")
        (self.project / ".dvc" / "config.local").write_text("# a remote's password: secret\n")
        as_root("chown", "-R", f"{OWNER}:{OWNER}", self.home)
        # As a version of before left it, under a umask of 022.
        as_root("chmod", "-R", "u+rwX,go+rX", self.project)

    def owner(self, *command: str, cwd: str = "", **environment: str) -> "tuple[int, str]":
        result = run_as(OWNER, *command, cwd=self.project / cwd, environment=environment)
        return result.returncode, result.stdout

    def other(self, script: str, *, uid: int = OTHER, group: int = 0) -> "tuple[int, str]":
        result = run_as(uid, "sh", "-c", script, cwd=self.folder / "shared", group=group)
        return result.returncode, result.stdout


@pytest.fixture
def machine(finished: Project) -> Iterator[Machine]:
    # pytest's own folders are closed to other accounts.
    folder = Path(tempfile.mkdtemp(prefix="accounts-", dir="/tmp"))
    try:
        yield Machine(folder, finished)
    finally:
        as_root("rm", "-rf", folder)


def test_after_any_command_another_account_reads_code_only_and_writes_nothing(machine: Machine) -> None:
    _, before = machine.other(f"find {machine.project} -type f -readable")
    assert f"{machine.project}/data/conditions.csv" in before and f"{machine.project}/mlflow.db" in before
    assert machine.owner(*CLOSE) == (0, "closed\n")
    _, output = machine.owner("git", "ls-files")
    code = {str(machine.project / name) for name in output.split()}
    _, listing = machine.other(f"find {machine.project} -type f -readable 2>/dev/null")
    assert not {path for path in listing.split("\n") if path and "/.git/" not in path and "/__pycache__/" not in path} - code
    assert "conditions.csv" not in machine.other(f"grep -r conditions.csv {machine.project} 2>/dev/null")[1]
    assert not machine.other(f"find {machine.project} -not -type l -writable 2>/dev/null")[1]


def test_what_another_account_tries_fails(machine: Machine) -> None:
    machine.owner(*CLOSE)
    for attempt in ATTEMPTS:
        status, output = machine.other(f"cd {machine.project} && {attempt}")
        assert status and "secret" not in output and "signs of" not in output, attempt


@pytest.mark.slow
@pytest.mark.parametrize("where", [".cache", ".cache/dvc", ".cache/torchinductor", ".dvc/tmp", ".dvc/cache", "mlartifacts"])
def test_what_another_account_planted_while_it_could_is_named_and_refused(machine: Machine, where: str) -> None:
    machine.owner(*CLOSE)
    machine.owner("mkdir", "-p", where)
    for step in (Path(where), *Path(where).parents):  # as it would be under a umask of 000
        as_root("chmod", "o+rwx", machine.project / step)
    assert machine.other(f"touch {machine.project}/{where}/planted") == (0, "")
    status, output = machine.owner(*STAGE)
    assert status == 1 and "Traceback" not in output
    assert "another account of this machine could decide what runs here" in output
    assert f"{machine.project}/{where}/planted belongs to the account {OTHER}" in output and "remove it" in output
    as_root("rm", machine.project / where / "planted")
    assert "usage: python -m tasks.augment" in machine.owner(*STAGE)[1]
    assert machine.other(f"touch {machine.project}/{where}/planted")[0]


@pytest.mark.parametrize("where", [".cache", ".dvc/tmp", "mlartifacts"])
def test_a_cache_that_is_another_accounts_or_a_link_to_it_is_refused(machine: Machine, where: str) -> None:
    machine.owner("rm", "-rf", where)
    machine.other("mkdir mine && chmod 755 mine")
    (machine.project / where).symlink_to(machine.folder / "shared" / "mine")
    as_root("chown", "-h", f"{OWNER}:{OWNER}", machine.project / where)
    status, output = machine.owner(*STAGE)
    assert status == 1 and f"shared/mine belongs to the account {OTHER}" in output


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CACHES))
def test_a_librarys_cache_that_another_account_owns_or_may_write_is_refused(machine: Machine, name: str) -> None:
    machine.other("mkdir mine && chmod 755 mine")
    status, output = machine.owner(*STAGE, **{name: str(machine.folder / "shared" / "mine")})
    assert status == 1 and f"shared/mine belongs to the account {OTHER}" in output and f"let {name} name a directory of your own" in output
    machine.owner("mkdir", "-m", "777", str(machine.folder / "shared" / "ours"))
    assert machine.other("touch ours/planted") == (0, "")
    status, output = machine.owner(*STAGE, **{name: str(machine.folder / "shared" / "ours")})
    # DVC opens its own to everybody, so it is closed; what others left in it is not taken.
    problem = f"ours/planted belongs to the account {OTHER}" if name == "DVC_SITE_CACHE_DIR" else "ours may be written by everybody"
    assert status == 1 and f"shared/{problem}" in output
    as_root("rm", machine.folder / "shared" / "ours" / "planted")
    machine.owner("chmod", "700", str(machine.folder / "shared" / "ours"))
    assert "usage: python -m tasks.augment" in machine.owner(*STAGE, **{name: str(machine.folder / "shared" / "ours")})[1]


@pytest.mark.slow
def test_libraries_look_into_no_directory_with_a_name_that_others_know(machine: Machine) -> None:
    """A service's account often has no home but /tmp, in which everybody can be first."""
    home = machine.folder / "shared"
    machine.other("mkdir -p .config/matplotlib torchinductor_account61001 && echo 'backend: evil' > .config/matplotlib/matplotlibrc")
    script = (
        "from tasks.runtime.permissions import close_to_others; close_to_others()\n"
        "import matplotlib; from torch._inductor.runtime.cache_dir_utils import cache_dir; from dvc.repo import Repo\n"
        "import huggingface_hub.constants as hub\n"
        "print('\\n'.join(map(str, ('looks', matplotlib.get_configdir(), matplotlib.get_cachedir(), cache_dir(), Repo().site_cache_dir,\n"
        "    hub.HF_HOME))))\n"
    )
    status, output = machine.owner(sys.executable, "-c", script, HOME=str(home), TMPDIR=str(home))
    assert status == 0, output
    looks = output[output.index("looks") :].split()[1:]
    assert len(looks) == 5 and all(Path(path).is_relative_to(machine.project / ".cache") for path in looks), looks


class TestDecoding:
    """The C library that is compiled once per machine."""

    WHERE = "from model.generation import compiled; print(compiled.library())"

    def planted(self, machine: Machine, folder: Path) -> None:
        """The other account's library, under the name under which the owner will look for it."""
        script = "import ctypes; from model.generation import compiled\nctypes.CDLL = lambda path: path\n"
        script += "print('NAME', compiled.library().split('/')[-1])"
        _, output = machine.owner(sys.executable, "-W", "ignore", "-c", script, XDG_CACHE_HOME=str(machine.home / "first"))
        name = output.split("NAME ")[1].strip()
        source = (
            f'#include <fcntl.h>\\n__attribute__((constructor)) void run(void) {{ open("{machine.marker}", O_CREAT | O_WRONLY, 0644); }}\\n'
        )
        status, output = machine.other(f"mkdir -p {folder} && printf '{source}' > p.c && cc -shared -fPIC p.c -o {folder}/{name}")
        assert status == 0, output

    @pytest.mark.slow
    @pytest.mark.parametrize("whose", ["another account's", "open to everybody", "a file of another account", "below an open one"])
    def test_one_that_another_account_could_have_written_is_never_loaded(self, machine: Machine, whose: str) -> None:
        cache = machine.folder / "shared" / "cache"
        if whose != "another account's":
            machine.owner("mkdir", "-p", "-m", "777", str(cache / "llama-decode"))
            machine.owner("chmod", "777", str(cache), str(cache / "llama-decode"))
        self.planted(machine, cache / "llama-decode")
        if whose == "a file of another account":
            machine.owner("chmod", "755", str(cache), str(cache / "llama-decode"))
        if whose == "below an open one":
            machine.owner(
                "sh", "-c", f"cp -r {cache}/llama-decode {cache}/own && rm -rf {cache}/llama-decode && mv {cache}/own {cache}/llama-decode"
            )
            machine.owner("chmod", "755", str(cache / "llama-decode"))
        status, output = machine.owner(sys.executable, "-c", self.WHERE, XDG_CACHE_HOME=str(cache))
        assert status == 0 and "a library that another account could have written is not loaded" in output, output
        assert "belongs to the account" in output or "may be written by everybody" in output
        assert not machine.marker.exists()

    @pytest.mark.slow
    def test_the_owners_is(self, machine: Machine) -> None:
        status, output = machine.owner(sys.executable, "-c", self.WHERE, XDG_CACHE_HOME=str(machine.home / "cache"))
        assert status == 0 and "CDLL" in output


class TestAGroupThatIsLetIn:
    @pytest.fixture
    def shared(self, machine: Machine) -> Machine:
        (machine.project / "local.yaml").write_text('UMASK: "007"\n')
        as_root("chgrp", "-R", str(GROUP), machine.project)
        as_root("chmod", "-R", "g+rwX", machine.project)
        return machine

    def test_may_write_and_nobody_else(self, shared: Machine) -> None:
        assert shared.owner(*CLOSE) == (0, "closed\n")
        target = shared.project / "artifacts" / "a-members"
        assert shared.other(f"touch {target} && chgrp {GROUP} {target}", uid=MEMBER, group=GROUP) == (0, "")
        assert shared.other(f"ls {shared.project}/artifacts")[0]
        assert shared.owner(*CLOSE) == (0, "closed\n")

    def test_may_have_files_in_caches_and_nobody_else(self, shared: Machine) -> None:
        target = shared.project / ".cache" / "dvc"
        shared.owner("mkdir", "-p", str(target))
        as_root("chmod", "777", target, target.parent, shared.project)
        shared.other(f"touch {target}/a-members && chgrp {GROUP} {target}/a-members", uid=MEMBER, group=GROUP)
        assert shared.owner(*CLOSE) == (0, "closed\n")
        as_root("chmod", "777", target, target.parent, shared.project)
        shared.other(f"touch {target}/anothers")
        assert f"anothers belongs to the account {OTHER}" in shared.owner(*CLOSE)[1]


class TestDVC:
    """Its site cache, which it unpickles, is the project's, whoever calls it from where."""

    def here(self, machine: Machine) -> set[str]:
        _, left = machine.other(f"find /var/tmp/dvc -uid {OWNER}")
        assert not [line for line in left.split("\n") if line.startswith("/var")], left
        _, listing = machine.owner("find", str(machine.project), "-path", "*/repo/*/links", "-not", "-path", "*/exps/*")
        return {str(Path(line).relative_to(machine.project).parents[2]) for line in listing.split()}

    def test_typed_in_the_projects_directory(self, machine: Machine) -> None:
        machine.owner("rm", "-rf", ".cache/dvc")
        status, output = machine.owner(sys.executable, "-m", "dvc", "status")
        assert status == 0, output
        assert self.here(machine) == {".cache/dvc"}

    @pytest.mark.slow
    def test_typed_in_a_directory_below_with_the_projects_environment(self, machine: Machine) -> None:
        machine.owner("rm", "-rf", ".cache/dvc")
        machine.owner(sys.executable, "-m", "venv", "--without-pip", ".venv")
        (packages,) = (machine.project / ".venv" / "lib").glob("python3*/site-packages")
        shutil.copy(ROOT / "tasks" / "runtime" / "environment.pth", packages)
        (site,) = (path for path in sys.path if path.endswith("site-packages"))
        (packages / "more.pth").write_text(f"{site}\n")
        python = str(machine.project / ".venv" / "bin" / "python")
        for folder in ("tasks/corpus/deidentify", "data"):
            status, output = machine.owner(python, "-m", "dvc", "status", cwd=folder)
            assert status == 0, output
        assert self.here(machine) == {".cache/dvc"}
        assert not machine.other(f"ls {machine.project}/.cache/dvc")[1].startswith("repo")

    @pytest.mark.slow
    def test_opened_by_a_flow_or_run_by_one(self, machine: Machine) -> None:
        machine.owner("rm", "-rf", ".cache/dvc")
        script = (
            f"import sys; sys.path.insert(0, {str(machine.project)!r})\n"
            "from flows import dvc_process; print(dvc_process.stages(), list(dvc_process.dvc_lines(['status'])))"
        )
        status, output = machine.owner(sys.executable, "-c", script, cwd="..")
        assert status == 0 and "'register'" in output, output
        assert self.here(machine) == {".cache/dvc"} and not (machine.home / ".cache" / "dvc").exists()
