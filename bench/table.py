"""The figures as a table in Markdown, with the goals and whether they hold."""

from collections.abc import Iterator

from bench.results import Results, Verdict
from bench.scenario import SYSTEMS, Goal, Metric, Scenario
from bench.scenarios import ALL

SHORT = {"nginx": "nginx", "natural": "straightforward", "sqlite": "SQLite", "postgres": "Postgres"}


def table(results: Results) -> str:
    """All scenarios that were measured."""
    lines = [
        "| | " + " | ".join(SYSTEMS.values()) + " | goal | holds |",
        "|---|" + "---:|" * len(SYSTEMS) + "---|---|",
    ]
    for scenario in ALL.values():
        if scenario.name in results.values and not scenario.plot:
            lines += [f"| **{scenario.title}** |" + " |" * (len(SYSTEMS) + 2)]
            lines += _rows(results, scenario)
    return "\n".join(lines)


def _rows(results: Results, scenario: Scenario) -> Iterator[str]:
    for name, metric in scenario.metrics.items():
        if name not in results.values[scenario.name]:
            continue
        figures = [_number(results.figure(scenario.name, name, system), metric) for system in SYSTEMS]
        goals = "; ".join(_goal(goal, metric) for goal in metric.goals)
        verdicts = list(results.verdicts(scenario, name, metric))
        title = f"{metric.title} ({metric.unit})" if metric.unit else metric.title
        yield f"| {title} | " + " | ".join(figures) + f" | {goals} | {_verdict(verdicts)} |"


def _number(value: float | None, metric: Metric) -> str:
    return "–" if value is None else f"{value:,.{metric.digits}f}"


def _goal(goal: Goal, metric: Metric) -> str:
    bound = goal.at_most if goal.at_most is not None else goal.at_least
    text = f"{'≤' if goal.at_most is not None else '≥'} {bound:,g}"
    if goal.times:
        return f"{text} × {SHORT[goal.times]}"
    text = f"{text} {metric.unit}".rstrip()
    if goal.above:
        return f"{text} above {SHORT[goal.above]}"
    return f"{text} ({SHORT[goal.system]})" if goal.system else text


def _verdict(verdicts: list[Verdict]) -> str:
    missed = [verdict for verdict in verdicts if not verdict.holds]
    if not missed:
        return "yes" if verdicts else ""
    return "**no**: " + ", ".join(
        f"{SHORT[each.system]} {each.value:,.3g}{' ×' if each.goal.times else ''}" for each in missed
    )
