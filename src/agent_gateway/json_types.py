"""JSON as types: what a document holds when nobody has checked its shape yet."""

from typing import TypeAlias

from pydantic import JsonValue

JsonObject: TypeAlias = dict[str, JsonValue]
"""A JSON object: its keys are text, its values any JSON value."""
