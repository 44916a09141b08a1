"""The figures of a run: one for each round, of which the median counts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.scenario import Goal, Metric, Scenario


@dataclass
class Results:
    """`values[scenario][metric][system]` has one figure for each round."""

    machine: dict[str, str]
    rounds: int
    values: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)

    def add(self, scenario: str, system: str, figures: Mapping[str, float]) -> None:
        """The figures of one round."""
        for metric, value in figures.items():
            systems = self.values.setdefault(scenario, {}).setdefault(metric, {})
            systems.setdefault(system, []).append(value)

    def figure(self, scenario: str, metric: str, system: str) -> float | None:
        """The median; None when it was not measured."""
        values = self.values.get(scenario, {}).get(metric, {}).get(system)
        return median(values) if values else None

    def verdicts(self, scenario: Scenario, name: str, metric: Metric) -> Iterator["Verdict"]:
        """Each goal of a metric, for each system of which it was measured."""
        measured = self.values.get(scenario.name, {}).get(name, {})
        for goal in metric.goals:
            for system, values in measured.items():
                others = measured.get(goal.other, []) if goal.other else [0.0] * len(values)
                if goal.applies(system) and others:
                    # Ratios of one round: what disturbs the machine disturbs both.
                    related = [goal.related(*pair) for pair in zip(values, others, strict=False)]
                    yield Verdict(goal, system, median(related))

    def continue_from(self, path: Path) -> None:
        """Take over the figures of a run that was written to this file."""
        self.values = json.loads(path.read_text())["values"]

    def forget(self, scenario: str) -> None:
        """Its figures are to be measured anew."""
        self.values.pop(scenario, None)

    def write(self, path: Path) -> None:
        """Write all figures as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"machine": self.machine, "rounds": self.rounds, "values": self.values}
        path.write_text(json.dumps(document, indent=1) + "\n")


@dataclass(frozen=True)
class Verdict:
    """Whether a system reached a goal, with its figure in the goal's terms."""

    goal: Goal
    system: str
    value: float

    @property
    def holds(self) -> bool:
        """Whether it did."""
        return self.goal.holds(self.value)
