"""The runs of the embedded agent: their tasks, and a log in which every process can read them.

`outcomes.py` is what an agent knows of its run. `registry.py` owns the runs of a process. `run.py` is one of
them, as this process sees it; `appender.py` writes what it says, `follower.py` reads what others write, and
`keeper.py` keeps the leases. `log.py` says what all of them need of the log.
"""

from agent_gateway.backend.embedded.runs.outcomes import (
    Cancellation,
    Emit,
    Execute,
    RunFailed,
    RunInterrupted,
    Stopping,
)

__all__ = ["Cancellation", "Emit", "Execute", "RunFailed", "RunInterrupted", "Stopping"]
