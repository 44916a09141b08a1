"""docs/design and the code name the same invariants and rules, and the tests that hold them.

The pages are the only table. Rename a test, and the failure here says which line of which page to edit.
"""

import ast
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from agent_gateway.domain.turns import Outcome, TurnState
from agent_gateway.store.db.tables import Row
from tests.support.paths import ROOT

DURABILITY: Final = "docs/design/durability.md"
PAGES: Final = ("docs/design/invariants.md", DURABILITY)
CODE: Final = ("src", "tests", "alembic", "dev", "docs")
NUMBER: Final = re.compile(r"\b[IR]\d{1,2}\b")
IN_NAME: Final = re.compile(r"test_([ir]\d{1,2})_", re.IGNORECASE)
HEADING: Final = re.compile(r"## ([IR]\d{1,2}): \S")
HELD_BY: Final = re.compile(r"- `(test_\w+\.py)::(test_\w+)`")
DOCUMENT: Final = re.compile(r"(?<![\w./-])[\w./-]+\.md\b")


@dataclass(frozen=True)
class Named:
    """A test as a page names it: by the name of its file, in whichever folder that is."""

    file: str
    name: str
    where: str
    """Page and line."""

    def __str__(self) -> str:
        return f"{self.file}::{self.name}"


@dataclass
class Rule:
    """A heading of a page: an invariant or a rule."""

    number: str
    where: str
    text: str = ""
    tests: list[Named] = field(default_factory=list)


@dataclass(frozen=True)
class FoundTest:
    """A test function, and the numbers that its name, its docstring or its body cites."""

    path: Path
    name: str
    cites: frozenset[str]

    def __str__(self) -> str:
        return f"{self.path.name}::{self.name}"


def read_rules(root: Path = ROOT) -> list[Rule]:
    """The invariants and rules of the pages, in order."""
    rules: list[Rule] = []
    for page in PAGES:
        rule: Rule | None = None
        for number, line in enumerate((root / page).read_text("utf-8").splitlines(), start=1):
            if line.startswith("## "):
                heading = HEADING.match(line)
                rule = Rule(heading[1], f"{page}:{number}") if heading else None
                rules += [rule] if rule else []
            elif rule and (named := HELD_BY.fullmatch(line)):
                rule.tests.append(Named(named[1], named[2], f"{page}:{number}"))
            elif rule and line != "Held by:":
                rule.text += line
    return rules


def files(root: Path, folder: str, *suffixes: str) -> Iterator[Path]:
    """The files of a folder, without what tools have put there."""
    for found, folders, names in os.walk(root / folder):
        folders[:] = sorted(name for name in folders if name != "node_modules" and not name.startswith("."))
        yield from (Path(found, name) for name in sorted(names) if name.endswith(suffixes))


@cache
def read_tests(root: Path = ROOT) -> tuple[FoundTest, ...]:
    """Every test function below tests/, found in the source: nothing is imported."""
    found: list[FoundTest] = []
    for path in files(root, "tests", ".py"):
        if not path.name.startswith("test_"):
            continue
        source = path.read_text("utf-8")
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                own = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                in_name = [number.upper() for number in IN_NAME.findall(node.name)]
                cites = () if path == Path(__file__) else {*in_name, *NUMBER.findall(own)}
                found.append(FoundTest(path, node.name, frozenset(cites)))
    return tuple(found)


def unheld(rules: Iterable[Rule]) -> Iterator[str]:
    """Rules that say nothing, that no test holds, or that are there twice."""
    seen: dict[str, str] = {}
    for rule in rules:
        if rule.number in seen:
            yield f"{rule.where}: {rule.number} has a heading at {seen[rule.number]} already"
        seen[rule.number] = rule.where
        if not rule.text.strip():
            yield f"{rule.where}: {rule.number} says nothing: write what must be true"
        if not rule.tests:
            yield (
                f"{rule.where}: no test holds {rule.number}: below `Held by:`, write a line "
                "- `test_file.py::test_name` for each test that fails when it is broken"
            )


def unknown_numbers(root: Path, rules: Iterable[Rule]) -> Iterator[str]:
    """Citations of numbers that have no heading."""
    known = {rule.number for rule in rules}
    for folder in CODE:
        for path in files(root, folder, ".py", ".md"):
            if path == Path(__file__):
                continue
            for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
                cited = {*NUMBER.findall(line), *(name.upper() for name in IN_NAME.findall(line))}
                for unknown in sorted(cited - known):
                    yield (
                        f"{path.relative_to(root)}:{number}: cites {unknown}, which has no heading in "
                        f"{' or '.join(PAGES)}: correct the number, or write the rule"
                    )


def missing_tests(rules: Iterable[Rule], tests: Iterable[FoundTest]) -> Iterator[str]:
    """Tests that a page names and that are not there, with what to write in their place."""
    by_name: dict[str, list[FoundTest]] = {}
    for test in tests:
        by_name.setdefault(str(test), []).append(test)
    for rule in rules:
        for named in rule.tests:
            found = by_name.get(str(named), [])
            if not found:
                yield f"{named.where}: there is no test {named}: {_instead(named, rule, tests)}"
            elif len(found) > 1:
                places = ", ".join(str(test.path) for test in found)
                yield f"{named.where}: {named} names several tests: rename all but one of them ({places})"
            if rule.tests.count(named) > 1 or [str(other) for other in rule.tests].count(str(named)) > 1:
                yield f"{named.where}: {named} is named twice under {rule.number}: delete one of the lines"


