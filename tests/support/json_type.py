"""A JSON object in a test: nobody but the test says what is in it."""

from typing import Any

Json = dict[str, Any]
