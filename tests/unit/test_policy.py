"""The policies of an app: decisions of its configuration, without a database."""

import pytest

from agent_gateway.apps.config import AppConfig
from agent_gateway.apps.policy import (
    MAX_QUEUED,
    continues_after_expiry,
    moves_to_new_version,
    refuses_while_asked,
    refuses_while_busy,
)


@pytest.mark.parametrize(
    ("on_busy", "waiting", "refused"),
    [
        ("reject", 0, True),
        ("interrupt", 0, False),
        ("interrupt", MAX_QUEUED, False),
        ("enqueue", 0, False),
        ("enqueue", MAX_QUEUED - 1, False),
        ("enqueue", MAX_QUEUED, True),
    ],
)
def test_a_busy_conversation_refuses_a_message_that_the_app_does_not_queue(
    on_busy: str, waiting: int, refused: bool
) -> None:
    config = AppConfig.model_validate({"name": "an app", "on_busy": on_busy})
    assert refuses_while_busy(config, waiting) is refused


@pytest.mark.parametrize(("on_question", "refused"), [("answer", False), ("reject", True)])
def test_a_message_answers_an_open_question_or_is_refused(on_question: str, refused: bool) -> None:
    config = AppConfig.model_validate({"name": "an app", "on_question": on_question})
    assert refuses_while_asked(config) is refused


@pytest.mark.parametrize(("on_question_expired", "continues"), [("continue", True), ("drop", False)])
def test_an_expired_question_continues_its_run_or_is_dropped(
    on_question_expired: str, continues: bool
) -> None:
    config = AppConfig.model_validate({"name": "an app", "on_question_expired": on_question_expired})
    assert continues_after_expiry(config) is continues


@pytest.mark.parametrize(("on_change", "moves"), [("pin", False), ("follow", True)])
def test_a_conversation_moves_to_the_new_version_or_stays(on_change: str, moves: bool) -> None:
    config = AppConfig.model_validate({"name": "an app", "on_change": on_change})
    assert moves_to_new_version(config) is moves


def test_an_unreadable_configuration_accepts_answers_and_drops_expired_questions() -> None:
    assert not refuses_while_asked(None)
    assert not continues_after_expiry(None)
