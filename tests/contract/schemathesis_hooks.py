"""Facts for schemathesis that the OpenAPI document cannot express."""

import json
import os
from typing import Any
from uuid import uuid4

import schemathesis

USER = "ada"
_known: dict[str, list[str]] = json.loads(os.environ["KNOWN_IDS"])
"""The ids of this user's resources, by the names of parameters, in the order of creation."""


@schemathesis.deserializer("text/event-stream")
def events(context: schemathesis.DeserializationContext, response: schemathesis.Response) -> list[Any]:
    """The schema of a stream is that of the JSON in one `data:` line."""
    lines = response.content.decode().split("\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: "schemathesis.Case[Any]", kwargs: dict[str, Any]
) -> None:
    """Valid requests are of one user, about what there is: by chance they would find nothing."""
    if not _is_valid(case):
        return
    if isinstance(case.body, dict) and "user" in case.body:
        case.body["user"] = USER
    if any(parameter.name == "user" for parameter in case.operation.query):
        case.query["user"] = USER
    if case.operation.method == "post":
        # Resumes what an earlier POST with the same Idempotency-Key began.
        case.headers.pop("Last-Event-ID", None)
    if case.operation.definition.raw["security"] == [{"Ticket": []}]:
        case.query["ticket"] = _known["ticket"][0]
    for parameters in (case.path_parameters, case.query):
        for name in [name for name in parameters if name in _known]:
            first, *later = _known[name]
            # The first of each kind is never deleted: others need it.
            nobody_needs = later[-1] if later else str(uuid4())
            parameters[name] = nobody_needs if case.operation.method == "delete" else first


@schemathesis.hook
def after_call(
    context: schemathesis.HookContext, case: "schemathesis.Case[Any]", response: schemathesis.Response
) -> None:
    """Learn which resources exist now, and which are gone."""
    if not _is_valid(case) or response.status_code >= 300:
        return
    if case.operation.method == "delete":
        for name, value in case.path_parameters.items():
            _known[name].remove(value)
    elif response.headers.get("content-type") == ["application/json"]:
        for name, value in json.loads(response.content).items():
            if name in _known:
                _known[name].append(value)


def _is_valid(case: "schemathesis.Case[Any]") -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive
