"""The house: one name for one thing, and imports in one direction."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("mst_toolkit", "mst_pretrain", "mst_transfer", "examples", "studies")
CODE = (*PACKAGES, "tools", "benchmarks")
# what each may import of this repository and of the libraries that it could do without
FORBIDDEN = {
    "mst_pretrain": {*CODE, "mmdet", "mmcv", "mmseg"} - {"mst_pretrain"},
    "mst_transfer": {*CODE} - {"mst_pretrain", "mst_transfer"},
    "mst_toolkit": {"tools", "examples", "studies", "benchmarks"},
    "examples": {"tools", "studies", "benchmarks"},
    "studies": {"tools", "examples"},
    "benchmarks": {"tools"},
    "tools": {"tools"},
}
ALLOWED = {"mst_toolkit.cli", "mst_toolkit.resources"}  # of these every package may ask where its files are


def modules(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """Every Python file below the folders, parsed."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def imported(path: Path, tree: ast.Module) -> Iterator[str]:
    """Full names of what a module imports, anywhere in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = path.parts[: -node.level] if node.level else ()
            yield ".".join([*parents, *([node.module] if node.module else [])])


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_arrows_run_one_way(folder: str) -> None:
    """Pretraining would need mmdet, a wheel a folder that it lacks, or two packages each other."""
    wrong = [
        f"{path}: {name}"
        for path, tree in modules(folder)
        for name in imported(path, tree)
        if name.partition(".")[0] in FORBIDDEN[folder] and name not in ALLOWED
    ]
    assert wrong == []


def test_no_two_classes_of_one_name() -> None:
    """A reader who searches for a class would find two, and a registry keep one of them."""
    found = Counter(
        node.name for _, tree in modules(*CODE) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in found.items() if count > 1] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_two_files_of_one_name(package: str) -> None:
    """A traceback's or an editor's ``checks.py`` would not say which."""
    found = Counter(path.name for path, _ in modules(package) if path.name != "__init__.py")
    assert [name for name, count in found.items() if count > 1] == []
