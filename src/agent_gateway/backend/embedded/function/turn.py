"""Reads the turn that an agent function gets from a request."""

import base64
from collections.abc import Iterator, Mapping

from agent_gateway.agent import Answer, File, Turn
from agent_gateway.backend.embedded.function.memory import Memory
from agent_gateway.backend.embedded.layers import kind_of
from agent_gateway.backend.embedded.plan import Plan
from agent_gateway.backend.embedded.runs import RunFailed
from agent_gateway.backend.lenient import as_dict, as_list, as_str
from agent_gateway.backend.protocol import CreateRunRequest, Layer


def read_turn(request: CreateRunRequest, plan: Plan, memory: Memory) -> Turn:
    """The turn of a request, whose plan and memory were read from it. Raises RunFailed."""
    contexts = [_config(layer) for layer in _of_kind(request, "execution_context")]
    context = contexts[0] if contexts else as_dict(None)
    conversation = context.get("conversation_id") or request.metadata.get("conversation_id")
    return Turn(
        query="\n\n".join(plan.prompt),
        history=memory.history(),
        state=memory.state,
        instructions=plan.instructions or "",
        files=tuple(file for layer in _of_kind(request, "prompt") for file in _files(layer)),
        answer=_answer(plan, memory),
        user_id=as_str(context.get("user_id")),
        conversation_id=as_str(conversation),
        context=context,
        auxiliary=request.on_exit is not None and request.on_exit.default == "delete",
    )


def _of_kind(request: CreateRunRequest, kind: str) -> Iterator[Layer]:
    for layer in request.composition.layers:
        if kind_of(layer.type if isinstance(layer.type, str) else layer.name) == kind:
            yield layer


def _config(layer: Layer) -> Mapping[str, object]:
    return as_dict(layer.config)


def _files(layer: Layer) -> Iterator[File]:
    for entry in map(as_dict, as_list(_config(layer).get("files"))):
        yield File(
            data=_decoded(as_str(entry.get("base64_data"))),
            media_type=as_str(entry.get("mime_type")),
            name=as_str(entry.get("filename")),
            url=as_str(entry.get("url")),
            kind=as_str(entry.get("type")),
        )


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        raise RunFailed("a file of the prompt is not base64") from None


def _answer(plan: Plan, memory: Memory) -> Answer | None:
    """The answer of a human. Without one, a question that was open is forgotten."""
    if not plan.answers:
        return None
    if memory.question not in plan.answers:
        raise RunFailed("the deferred tool results do not belong to an open call")
    given = as_dict(plan.answers[memory.question])
    return Answer(
        question_id=memory.question,
        status="timeout" if given.get("status") == "timeout" else "submitted",
        action=as_str(as_dict(given.get("action")).get("id")),
        values=as_dict(given.get("values")),
        message=as_str(given.get("message")),
    )
