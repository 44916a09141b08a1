"""A conversation's inputs, kept once: each message stores only what it sent otherwise.

What a message had is the conversation's inputs with its own over them. A message that carries an answer to a
form has those of the message that asked, and refers to it.
"""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, func
from sqlalchemy.sql.selectable import FromClause

from agent_gateway.store.db.tables import messages

asking_messages = messages.alias("asking_messages")
"""The messages to which others refer for their inputs; join it by `refers`."""


def own_inputs(kept: Mapping[str, Any], had: Mapping[str, Any]) -> dict[str, Any]:
    """What a message with these inputs has to store in a conversation that keeps those."""
    return {name: value for name, value in had.items() if name not in kept or not _is_same(kept[name], value)}


def all_inputs(kept: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs a message had. One that an older release stored has all of them itself."""
    return {**kept, **own}


def refers(referring: FromClause = messages) -> ColumnElement[bool]:
    """Joins the message to which one refers for its inputs, if it does."""
    return asking_messages.c.id == referring.c.inputs_of


def stored_inputs(referring: FromClause = messages) -> ColumnElement[Any]:
    """What a message stores, or the one that it refers to."""
    return func.coalesce(asking_messages.c.inputs, referring.c.inputs, type_=messages.c.inputs.type)


def _is_same(one: Any, other: Any) -> bool:
    # By type, too: for Python true is 1, and 1 is 1.0.
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