def _instead(named: Named, rule: Rule, tests: Iterable[FoundTest]) -> str:
    moved = [str(test) for test in tests if test.name == named.name]
    close = get_close_matches(
        str(named), [str(test) for test in tests if test.path.name == named.file], cutoff=0.5
    )
    if likely := moved or close:
        return f"replace it in this line by its new name, perhaps {' or '.join(likely)}"
    return (
        f"replace it in this line by its new name, or by another test that fails when {rule.number} is broken"
    )


def unlisted_tests(rules: Iterable[Rule], tests: Iterable[FoundTest]) -> Iterator[str]:
    """Tests that cite a number and are not named under it."""
    for rule in rules:
        listed = {str(named) for named in rule.tests}
        for test in tests:
            if rule.number in test.cites and str(test) not in listed:
                yield f"{rule.where}: {test} cites {rule.number}: add the line - `{test}` to its list"


def report(problems: Iterable[str]) -> None:
    """Fail with all of these, if there are any."""
    if found := "\n".join(problems):
        pytest.fail(f"\n{found}", pytrace=False)


def test_every_rule_has_a_text_and_a_test() -> None:
    rules = read_rules()
    assert {rule.number[0] for rule in rules} == {"I", "R"}
    report(unheld(rules))


def test_every_cited_number_has_a_heading() -> None:
    report(unknown_numbers(ROOT, read_rules()))


def test_every_test_named_by_the_pages_exists() -> None:
    report(missing_tests(read_rules(), read_tests()))


def test_every_test_that_cites_a_number_is_named_under_it() -> None:
    report(unlisted_tests(read_rules(), read_tests()))


def test_every_document_cited_by_the_code_exists() -> None:
    for folder in ("src", "alembic"):
        for path in files(ROOT, folder, ".py"):
            for cited in DOCUMENT.findall(path.read_text("utf-8")):
                assert (ROOT / cited).is_file(), (
                    f"{path.relative_to(ROOT)} cites {cited}: write its whole path"
                )


def test_the_tables_and_states_of_the_page_equal_the_code() -> None:
    page = (ROOT / DURABILITY).read_text("utf-8").split("## Rows")[1].split("\n## ")[0]
    shown: dict[str, set[str]] = {}
    for section in page.split("\n### ")[1:]:
        rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
        shown[section.splitlines()[0]] = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert shown.pop("States") == {state.value for state in TurnState}
    assert {"turns", "messages", "forms", "outbox"} <= shown.keys()
    for table, columns in shown.items():
        assert columns == set(Row.metadata.tables[table].columns.keys()), f"the table {table} in {DURABILITY}"
    outcomes = next(line for line in page.splitlines() if line.startswith("| `outcome`"))
    assert {outcome.value for outcome in Outcome} <= set(re.findall(r"`(\w+)`", outcomes))


# -- the check itself ------------------------------------------------------------------------------

PAGE: Final = """# Page

## I1: One

True.

Held by:

- `test_a.py::test_i1_one`

## Other
"""


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("I1: One", "I1: One"), ""),
        (("True.", ""), "I1 says nothing"),
        (("- `test_a.py::test_i1_one`", ""), "no test holds I1"),
        (("## Other", "## I1: Again"), "I1 has a heading at docs/design/invariants.md:3 already"),
        (("## I1", "## I2"), "tests/deep/test_a.py:1: cites I1, which has no heading"),
        (("test_a.py", "test_b.py"), "invariants.md:9: there is no test test_b.py::test_i1_one: replace it"),
        (("test_i1_one", "test_i1_on"), "by its new name, perhaps test_a.py::test_i1_one"),
        (("Held by:\n\n", "Held by:\n\n- `test_a.py::test_two`\n"), ""),
        (("- `test_a.py::test_i1_one`", "- `test_a.py::test_two`"), "test_a.py::test_i1_one cites I1: add"),
        (("True.", "True. See R9."), "docs/design/invariants.md:5: cites R9"),
        (("## Other", "- `test_a.py::test_i1_one`"), "is named twice under I1"),
    ],
)
def test_a_mismatch_is_reported_with_the_line_to_edit(
    tmp_path: Path, change: tuple[str, str], told: str
) -> None:
    for folder in ("docs/design", "tests/deep"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / PAGES[0]).write_text(PAGE.replace(*change))
    (tmp_path / PAGES[1]).write_text("")
    (tmp_path / "tests/deep/test_a.py").write_text(
        "def test_i1_one():\n    pass\n\n\ndef test_two():\n    pass\n"
    )
    rules, tests = read_rules(tmp_path), read_tests(tmp_path)
    problems = [
        *unheld(rules),
        *unknown_numbers(tmp_path, rules),
        *missing_tests(rules, tests),
        *unlisted_tests(rules, tests),
    ]
    assert (told in "\n".join(problems)) if told else problems == []
