"""All scenarios, in the order of the table."""

from typing import Final

from bench.scenario import Scenario
from bench.scenarios.curves import P99, RATE
from bench.scenarios.embedded import EMBEDDED
from bench.scenarios.flat import LONG, ROWS, STREAMS
from bench.scenarios.memory import MEMORY
from bench.scenarios.observed import OBSERVED
from bench.scenarios.readers import FAN_OUT, STORM
from bench.scenarios.tokens import CROWD, LONE, SATURATED
from bench.scenarios.turns import TURNS, WORKERS

ALL: Final[dict[str, Scenario]] = {
    each.name: each
    for each in (
        *(LONE, SATURATED, TURNS, CROWD, MEMORY),
        *(FAN_OUT, STORM, STREAMS, ROWS, LONG, OBSERVED, WORKERS, EMBEDDED, P99, RATE),
    )
}
