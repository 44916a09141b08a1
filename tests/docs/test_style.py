"""The style page compares this code with others by a script, and says where we are behind."""

import re
from pathlib import Path
from typing import Final

import pytest

from dev.measure import (
    ANCHORS,
    COLUMNS,
    OURS,
    PAGE,
    Figures,
    measure,
    measure_module,
    summed_up,
    table,
    written,
)

BEHIND: Final = re.compile(r"^- \*\*(.+?)\*\*: \S", re.MULTILINE)

SAMPLE: Final = '''"""A module
of two lines."""

from typing import Any, cast

LIMIT = 3
"""An attribute."""


class Reader:
    # Why it is there.
    def read(self, first: dict[str, Any], second: int = 0, *rest: int, third: int) -> int:  # a remark
        for one in rest:
            if one:
                return cast(int, one)
            elif second:
                match third:
                    case 1:

                        def nested() -> None:
                            if one: pass

                        return 2  # type: ignore[thing]
        return 0
'''


@pytest.fixture(scope="module")
def ours() -> Figures:
    return summed_up(measure(OURS))


def _rows(text: str) -> dict[str, str]:
    return {line.split(" | ")[0]: line for line in text.splitlines() if line.startswith("|")}


def test_a_module_is_measured_as_the_page_describes(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(SAMPLE)
    module = measure_module(path)
    assert (module.lines, module.docstring_lines, module.comment_lines) == (24, 3, 1)
    assert (module.anys, module.dicts, module.casts, module.ignores) == (2, 1, 1, 1)
    functions = {function.name: function for function in module.functions}
    assert set(functions) == {"read", "nested"}
    read = functions["read"]
    # The loop, the `if` with its `elif`, the match and its case; the nested function counts by itself.
    assert (read.lines, read.arguments, read.nesting) == (13, 3, 4)
    assert (functions["nested"].arguments, functions["nested"].nesting) == (0, 1)


def test_the_table_of_the_page_was_written_by_the_script(ours: Figures) -> None:
    page = PAGE.read_text("utf-8")
    before = _rows(page)
    after = _rows(written(page, ours))
    assert before.keys() == after.keys(), "dev/measure.py --write has not been run"
    # Our figures change with each commit, those of the others do not.
    unchanged = {name for name in after if name not in ("| **agent-gateway**", "| our rank of 8")}
    assert {name: before[name] for name in unchanged} == {name: after[name] for name in unchanged}
    assert set(_rows(table(ANCHORS))) <= unchanged


def test_the_page_explains_each_figure_that_is_behind_most_others(ours: Figures) -> None:
    behind = {column.heading for column in COLUMNS if any(rank > 4 for rank in column.ranks(ours))}
    assert behind <= set(BEHIND.findall(PAGE.read_text("utf-8")))
