"""The house rules that a machine can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
PACKAGES = (
    "proto",
    "journal",
    "graph",
    "dispatcher",
    "worker",
    "client",
    "cli",
    "testing",
    "bench",
    "recovery",
    "soak",
    "faults",
)
FOLDERS = (*PACKAGES, "tests")


def python_files(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in [*sorted(ROOT.glob("*.py")), *found] if "_pb2" not in path.name]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", python_files(*FOLDERS), ids=name_of)
def test_no_file_is_too_long(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= FILE_LINES_MAX, f"{lines} lines: is there a second idea in it?"


@pytest.mark.parametrize("path", python_files(*FOLDERS), ids=name_of)
def test_no_function_is_too_long(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name}: {lines} lines"


@pytest.mark.parametrize("path", python_files(*PACKAGES), ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    source = path.read_text()
    assert not source.strip() or ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_opens_with_its_theory_of_operation(package: str) -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text()))
    assert docstring is not None
    assert len(docstring.splitlines()) >= 5


@pytest.mark.parametrize("path", python_files(*PACKAGES), ids=name_of)
def test_nothing_from_a_wire_or_a_file_is_unpickled_or_evaluated(path: Path) -> None:
    forbidden = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not forbidden & {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in forbidden
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"eval", "exec"}
