"""Tests do not import tests: what several of them need is in tests/support (tests/README.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.paths import ROOT

TESTS: Final = ROOT / "tests"
PROGRAMS: Final = ("chaos", "clients/programs", "contract/schemathesis_hooks.py")
"""Programs with modules of their own, and files that another program loads by their path."""


def modules(root: Path) -> Iterator[Path]:
    """All Python files of the tests."""
    for path in sorted(root.rglob("*.py")):
        if "node_modules" not in path.parts:
            yield path


def foreign_imports(source: str) -> Iterator[str]:
    """Imports of tests/ from elsewhere than the helpers, and of what the helpers keep to themselves."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "tests")
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "tests":
            for alias in node.names:
                if node.module.split(".")[1:2] != ["support"] or alias.name.startswith("_"):
                    yield f"{node.module}.{alias.name}"


def misplaced(root: Path) -> Iterator[Path]:
    """Helpers outside of tests/support."""
    for path in modules(root):
        name = path.relative_to(root).as_posix()
        is_test = path.name.startswith("test_") or path.name in ("conftest.py", "__init__.py")
        if not is_test and not name.startswith(("support/", *PROGRAMS)):
            yield path


def test_tests_import_only_helpers() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in modules(TESTS)
        for name in foreign_imports(path.read_text("utf-8"))
        if not (name.startswith("tests.chaos.") and path.parent.name == "chaos")
    ]
    assert found == []


def test_helpers_are_in_support() -> None:
    assert [str(path.relative_to(ROOT)) for path in misplaced(TESTS)] == []


def test_every_test_is_in_the_folder_of_a_topic() -> None:
    assert [path.name for folder in (TESTS, TESTS / "gateway") for path in folder.glob("test_*.py")] == []


def test_support_has_no_tests() -> None:
    assert [path.name for path in (TESTS / "support").rglob("test_*.py")] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from tests.support.chat import Chat", []),
        ("from agent_gateway.store.db.url import async_url", []),
        ("from tests.store.test_forms import asked", ["tests.store.test_forms.asked"]),
        ("def f():\n    import tests.store.test_forms", ["tests.store.test_forms"]),
        ("from tests.support.databases import _migrate", ["tests.support.databases._migrate"]),
        ("from tests.hostile.conftest import recording", ["tests.hostile.conftest.recording"]),
    ],
)
def test_an_import_of_a_test_is_found(source: str, found: list[str]) -> None:
    assert list(foreign_imports(source)) == found


def test_a_misplaced_helper_is_found(tmp_path: Path) -> None:
    for name in ("support/chat.py", "store/world.py", "store/test_forms.py", "chaos/run.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert list(misplaced(tmp_path)) == [tmp_path / "store/world.py"]
