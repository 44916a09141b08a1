"""Nothing opens without its key, and resources of others answer as if they did not exist (I11).

Generated from OPERATIONS, one line per route of the API: see operations.py.
"""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.chat import refused
from tests.support.gateway_server import API_KEY
from tests.support.json_type import Json
from tests.support.operations import (
    EXAMPLES,
    OPERATIONS,
    Request,
    Route,
    Scope,
    World,
    document,
    ids_of,
    request_for,
    routes,
)

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MALFORMED = ("nonsense", "%00", "0", "null", f"{uuid4()}0", "x" * 300, "%25", "ü")
"""Percent-encoded, as in a path."""
NO_TEXT = ("%ED%A0%80", "%D5%C5", "a%FF")
"""The same, of bytes that are not UTF-8."""
PREFIXES = ("", "/v1")

keyed = [name for name, it in OPERATIONS.items() if it.scope in (Scope.APP, Scope.USER)]
with_id = [name for name in keyed if not OPERATIONS[name].off and ids_of(name)]
with_ticket = [name for name, it in OPERATIONS.items() if it.scope is Scope.TICKET]


def told(response: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """All that a client can see of an answer but when it came."""
    headers = {
        name: value for name, value in response.headers.items() if name not in {"date", "x-request-id"}
    }
    return response.status_code, response.content, headers


def own_ids(name: str, world: World) -> tuple[dict[str, str], str]:
    """Ids of things that exist, and the user whose they are."""
    owner = world.owner()
    return {key: EXAMPLES[key](owner) for key in ids_of(name)}, owner.chat.user


def unknown_ids(name: str) -> dict[str, str]:
    return {key: str(uuid4()) for key in ids_of(name)}


def id_fields(route: Route) -> dict[str, list[str]]:
    """The ids that are not in the path, by where they are."""
    return {
        where: [field for field in fields if field.endswith("_id") and field != "trace_id"]
        for where, fields in (("query", route.parameters("query")), ("body", route.fields))
    }


def test_every_route_is_listed_in_the_operations() -> None:
    assert OPERATIONS.keys() == routes().keys(), "operations.py needs a line for each operation"
    for name, route in routes().items():
        operation = OPERATIONS[name]
        assert not set(ids_of(name)) - EXAMPLES.keys(), f"{name}: EXAMPLES lacks an id"
        fields = id_fields(route)
        assert not set(fields["query"]) - set(operation.query), f"{name}: name all ids of the query"
        assert not set(fields["body"]) - set(operation.body or {}), f"{name}: name all ids of the body"
        assert (operation.scope is Scope.OPEN) == (not route.spec["security"]), name
        if operation.scope is Scope.USER:
            assert "user" in (*route.parameters("query"), *route.fields), name


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_owner_of_a_resource_can_access_it(world: World, name: str, prefix: str) -> None:
    operation = OPERATIONS[name]
    ids, user = own_ids(name, world)
    response = request_for(name, ids, user).send(world.client, prefix)
    if operation.scope is Scope.OPEN and prefix:
        refused(response, 404, "not_found")
        return
    assert response.status_code == operation.status, response.text
    if operation.off:
        refused(response, 400, "app_unavailable")


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", keyed)
def test_every_operation_is_refused_without_a_key(world: World, name: str, prefix: str) -> None:
    """A caller without a key cannot distinguish existing resources from missing ones."""
    ids, user = own_ids(name, world)
    for authorization in (
        None,
        "",
        "Bearer",
        "Bearer wrong",
        f"Bearer {API_KEY}x",
        f"Basic {API_KEY}",
        API_KEY,
    ):
        headers = {} if authorization is None else {"Authorization": authorization}
        there = request_for(name, ids, user).send(world.nobody, prefix, headers)
        assert refused(there, 401, "unauthorized").keys() == {"code", "message", "status"}
        assert API_KEY not in there.text
        nowhere = request_for(name, unknown_ids(name), "nobody").send(world.nobody, prefix, headers)
        assert told(there) == told(nowhere)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", with_ticket)
def test_a_ticket_opens_only_its_own_resource(world: World, name: str, prefix: str) -> None:
    ids, user = own_ids(name, world)
    other_ids, _ = own_ids(name, world)
    assert request_for(name, ids, user).send(world.nobody, prefix).status_code == OPERATIONS[name].status
    for client in (world.nobody, world.client):
        for ticket in ("", "nonsense", f"{ids['ticket']}x"):
            bad = request_for(name, {**ids, "ticket": ticket}, user).send(client, prefix)
            refused(bad, 401, "unauthorized")
        others = request_for(name, {**ids, "ticket": other_ids["ticket"]}, user).send(client, prefix)
        assert others.status_code in (401, 404)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", with_id)
def test_resources_of_others_answer_as_if_they_did_not_exist(world: World, name: str, prefix: str) -> None:
    operation = OPERATIONS[name]
    ids, user = own_ids(name, world)
    before = belongings(world, user)
    nowhere = request_for(name, unknown_ids(name), user).send(world.client, prefix)
    assert nowhere.status_code == operation.unknown, nowhere.text
    foreign = request_for(name, ids, user).send(world.other, prefix)
    assert told(foreign) == told(nowhere), "another app's key"
    by_a_stranger = request_for(name, ids, f"{user}-2")
    if operation.scope is Scope.USER:
        assert told(by_a_stranger.send(world.client, prefix)) == told(nowhere), "another user"
    assert belongings(world, user) == before, "nothing happened to it"
    if operation.scope is Scope.APP:
        assert by_a_stranger.send(world.client, prefix).status_code == operation.status


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("name", with_id)
def test_a_malformed_id_is_unknown_or_refused_by_name(world: World, name: str, prefix: str) -> None:
    """In a path it is as good as unknown; in a query or a body it is an error of the request, and so is
    everywhere what is no text."""
    operation, route = OPERATIONS[name], routes()[name]
    ids, user = own_ids(name, world)
    for key in ids_of(name):
        unknown = request_for(name, {**ids, key: str(uuid4())}, user).send(world.client, prefix)
        assert unknown.status_code == operation.unknown, f"{key}: {unknown.text}"
        if key not in route.parameters("path"):
            continue
        for text in MALFORMED:
            malformed = request_for(name, {**ids, key: text}, user).send(world.client, prefix)
            assert told(malformed) == told(unknown), f"{key}={text}"
        for text in NO_TEXT:
            answer = request_for(name, {**ids, key: text}, user).send(world.client, prefix)
            assert refused(answer, 400, "invalid_param")["message"].startswith(f"{key}: "), text
    for where, fields in id_fields(route).items():
        for field in fields:
            for text in ("nonsense", "0", "\x00", f"{uuid4()}0", "null"):
                request = with_field(request_for(name, ids, user), where, field, text)
                response = request.send(world.client, prefix)
                assert field in refused(response, 400, "invalid_param")["message"], text


@pytest.mark.parametrize("name", keyed)
def test_no_response_contains_data_of_others(world: World, name: str) -> None:
    owner = world.owner()
    ids = {key: EXAMPLES[key](owner) for key in ids_of(name)}
    secrets = [owner.turn[key] for key in ("task_id", "message_id", "conversation_id")]
    secrets += [owner.chat.user, owner.feedback["id"], owner.feedback["from_end_user_id"]]

    def shown(user: str, client: httpx.Client) -> list[str]:
        response = request_for(name, ids, user).send(client)
        return [secret for secret in secrets if secret in response.text]

    # The same name is another user of another app, and may be told its own name.
    assert not shown("somebody", world.other)
    if OPERATIONS[name].scope is Scope.USER:
        assert not shown("somebody", world.client)
        if name.startswith("list") and not name.endswith("Variables"):
            assert shown(owner.chat.user, world.client), "or this test would see nothing"


def test_other_methods_are_refused(world: World) -> None:
    for path, documented in document()["paths"].items():
        allowed = {method.upper() for method in documented}
        ids = dict.fromkeys(EXAMPLES, str(uuid4()))
        prefixes = PREFIXES if all(spec["security"] for spec in documented.values()) else ("",)
        for prefix in prefixes:
            for method in set(METHODS) - allowed:
                response = world.client.request(method, prefix + path.format_map(ids), content=b"{")
                assert refused(response, 405, "method_not_allowed").keys() == {"code", "message", "status"}
                assert set(response.headers["Allow"].split(", ")) == allowed


def with_field(request: Request, where: str, field: str, value: str) -> Request:
    """The request with another value of one field."""
    query, body = request.query, request.body
    if where == "query":
        query = {**query, field: value}
    else:
        body = {**(body or {}), field: value}
    return Request(request.method, request.path, query, body, request.file)


def belongings(world: World, user: str) -> list[Any]:
    """The resources of this user, as the user sees them."""
    conversations: Json = world.client.get("/conversations", params={"user": user}).json()
    return [
        conversations,
        *(
            world.client.get("/messages", params={"user": user, "conversation_id": item["id"]}).json()
            for item in conversations["data"]
        ),
    ]
