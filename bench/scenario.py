"""What a scenario is: what it measures of which systems, and the goals of the figures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from bench.bench import Bench

SYSTEMS: Final = {
    "nginx": "nginx",
    "natural": "straightforward",
    "sqlite": "this, SQLite",
    "postgres": "this, Postgres",
}
"""The systems that are measured, and what the table calls them."""
OURS: Final = ("sqlite", "postgres")


@dataclass(frozen=True)
class Goal:
    """A figure of our systems is at most, or at least, so much: `times` or `above` that of another."""

    at_most: float | None = None
    at_least: float | None = None
    times: str = ""
    above: str = ""
    system: str = ""
    """Only for this system; empty: for each of ours."""

    def applies(self, system: str) -> bool:
        """Whether it is a goal of this system."""
        return system == self.system if self.system else system in OURS

    def holds(self, value: float) -> bool:
        """Whether a figure, related to the other system, reaches it."""
        if self.at_most is not None and value > self.at_most:
            return False
        return self.at_least is None or value >= self.at_least

    def related(self, value: float, other: float) -> float:
        """A figure in relation to that of the other system, in the same round."""
        if self.times:
            return value / other if other else float("inf")
        return value - other if self.above else value

    @property
    def other(self) -> str:
        """The system to which ours are compared; empty: none."""
        return self.times or self.above


@dataclass(frozen=True)
class Metric:
    """One figure of a scenario."""

    title: str
    unit: str = ""
    digits: int = 0
    goals: tuple[Goal, ...] = ()


LOST: Final = Metric("turns or readers that were not served to the end", goals=(Goal(at_most=0),))


@dataclass(frozen=True)
class Plot:
    """The figures of a scenario are points of a line for each system; their names are the x values."""

    x: str
    y: str


@dataclass(frozen=True)
class Scenario:
    """`measure` plays it once on one system and returns its figures, named as in `metrics`."""

    name: str
    title: str
    metrics: Mapping[str, Metric]
    measure: Callable[[Bench, str], Mapping[str, float]]
    systems: tuple[str, ...] = tuple(SYSTEMS)
    most_rounds: int = 100
    """Fewer for what takes long and varies little."""
    plot: Plot | None = None
    """Shown as a plot and not in the table."""
