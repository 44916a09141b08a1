"""Writes what was measured into docs/guarantees.md, between its two marks."""

from datetime import UTC, datetime
from typing import Final

from tests.chaos.report import Report
from tests.chaos.summary import matrix
from tests.support.paths import ROOT

PAGE: Final = ROOT / "docs" / "guarantees.md"
BEGIN: Final = "<!-- measured: written by dev/chaos --write-guarantees -->"
END: Final = "<!-- end of measured -->"


def write_matrix(report: Report) -> None:
    """Replace what stands between the marks; ValueError when they are not there."""
    page = PAGE.read_text()
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(f"{page[:start]}\n{_measured(report)}\n{page[end:]}")


def _measured(report: Report) -> str:
    counts, config = report.counts, report.config
    figures = [
        f"{len(report.seeds)} seeds, {report.seconds:.0f} seconds under faults in all",
        f"{config.processes} processes with a lease of {config.lease_seconds:g} s",
        f"{config.talks} conversations at a time, {counts['turns']} turns, {counts['faults']} faults",
        f"{counts['adoptions']} adoptions of {counts['adopted turns']} turns",
        f"{counts['adoptions after a release']} of the adoptions were after a release",
        f"{counts['fenced owners']} were from an owner that was alive and had to be fenced",
        f"{counts['readers']} readers over {counts['connections']} connections saw {counts['events']} events",
        f"broken promises: {len(report.violations)}",
    ]
    return "\n".join(
        [
            "",
            f"Measured on {datetime.now(UTC):%Y-%m-%d}:",
            "",
            *(f"- {figure}" for figure in figures),
            "",
            matrix(report),
            "",
            "A turn counts in the row of each fault that hit it. Times: median / 95th percentile / longest.",
            "",
        ]
    )
