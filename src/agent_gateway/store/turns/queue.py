"""The queue of a conversation: the next turn is planned when the active one has ended (R10).

When a turn leaves the queue it is decided from which state it continues. A message that waited behind a
turn which asked a human is either the answer or refused, as its app wants.
"""

import logging
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import bindparam, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from agent_gateway import metrics
from agent_gateway.apps.config import read_config_or_none
from agent_gateway.apps.policy import refuses_while_asked
from agent_gateway.causes import Cause
from agent_gateway.domain.events import GATEWAY_END
from agent_gateway.domain.human_input import FormAnswer
from agent_gateway.domain.ids import TaskId
from agent_gateway.domain.turns import Outcome, TurnState
from agent_gateway.errors import QuestionOpen
from agent_gateway.store.db.functions import now_plus
from agent_gateway.store.db.tables import app_versions, is_active, messages, turns
from agent_gateway.store.question_forms import OPEN_FORM, close_form, form_of

logger = logging.getLogger(__name__)


class _QueuedTurn(NamedTuple):
    id: str
    form_id: str | None
    query: str
    config: str


_OTHER_TURN = turns.alias("other_turn")
_NEXT: Final = (
    select(turns.c.id, turns.c.form_id, messages.c.query, app_versions.c.config)
    .join(messages, messages.c.id == turns.c.message_id)
    .join(app_versions, app_versions.c.id == turns.c.app_version_id)
    .where(
        turns.c.conversation_id == bindparam("conversation"),
        turns.c.state == TurnState.QUEUED.value,
        ~exists().where(_OTHER_TURN.c.conversation_id == bindparam("conversation"), is_active(_OTHER_TURN)),
    )
    .order_by(turns.c.seq)
    .limit(1)
)
_PROMOTE: Final = (
    update(turns)
    .where(turns.c.id == bindparam("task"))
    .values(
        state=TurnState.PLANNED.value,
        owner=None,
        epoch=turns.c.epoch + 1,
        lease_until=None,
        deadline_at=now_plus(bindparam("turn_seconds")),
        form_id=bindparam("form"),
    )
)
_REFUSED: Final = Cause("QuestionOpen", said="the turn before it asks a human, and its app takes no message")
_REFUSE: Final = (
    update(turns)
    .where(turns.c.id == bindparam("task"))
    .values(
        state=TurnState.ENDED.value,
        outcome=Outcome.FAILED.value,
        error_code=QuestionOpen.code,
        cause=msgspec.to_builtins(_REFUSED),
        end_position=GATEWAY_END,
        ended_at=now_plus(),
    )
)


async def promote(connection: AsyncConnection, conversation_id: str, turn_seconds: float) -> bool:
    """Plan a conversation's next queued turn, for any process to adopt (R10). False when there is none."""
    scope = {"conversation": conversation_id}
    while row := (await connection.execute(_NEXT, scope)).first():
        queued = _QueuedTurn(*row)
        form_id = queued.form_id
        asked = (await connection.execute(OPEN_FORM, scope)).first()
        # A queued submission has its form already.
        if asked is not None and form_id is None:
            if refuses_while_asked(read_config_or_none(queued.config)):
                await connection.execute(_REFUSE, {"task": queued.id})
                # Nobody drives it who could tell its end.
                fields = {"task_id": queued.id, "outcome": Outcome.FAILED.value, "code": QuestionOpen.code}
                metrics.TURNS_ENDED(Outcome.FAILED.value, QuestionOpen.code).inc()
                logger.warning("turn failed", extra={**fields, "cause": str(_REFUSED)})
                continue
            form_id = asked.form_id
            answer = FormAnswer("submitted", message=queued.query)
            await close_form(connection, form_of(asked), answer, TaskId(queued.id))
        await connection.execute(_PROMOTE, {"task": queued.id, "form": form_id, "turn_seconds": turn_seconds})
        return True
    return False
