"""JSON as types, for documents whose shape was not checked yet."""

from typing import TypeAlias

from pydantic import JsonValue

JsonObject: TypeAlias = dict[str, JsonValue]
"""A JSON object: its keys are texts, its values any JSON values."""
