"""Writes a run into docs/performance.md, between its two marks, and the plots beside it."""

from pathlib import Path
from textwrap import fill
from typing import Final

from bench.machine import PACKAGES
from bench.plot import svg
from bench.results import Results
from bench.scenarios import ALL
from bench.table import table

PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN: Final = "<!-- measured: written by dev/bench --write-docs -->"
END: Final = "<!-- end of measured -->"
WIDTH: Final = 110
"""Of a line of prose."""


def write_page(results: Results, path: Path = PAGE) -> None:
    """Replace what stands between the marks; ValueError when they are not there."""
    page = path.read_text()
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    path.write_text(f"{page[:start]}\n{_measured(results)}\n{page[end:]}")
    path.with_suffix(".svg").write_text(svg(results, list(ALL.values())))


def _measured(results: Results) -> str:
    machine = results.machine
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", *PACKAGES))
    return "\n".join(
        [
            "",
            f"Measured on {machine['date']} at `{machine['commit']}`, medians of {results.rounds} rounds:",
            "",
            f"- {machine['cores']} cores of {machine['processor']}, Linux {machine['kernel']}",
            f"- yardsticks: nginx {machine['nginx'] or 'missing'}, C programs by gcc {machine['gcc']}",
            fill(versions, WIDTH, initial_indent="- ", subsequent_indent="  "),
            "",
            table(results),
            "",
            "![latency of a token over streams, and turns per second over turns at once](performance.svg)",
            "",
        ]
    )
