import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from tasks.digests import dvc_digest


def test_digests_are_those_that_dvc_writes(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name, content in {"b.txt": "two", "a/z.txt": "one", "a.txt": "three", "a/ä.txt": "four", "empty": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (tmp_path / "file").write_text("alone")
    for command in (["init", "--no-scm", "--quiet"], ["add", "--quiet", "folder", "file"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    for name in ("folder", "file"):
        written = YAML(typ="safe").load(tmp_path / f"{name}.dvc")["outs"][0]["md5"]
        assert dvc_digest(tmp_path / name) == written
