"""What an app wants in the cases for which its file has a key. Pure: the store asks, and acts on the answer.

A configuration is None when another release wrote it and this one cannot read it. The end of a turn must not
fail because of that, so each case has an answer.
"""

from typing import Final

from agent_gateway.apps.config import AppConfig

MAX_QUEUED: Final = 10
"""Turns that may wait behind a conversation's active one."""


def refuses_while_busy(config: AppConfig, waiting: int) -> bool:
    """Whether a message is refused while a turn of its conversation is active and so many wait."""
    match config.on_busy:
        case "reject":
            return True
        case "interrupt":
            # The message ends all that wait.
            return False
        case "enqueue":
            return waiting >= MAX_QUEUED


def refuses_while_asked(config: AppConfig | None) -> bool:
    """Whether a message is refused while a question to a human is open; otherwise it is the answer."""
    return config is not None and config.on_question == "reject"


def continues_after_expiry(config: AppConfig | None) -> bool:
    """Whether the run learns that nobody answered; otherwise the question is dropped."""
    return config is not None and config.on_question_expired == "continue"


def moves_to_new_version(current: AppConfig) -> bool:
    """Whether conversations on an earlier version move to the current one, by what that says."""
    return current.on_change == "follow"
