"""What the wheel holds: the modules that the command ``medllama`` imports, as ``medllama.model``, ``medllama.serve``, ``medllama.tasks``.

In a checkout these packages are at the top, where they have short names. In site-packages such names would meet those of other
projects, so each import of them gets the prefix while the wheel is built. The stages, and whatever no command imports, stay out.
"""

import ast
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NAME = "medllama"
START = f"{NAME}.__main__"
PACKAGES = ("model", "serve", "tasks")
DATA = ("model", "serve")  # packages whose other files come along: the decoding step in C, the web page


def imports(tree: ast.AST) -> Iterator[tuple[ast.ImportFrom, set[str]]]:
    """Every import of the project's packages, anywhere in a module, with the modules that it may name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name.split(".")[0] in PACKAGES for alias in node.names):
            raise ValueError(f"line {node.lineno}: write 'from … import' instead, which the wheel can rename")
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in PACKAGES:
            yield node, {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}


def modules(root: Path) -> dict[str, Path]:
    """The files of the modules that the command imports, directly or through others, with the packages that they are in."""
    files: dict[str, Path] = {}
    waiting = [START]
    while waiting:
        name = waiting.pop()
        path = root.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in files or not path.is_file():  # an attribute of a module, not a module
            continue
        files[name] = path
        waiting += [name.rpartition(".")[0]] if "." in name else []
        waiting += [module for _, named in imports(ast.parse(path.read_text(encoding="utf-8"))) for module in named]
    return files


def renamed(source: str) -> str:
    """The source of a module, with the project's packages imported from below the wheel's one package."""
    lines = source.splitlines(keepends=True)
    for node, _ in imports(ast.parse(source)):
        lines[node.lineno - 1] = re.sub(r"\bfrom (\w)", rf"from {NAME}.\1", lines[node.lineno - 1], count=1)
    return "".join(lines)


def data(root: Path) -> Iterator[Path]:
    """The files of the library and the server that are no modules, relative to ``root``."""
    for package in DATA:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
                yield path.relative_to(root)


class WheelContents(BuildHookInterface):  # type: ignore[misc]
    """Called by hatchling while it builds the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Write the renamed modules to a temporary folder, and tell hatchling what goes where."""
        self._renamed = tempfile.TemporaryDirectory()
        root, included = Path(self.root), build_data["force_include"]
        for path in modules(root).values():
            target = Path(NAME) / path.relative_to(root).relative_to(NAME if path.is_relative_to(root / NAME) else "")
            copy = Path(self._renamed.name) / target
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(renamed(path.read_text(encoding="utf-8")), encoding="utf-8")
            included[str(copy)] = str(target)
        included |= {str(root / path): str(Path(NAME) / path) for path in data(root)}
        included[str(root / "params.yaml")] = f"{NAME}/params.yaml"  # the defaults of plan

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """Remove the temporary folder."""
        self._renamed.cleanup()
