"""A conversation's inputs are stored once; each message stores only the values in which it differs.

The inputs of a message are those of its conversation, overridden by its own. A message that carries the
answer to a form has the inputs of the message that asked, and refers to that message.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue
from sqlalchemy import ColumnElement, func
from sqlalchemy.sql.selectable import FromClause

from agent_gateway.json_types import JsonObject
from agent_gateway.store.db.tables import messages

asking_messages = messages.alias("asking_messages")
"""The messages whose inputs others share; join it by `refers`."""


def own_inputs(shared: Mapping[str, JsonValue], inputs: Mapping[str, JsonValue]) -> JsonObject:
    """What a message with these inputs stores in a conversation with the `shared` ones."""
    return {
        name: value
        for name, value in inputs.items()
        if name not in shared or not _is_same(shared[name], value)
    }


def all_inputs(shared: Mapping[str, JsonValue], own: Mapping[str, JsonValue]) -> JsonObject:
    """The inputs of a message. A message that an older release stored has all of them itself."""
    return {**shared, **own}


def refers(referring: FromClause = messages) -> ColumnElement[bool]:
    """Joins the message whose inputs one shares, if it shares any."""
    return asking_messages.c.id == referring.c.inputs_of


def stored_inputs(referring: FromClause = messages) -> ColumnElement[Any]:
    """The inputs that a message stores, or those of the message that it refers to."""
    return func.coalesce(asking_messages.c.inputs, referring.c.inputs, type_=messages.c.inputs.type)


def _is_same(one: JsonValue, other: JsonValue) -> bool:
    # Compared by type, too: in Python True equals 1, and 1 equals 1.0.
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
