"""What the common path is given: which messages and ends are common, as far as this process can tell."""

from typing import Final

import msgspec

from agent_gateway.apps.inputs import merge_inputs, read_inputs
from agent_gateway.domain.events import GATEWAY_END, Result
from agent_gateway.domain.ids import ConversationId, MessageId, TaskId, new_id
from agent_gateway.domain.text import short_name
from agent_gateway.domain.turns import Caller, Outcome, Turn, TurnRequest
from agent_gateway.errors import InvalidParam
from agent_gateway.store.turns.admission import check_query
from agent_gateway.store.turns.chunk_offsets import pack_in_thread
from agent_gateway.store.turns.common_path import Begun, NewMessage, TurnEnd
from agent_gateway.store.turns.idempotency import body_hash
from agent_gateway.store.turns.rows import OwnerContext


def common_message(caller: Caller, request: TurnRequest, task_id: TaskId) -> NewMessage | None:
    """The message, if it may begin a turn at once; None when only the other way can tell.

    That is so for a message with uploads or mistakes, and for an app that limits its turns.
    """
    config = caller.app.config
    if config.limits.concurrent_turns is not None:
        return None
    if any(file.transfer_method == "local_file" for file in request.files):
        return None
    starts = request.conversation_id is None
    try:
        check_query(caller.app, request)
        inputs = read_inputs(config.user_input_form, request.inputs, starting=starts)
    except InvalidParam:
        return None
    if not starts:
        inputs = merge_inputs({}, inputs)
    return NewMessage(
        task=task_id,
        message=new_id(),
        conversation=request.conversation_id or new_id(),
        starts=starts,
        app=caller.app.id,
        version=caller.app.version_id,
        end_user=new_id(),
        external_id=caller.user,
        name=short_name(request.query) if starts else "",
        naming="open" if request.auto_name else "closed",
        introduction=config.opening_statement if starts else "",
        inputs=_json(inputs),
        query=request.query,
        files=_json(request.files),
        key=request.idempotency_key,
        body_hash=body_hash(request) if request.idempotency_key else None,
        trace_id=request.trace.id or None,
        trace_session_id=request.trace.session_id or None,
        request_id=request.trace.request_id or None,
        traceparent=request.trace.parent or None,
    )


def common_turn(
    context: OwnerContext, caller: Caller, request: TurnRequest, message: NewMessage, begun: Begun
) -> Turn:
    """The turn that a message has begun."""
    sent = msgspec.json.decode(message.inputs)
    return Turn(
        task_id=TaskId(message.task),
        conversation_id=ConversationId(message.conversation),
        message_id=MessageId(message.message),
        created_at=int(begun.now.timestamp()),
        app=caller.app,
        user=caller.user,
        query=request.query,
        inputs=merge_inputs(msgspec.json.decode(begun.inputs), sent),
        files=list(request.files),
        snapshot=begun.snapshot,
        epoch=1,
        fold_version=context.fold_versions[0],
        seconds_left=context.turn_seconds,
        trace=request.trace,
    )


async def common_end(turn: Turn, result: Result) -> TurnEnd | None:
    """The end, if it may be stored in the common way: it has no files, no form, and leaves no work."""
    ends_by_itself = result.end_position < GATEWAY_END
    if turn.form is not None or result.question is not None or result.files or not ends_by_itself:
        return None
    return TurnEnd(
        task=turn.task_id,
        epoch=turn.epoch,
        conversation=turn.conversation_id,
        answer=result.answer,
        marks=await pack_in_thread(result.chunks),
        usage=_json(result.usage) if result.usage else None,
        snapshot=result.snapshot,
        finish_reason=result.finish_reason,
        outcome=result.outcome.value,
        error_code=result.error_code,
        cause=_json(result.cause) if result.cause else None,
        end_position=result.end_position,
        may_name=turn.app.config.naming is not None and result.outcome is Outcome.COMPLETED,
        steps=result.steps,
    )


def _json(value: object) -> str:
    return _ENCODER.encode(value).decode()


_ENCODER: Final = msgspec.json.Encoder()
