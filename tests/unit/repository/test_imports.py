"""Who may import whom (docs/architecture.md), read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LEAVES = {"errors", "failpoints", "timing"}
MAY_IMPORT = {
    "security": LEAVES,
    "proto": LEAVES,
    "journal": LEAVES,
    "graph": LEAVES | {"proto"},
    "dispatcher": LEAVES | {"proto", "journal", "recovery", "security"},
    "worker": LEAVES | {"proto", "journal", "graph", "security"},
    "client": LEAVES | {"proto", "journal", "graph", "recovery", "security"},
    "recovery": LEAVES | {"proto"},
    "testing": LEAVES | {"proto", "journal", "graph", "security"},
    "faults": LEAVES | {"proto", "journal", "client", "worker", "bench", "soak", "cli"},
}
TENSORFLOW_FILES = {
    "client/dataset.py",
    "client/batches.py",
    "client/direct.py",
    "client/eager.py",
    "client/varying.py",
    "client/groundtruth.py",
    "client/keras_callbacks.py",
    "client/keras_in_situ.py",
    "client/tracking.py",
    "faults/data.py",
    "faults/trainer.py",
}
TENSORFLOW_PACKAGES = {"graph", "worker"}


def imports_of(path: Path) -> list[tuple[int, str, bool]]:
    """(level, module, only for type checking) of every import in a file, nested ones too."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, id(node) in typing_only) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found += [(node.level, name, id(node) in typing_only) for name in names]
    return found


def sources(package: str) -> list[Path]:
    return [path for path in (ROOT / package).rglob("*.py") if "_pb2" not in path.name]


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_a_package_imports_only_what_the_design_allows(package: str) -> None:
    for path in sources(package):
        depth = len(path.relative_to(ROOT).parts)
        for level, module, _ in imports_of(path):
            assert level > 0 or not module.startswith("penstock"), f"{path}: use relative imports"
            if level == depth:
                target = module.split(".")[0]
                assert target in MAY_IMPORT[package] | {package}, f"{path} imports {module}"


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_tensorflow_is_imported_only_where_pipelines_are_handled(package: str) -> None:
    if package in TENSORFLOW_PACKAGES:
        return
    for path in sources(package):
        if str(path.relative_to(ROOT)) in TENSORFLOW_FILES:
            continue
        for level, module, typing_only in imports_of(path):
            if level == 0 and not typing_only:
                assert module.split(".")[0] not in {"tensorflow", "keras"}, f"{path}: {module}"


@pytest.mark.parametrize(
    "module",
    [
        "penstock",
        "penstock.dispatcher.server",
        "penstock.journal",
        "penstock.client.reader",
        "penstock.cli.main",
    ],
)
def test_a_module_that_needs_no_tensorflow_does_not_load_it(module: str) -> None:
    script = f"import sys, {module}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
