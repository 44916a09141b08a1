"""The Python client has all of the OpenAPI document: every operation, and the types that are made from it."""

import re

import pytest

from agent_gateway_client import AsyncClient, Client
from dev.generate_python_client import DOCUMENT, TYPES, generated
from tests.support.json_type import Json


@pytest.mark.slow
def test_the_types_of_the_client_are_those_of_the_document() -> None:
    assert TYPES.read_text("utf-8") == generated(DOCUMENT), "dev/generate_python_client.py has not been run"


def test_every_operation_of_the_document_is_a_method_of_both_clients(document: Json) -> None:
    operations = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    # `chat` sends a message and reads its stream; the operation alone is the blocking form of it.
    names = {re.sub("([A-Z])", r"_\1", name).lower() for name in operations} | {"chat", "begin"}
    assert len(names) > 25
    for client in (Client, AsyncClient):
        assert names <= set(dir(client))
        assert {name for name in names if not getattr(client, name).__doc__} == set()
