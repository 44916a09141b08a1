"""Puts a session snapshot into the form of a generation of the run protocol.

Schema 1 has a list of the layers' states, in the order of the composition. Schema 2 has an object of states
by name, of which the history alone is enough. Stored snapshots never change: one is converted only on its way
to the backend, and goes back byte for byte when it has the right form already.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from agent_gateway.backend.lenient import loads
from agent_gateway.backend.protocol import EMPTY_OBJECT
from agent_gateway.domain.text import clean_json

HISTORY: Final = "history"
"""The layer that holds the messages; its name is fixed in both generations."""
_CALL: Final = "tool-call"
_RESULTS: Final = frozenset({"tool-return", "retry-prompt"})
_CLOSED: Final = "closed"


class _Layer(msgspec.Struct):
    name: str
    lifecycle_state: str = "suspended"
    runtime_state: msgspec.Raw = EMPTY_OBJECT


class _Snapshot(msgspec.Struct):
    """The parts of a snapshot that are read: schema 1 has a list of layers, schema 2 an object."""

    layers: list[_Layer] | dict[str, msgspec.Raw]


class _Part(msgspec.Struct):
    part_kind: str = ""
    tool_call_id: str = ""


class _Message(msgspec.Struct):
    kind: str = ""
    parts: list[_Part] = []


def in_schema_1(raw: bytes, names: Sequence[str]) -> msgspec.Raw:
    """The snapshot for a composition of layers with these names, in this order.

    A layer that is not in the snapshot begins as a new one; the state of any other layer is dropped. Raises
    ValueError or RecursionError when the snapshot cannot be read.
    """
    try:
        held = msgspec.json.decode(raw, type=_Snapshot).layers
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _leniently_in_schema_1(raw, names)
    if isinstance(held, dict):
        return msgspec.Raw(msgspec.json.encode({"schema_version": 1, "layers": _listed(held, names)}))
    if [layer.name for layer in held] == list(names):
        return msgspec.Raw(raw)
    snapshot = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    entries = msgspec.json.decode(snapshot["layers"], type=list[msgspec.Raw])
    by_name = dict(zip((layer.name for layer in held), entries, strict=True))
    layers = [by_name.get(name) or _new_layer(name) for name in names]
    return msgspec.Raw(msgspec.json.encode({**snapshot, "layers": layers}))


def in_schema_2(raw: bytes) -> msgspec.Raw | None:
    """The snapshot by name; None when it has no history to continue from.

    Open calls in a list, such as a question to a human, are marked as interrupted: without the mark nothing
    new may follow them. Raises ValueError or RecursionError when the snapshot cannot be read.
    """
    try:
        held = msgspec.json.decode(raw, type=_Snapshot).layers
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        raw = _repaired(raw)
        held = msgspec.json.decode(raw, type=_Snapshot).layers
    if isinstance(held, dict):
        return msgspec.Raw(raw)
    history = next((layer for layer in held if layer.name == HISTORY), None)
    if history is None or history.lifecycle_state == _CLOSED:
        return None
    layers = {HISTORY: _with_no_open_call(history.runtime_state)}
    return msgspec.Raw(msgspec.json.encode({"schema_version": 2, "layers": layers}))


def _listed(held: Mapping[str, object], names: Sequence[str]) -> list[Mapping[str, object]]:
    """The states of an object as a list, for each layer in order."""
    return [
        {"name": name, "lifecycle_state": "suspended", "runtime_state": held[name]}
        if name in held
        else _new_layer(name)
        for name in names
    ]


def _new_layer(name: str) -> Mapping[str, object]:
    return {"name": name, "lifecycle_state": "new", "runtime_state": dict[str, object]()}


def _leniently_in_schema_1(raw: bytes, names: Sequence[str]) -> msgspec.Raw:
    """The same for JSON as Python writes it (NaN, halves of surrogate pairs), which msgspec refuses."""
    snapshot = json.loads(raw)
    held = msgspec.convert(snapshot, type=_LenientSnapshot).layers
    if isinstance(held, dict):
        return msgspec.Raw(json.dumps({"schema_version": 1, "layers": _listed(held, names)}).encode())
    if [layer.name for layer in held] == list(names):
        return msgspec.Raw(raw)
    by_name = {entry["name"]: entry for entry in snapshot["layers"]}
    layers = [by_name.get(name) or _new_layer(name) for name in names]
    return msgspec.Raw(json.dumps({**snapshot, "layers": layers}).encode())


class _Named(msgspec.Struct):
    name: str


class _LenientSnapshot(msgspec.Struct):
    layers: list[_Named] | dict[str, object]


def _repaired(raw: bytes) -> bytes:
    """The same JSON as every reader accepts it. The other form is written anew anyway."""
    return msgspec.json.encode(clean_json(loads(raw)))


def _with_no_open_call(history: msgspec.Raw) -> Mapping[str, object]:
    """The state of a history. Its last message is marked when a call in it was never answered."""
    state = msgspec.json.decode(history, type=dict[str, msgspec.Raw])
    if "messages" not in state:
        return state
    messages = msgspec.json.decode(state["messages"], type=list[msgspec.Raw])
    if messages and _has_open_call(messages):
        last = msgspec.json.decode(messages[-1], type=dict[str, msgspec.Raw])
        messages[-1] = msgspec.Raw(msgspec.json.encode({**last, "state": "interrupted"}))
    return {**state, "messages": messages}


def _has_open_call(messages: Sequence[msgspec.Raw]) -> bool:
    """True when the last response calls a tool whose result does not follow."""
    answered: set[str] = set()
    for raw in reversed(messages):
        message = msgspec.json.decode(raw, type=_Message)
        if message.kind == "response":
            calls = {part.tool_call_id for part in message.parts if part.part_kind == _CALL}
            return bool(calls - answered)
        answered |= {part.tool_call_id for part in message.parts if part.part_kind in _RESULTS}
    return False
