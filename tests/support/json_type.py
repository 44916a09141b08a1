"""A JSON object in a test: only the test knows its fields."""

from typing import Any

Json = dict[str, Any]
