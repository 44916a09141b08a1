"""All scenarios, in the order of the table."""

from typing import Final

from bench.scenario import Scenario
from bench.scenarios.tokens import LONE, SATURATED
from bench.scenarios.turns import TURNS

ALL: Final[dict[str, Scenario]] = {each.name: each for each in (LONE, SATURATED, TURNS)}
