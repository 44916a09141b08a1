"""The figures as a table in Markdown, with the goals and whether they hold."""

from collections.abc import Iterator
from typing import Final

from bench.results import Results, Verdict
from bench.scenario import SYSTEMS, Goal, Metric, Scenario
from bench.scenarios import ALL

SHORT: Final = {"nginx": "nginx", "natural": "straightforward", "sqlite": "SQLite", "postgres": "Postgres"}


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
        yield f"| {title} | " + " | ".join(figures) + f" | {goals} | {_verdict(verdicts, metric)} |"


def _number(value: float | None, metric: Metric) -> str:
    return "–" if value is None else f"{value:,.{metric.digits}f}"


def _goal(goal: Goal, metric: Metric) -> str:
    if goal.at_most == 0:
        return "none"
    bound = goal.at_most if goal.at_most is not None else goal.at_least
    text = f"{'≤' if goal.at_most is not None else '≥'} {bound:,g} {_unit(goal, metric)}".rstrip()
    return f"{text} ({SHORT[goal.system]})" if goal.system else text


def _unit(goal: Goal, metric: Metric) -> str:
    if goal.times:
        return f"× {SHORT[goal.times]}"
    return f"{metric.unit} above {SHORT[goal.above]}" if goal.above else metric.unit


def _verdict(verdicts: list[Verdict], metric: Metric) -> str:
    missed = [verdict for verdict in verdicts if not verdict.holds]
    if not missed:
        return "yes" if verdicts else ""
    return "**no**: " + ", ".join(
        f"{SHORT[each.system]} {each.value:,.3g} {_unit(each.goal, metric)}".rstrip() for each in missed
    )
