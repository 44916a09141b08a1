#!/usr/bin/env python3
"""Measures the code, beside the projects that docs/design/style.md compares it with.

    dev/measure.py                    the table, and what is over our limits
    dev/measure.py --write            puts the table into docs/design/style.md
    dev/measure.py ../httpx/httpx     the same figures of other source trees

Any Python from 3.11 runs it. It only reads files.
"""

import argparse
import ast
import math
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OURS = ROOT / "src/agent_gateway"
PAGE = ROOT / "docs/design/style.md"
BEGIN, END = "<!-- dev/measure.py: begin -->", "<!-- dev/measure.py: end -->"

MAX_MODULE, MAX_FUNCTION = 300, 40
"""Lines."""
MAX_ARGUMENTS, MAX_NESTING = 7, 3
"""Arguments besides `self`; blocks in blocks."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
BLOCKS = (
    *(ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith),
    *(ast.Try, ast.TryStar, ast.Match, ast.match_case),
)
SUPPRESSION = re.compile(r"#\s*(type|pyrefly|pyright|mypy|ty):\s*ignore")


@dataclass(frozen=True)
class Figures:
    """What is measured of a source tree; sizes are lines."""

    lines: int
    module_median: float
    module_p90: int
    module_max: int
    function_median: float
    function_p90: int
    function_p99: int
    function_max: int
    long_functions: int
    many_arguments: int
    deep_functions: int
    any_per_1000: float
    dicts_per_1000: float
    casts: int
    ignores: int
    docstring_percent: float | None = None
    comment_percent: float | None = None


ANCHORS = {
    "httpx": Figures(8_828, 248, 641, 2019, 9, 34, 80, 133, 27, 36, 8, 8.6, 0, 1, 12, 17.4, 4.0),
    "starlette": Figures(6_700, 142, 548, 876, 5, 27, 60, 149, 21, 13, 4, 35, 5.2, 11, 43, 4.2, 2.5),
    "uvicorn": Figures(5_800, 70, 539, 606, 9, 37, 120, 163, 22, 5, 7, 9, 2.4, 25, 54),
    "procrastinate": Figures(9_800, 17, 242, 1042, 8, 32, 88, 126, 30, 6, 0, 35, 8.0, 9, 49, 17.0, 2.9),
    "mcp, `server/`": Figures(
        13_700, 137, 516, 1350, 11, 48, 156, 203, 69, 22, 12, 30, 7.9, 8, 12, 21.8, 6.2
    ),
    "a2a-python, `server/`": Figures(8_800, 96, 430, 781, 13, 45, 98, 138, 45, 3, 5, 14, 5.7, 12, 21),
    "svcs": Figures(2_600, 273, 1199, 1199, 10, 30, 72, 95, 6, 17, 0, 10.7, 0.8, 6, 14),
}
"""Measured in November 2026 with the same definitions. Only three have all figures."""


@dataclass(frozen=True)
class Function:
    """A function of a module, methods and nested ones included."""

    name: str
    lines: int
    arguments: int
    nesting: int


@dataclass(frozen=True)
class Module:
    """A measured source file."""

    path: Path
    lines: int
    functions: list[Function]
    anys: int
    dicts: int
    casts: int
    ignores: int
    docstring_lines: int
    comment_lines: int


def nesting(node: ast.AST, depth: int = 0) -> int:
    """How deep blocks stand in blocks; `elif` is no level, and a nested function counts by itself."""
    deepest = depth
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            continue
        is_elif = isinstance(child, ast.If) and isinstance(node, ast.If) and node.orelse == [child]
        is_level = isinstance(child, BLOCKS) and not is_elif
        deepest = max(deepest, nesting(child, depth + is_level))
    return deepest


def measure_function(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    """Measure a function; `self`, `*args` and `**kwargs` are no arguments."""
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    arguments = len(names) - (names[:1] in (["self"], ["cls"]))
    return Function(node.name, _lines(node), arguments, nesting(node))


def docstring_lines(node: ast.AST) -> int:
    """The lines of a text that stands alone, which documents a module, class, function or attribute."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return _lines(node)
        case _:
            return 0


def measure_module(path: Path) -> Module:
    """Measure a source file."""
    source = path.read_text(encoding="utf-8")
    nodes = list(ast.walk(ast.parse(source)))
    # Only the cast of types: SQL has one, too.
    has_cast = re.search(r"^from typing import .*\bcast\b", source, re.MULTILINE)
    return Module(
        path=path,
        lines=len(source.splitlines()),
        functions=[measure_function(node) for node in nodes if isinstance(node, FUNCTIONS)],
        anys=len(re.findall(r"\bAny\b", source)),
        dicts=source.count("dict[str, Any]"),
        casts=len(re.findall(r"(?<![\w.])cast\(", source)) if has_cast else 0,
        ignores=len(SUPPRESSION.findall(source)),
        docstring_lines=sum(map(docstring_lines, nodes)),
        comment_lines=len(re.findall(r"^\s*#", source, re.MULTILINE)),
    )


def _lines(node: ast.AST) -> int:
    # Any node that has a place in the source has both.
    return getattr(node, "end_lineno", 0) - getattr(node, "lineno", 0) + 1


def _percentile(values: Sequence[int], percent: int) -> int:
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def measure(tree: Path) -> list[Module]:
    """Measure all source files of a folder."""
    return [measure_module(path) for path in sorted(tree.rglob("*.py"))]


