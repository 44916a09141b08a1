"""The descriptors that a turn needs: one for its run's creation, one for the run's events."""

import os
from contextlib import ExitStack
from typing import Final

from agent_gateway.errors import Unavailable

OF_A_TURN: Final = 2


def require_descriptors() -> None:
    """Raise Unavailable when this process cannot open what another turn needs.

    Such a turn would only fail; it is better begun elsewhere, or later.
    """
    try:
        with ExitStack() as stack:
            for _ in range(OF_A_TURN):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
    except OSError:
        raise Unavailable("This server has too many open files. Please try again.", retry_after=5) from None
