"""What all turns of a process are run with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from agent_gateway.backend.protocol import Backend
from agent_gateway.limits import TurnLimits
from agent_gateway.store.files import FileStore
from agent_gateway.store.turns.stores import TurnStores


@dataclass(frozen=True, slots=True)
class Resources:
    """The parts that a turn needs, and its limits."""

    backend: Backend
    store: TurnStores
    files: FileStore
    limits: TurnLimits
    idle_seconds: float
    """How long a run may say nothing."""
    environ: Mapping[str, str]
    file_url: Callable[[str], str]
    """Makes the URL under which an agent gets the stored file of that id."""
    clock: Callable[[], float]
    """The database's time, in Unix seconds."""