def summed_up(modules: Sequence[Module]) -> Figures:
    """The figures of a tree."""
    sizes = [module.lines for module in modules]
    functions = [function for module in modules for function in module.functions]
    lengths = [function.lines for function in functions]

    def in_all(name: str) -> int:
        return sum(getattr(module, name) for module in modules)

    lines = in_all("lines")
    return Figures(
        lines=lines,
        module_median=statistics.median(sizes),
        module_p90=_percentile(sizes, 90),
        module_max=max(sizes),
        function_median=statistics.median(lengths),
        function_p90=_percentile(lengths, 90),
        function_p99=_percentile(lengths, 99),
        function_max=max(lengths),
        long_functions=sum(function.lines > MAX_FUNCTION for function in functions),
        many_arguments=sum(function.arguments > MAX_ARGUMENTS for function in functions),
        deep_functions=sum(function.nesting > MAX_NESTING for function in functions),
        any_per_1000=in_all("anys") / lines * 1000,
        dicts_per_1000=in_all("dicts") / lines * 1000,
        casts=in_all("casts"),
        ignores=in_all("ignores"),
        docstring_percent=in_all("docstring_lines") / lines * 100,
        comment_percent=in_all("comment_lines") / lines * 100,
    )


@dataclass(frozen=True)
class Column:
    """A column of the table: one or more figures of a tree."""

    heading: str
    names: tuple[str, ...]
    ranked: bool = True
    """Whether less is better."""
    per_1000: bool = False
    """Whether the rank goes by the figure per 1000 lines: the trees differ in size."""

    def cell(self, figures: Figures) -> str:
        """The figures of a tree."""
        values = [getattr(figures, name) for name in self.names]
        return " / ".join("–" if value is None else f"{value:.1f}".removesuffix(".0") for value in values)

    def ranks(self, ours: Figures) -> list[int]:
        """Our place among the anchors, for each figure; the smallest is the first."""
        return [
            1 + sum(self._value(anchor, name) < self._value(ours, name) for anchor in ANCHORS.values())
            for name in self.names
            if self.ranked
        ]

    def _value(self, figures: Figures, name: str) -> float:
        value: float = getattr(figures, name)
        return value / figures.lines if self.per_1000 else value


COLUMNS = (
    Column("lines", ("lines",), ranked=False),
    Column("module: median / p90 / max", ("module_median", "module_p90", "module_max")),
    Column(
        "function: median / p90 / p99 / max",
        ("function_median", "function_p90", "function_p99", "function_max"),
    ),
    Column(f"> {MAX_FUNCTION} lines", ("long_functions",), per_1000=True),
    Column(f"> {MAX_ARGUMENTS} arguments", ("many_arguments",), per_1000=True),
    Column(f"nesting > {MAX_NESTING}", ("deep_functions",), per_1000=True),
    Column("`Any` / 1000", ("any_per_1000",)),
    Column("`dict[str, Any]` / 1000", ("dicts_per_1000",)),
    Column("casts", ("casts",), per_1000=True),
    Column("ignores", ("ignores",), per_1000=True),
    Column("docstrings %", ("docstring_percent",), ranked=False),
    Column("comments %", ("comment_percent",), ranked=False),
)


def table(trees: dict[str, Figures]) -> str:
    """The figures as a table of Markdown, a row for each tree."""
    rows = [
        ["tree", *(column.heading for column in COLUMNS)],
        ["---", *("---:" for _ in COLUMNS)],
        *([name, *(column.cell(figures) for column in COLUMNS)] for name, figures in trees.items()),
    ]
    return "".join(map(_row, rows))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def over_limits(modules: Sequence[Module]) -> Iterator[str]:
    """Everything that is larger than the style page allows, one line each."""
    for module in modules:
        if module.lines > MAX_MODULE:
            yield f"{module.path}: {module.lines} lines"
        for function in module.functions:
            limits = (
                (function.lines, MAX_FUNCTION, "lines"),
                (function.arguments, MAX_ARGUMENTS, "arguments"),
                (function.nesting, MAX_NESTING, "blocks deep"),
            )
            for value, limit, unit in limits:
                if value > limit:
                    yield f"{module.path}: {function.name}(): {value} {unit}"


def compared(ours: Figures) -> str:
    """The table of the page: we, the others, and our rank among them."""
    ranks = (" / ".join(map(str, column.ranks(ours))) for column in COLUMNS)
    return table({"**agent-gateway**": ours, **ANCHORS}) + _row(["our rank of 8", *ranks])


def written(page: str, ours: Figures) -> str:
    """The page with these figures between its markers. Raises ValueError when it lacks them."""
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return f"{page[:begin]}\n{compared(ours)}{page[end:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the code.")
    parser.add_argument("--write", action="store_true", help="put the table into docs/design/style.md")
    parser.add_argument("trees", type=Path, nargs="*", help="other source trees to measure instead")
    given = parser.parse_args()
    if given.trees:
        print(table({str(tree): summed_up(measure(tree)) for tree in given.trees}), end="")
        return
    modules = measure(OURS)
    ours = summed_up(modules)
    if given.write:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), ours), encoding="utf-8")
        return
    print(compared(ours))
    print(sum(module.dicts for module in modules), "dict[str, Any] in all")
    for line in over_limits(modules):
        print(line)


if __name__ == "__main__":
    main()
