"""The unit files of docs/operations.md: systemd takes them, what they start is there, and all are closed as the first says."""

import re
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
from helpers.project import ROOT

UNIT = re.compile(r"^```ini\n# (\S+)\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
HOME = "/srv/medical-llm"


def units() -> dict[str, str]:
    """The files of the page by their paths."""
    return dict(UNIT.findall((ROOT / "docs" / "operations.md").read_text(encoding="utf-8")))


@pytest.mark.slow
def test_every_service_takes_the_common_part_and_starts_what_is_there() -> None:
    found = units()
    common = found.pop("medical-llm-.service.d/common.conf")
    for line in ("UMask=0077", "Restart=on-failure", "NoNewPrivileges=yes", "ProtectSystem=strict", f"ReadWritePaths={HOME}", "User="):
        assert line in common
    for name in ("DO_NOT_TRACK=true", "MLFLOW_DISABLE_TELEMETRY=true", "PREFECT_SERVER_ANALYTICS_ENABLED=false"):
        assert name in common
    assert set(found) == {f"medical-llm-{name}.service" for name in ("prefect", "worker", "serve", "mlflow")}
    for name, text in found.items():
        for command in re.findall(r"^ExecStart(?:Pre)?=(.*)$", text, flags=re.MULTILINE):
            program, *arguments = command.split()
            there = Path(sys.executable).with_name(Path(program).name)
            assert program == f"{HOME}/.venv/bin/{there.name}" and there.exists(), name
            subcommand = takewhile(lambda word: not word.startswith(("--", "models:")), arguments)
            told = subprocess.run([there, *subcommand, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
            assert not [a for a in arguments if a.startswith("--") and a not in told], (name, command)


@pytest.mark.system
def test_systemd_takes_them(tmp_path: Path) -> None:
    folder = tmp_path / "etc" / "systemd" / "system"
    home = tmp_path / "home"
    home.mkdir()
    for name, text in units().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        here = text.replace(f"{HOME}/.venv/bin", str(Path(sys.executable).parent)).replace(HOME, str(home))
        path.write_text(here.replace("User=medical-llm", "User=daemon"))
    services = sorted(folder.glob("*.service"))
    assert verify(services) == ""
    for service in services:
        subprocess.run(["systemctl", f"--root={tmp_path}", "enable", service.name], capture_output=True, check=True)
    assert {path.name for path in (folder / "multi-user.target.wants").iterdir()} == {service.name for service in services}
    common = folder / "medical-llm-.service.d" / "common.conf"  # which is looked at, too
    common.write_text(common.read_text().replace("NoNewPrivileges=yes", "NoNewPrivilege=yes"))
    assert "NoNewPrivilege" in verify(services)


def verify(services: list[Path]) -> str:
    """What systemd-analyze says of them; of other units of the machine it may say more."""
    told = subprocess.run(["systemd-analyze", "verify", *services], capture_output=True, text=True, check=False)
    return "\n".join(line for line in told.stderr.splitlines() if "medical-llm" in line)
