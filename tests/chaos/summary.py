"""A report in words and tables."""

from tests.chaos.check import count_rules
from tests.chaos.report import Report, Tally, spread

OUTCOMES = ("completed", "stopped", "failed", "interrupted")


def summary(report: Report) -> str:
    """The figures for a person to read at the end."""
    counts = ", ".join(f"{count} {name}" for name, count in sorted(report.counts.items()))
    statuses = ", ".join(f"{count} × {status}" for status, count in sorted(report.statuses.items()))
    broken = ", ".join(f"{count} {rule}" for rule, count in sorted(count_rules(report.violations).items()))
    gone = [time for tally in report.tallies.values() for time in tally.gone]
    return "\n".join(
        [
            "",
            f"{len(report.seeds)} seeds from {report.seeds[0]}, {report.seconds:.0f} s under faults in all",
            counts,
            f"answers: {statuses}",
            f"gone after SIGTERM: {spread(gone)} s (median / 95th percentile / longest)",
            f"violations: {broken or 'none'}",
            "",
            matrix(report),
        ]
    )


def matrix(report: Report) -> str:
    """The table fault × outcome, as Markdown."""
    head = [
        "fault",
        "times",
        "turns hit",
        *OUTCOMES,
        "new owner after (s)",
        "reader continues after (s)",
    ]
    rows = [_row(kind, tally) for kind, tally in sorted(report.tallies.items())]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(kind: str, tally: Tally) -> list[str]:
    outcomes = [str(tally.outcomes.get(outcome, 0)) for outcome in OUTCOMES]
    return [
        f"`{kind}`",
        str(tally.injected),
        str(tally.turns),
        *outcomes,
        spread(tally.taken_over),
        spread(tally.text_again),
    ]
