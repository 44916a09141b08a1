"""The request of a run as JSON: what `POST /runs` brings, and what is stored to start a run again."""

from collections.abc import Mapping
from typing import Final

import msgspec

from agent_gateway.backend.embedded.layers import kind_of
from agent_gateway.backend.protocol import Composition, CreateRunRequest, OnExit

_NULL: Final = msgspec.Raw(b"null")


class CreateRequest(msgspec.Struct):
    """Body of POST /runs. The decoder has no `Raw | None`, so this is not CreateRunRequest itself."""

    composition: Composition
    session_snapshot: msgspec.Raw = _NULL
    deferred_tool_results: Mapping[str, object] | None = None
    idempotency_key: str | None = None
    metadata: Mapping[str, object] = {}
    on_exit: OnExit | None = None

    def as_sent(self) -> CreateRunRequest:
        """The request as the gateway sent it."""
        return CreateRunRequest(
            composition=self.composition,
            session_snapshot=None if self.session_snapshot == _NULL else self.session_snapshot,
            deferred_tool_results=self.deferred_tool_results,
            idempotency_key=self.idempotency_key,
            metadata=self.metadata,
            on_exit=self.on_exit,
        )


_request: Final = msgspec.json.Decoder(CreateRequest)


def read_request(body: bytes) -> CreateRunRequest:
    """The request of a run. Raises MsgspecError and UnicodeDecodeError."""
    return _request.decode(body).as_sent()


def may_restart(request: CreateRunRequest) -> bool:
    """Whether the app wants a run to be started again when its process dies: `on_process_lost: restart`."""
    for layer in request.composition.layers:
        type_id = layer.name if layer.type is msgspec.UNSET else layer.type
        if kind_of(type_id) == "llm" and isinstance(layer.config, dict):
            return layer.config.get("on_process_lost") == "restart"
    return False
