"""What schemathesis has to know that the OpenAPI document can not say."""

import json
from typing import Any

import schemathesis

USER = "ada"
_made: dict[str, list[str]] = {}
"""Ids and tokens that replies told this user, by their name; the newest last."""


@schemathesis.deserializer("text/event-stream")
def events(context: schemathesis.DeserializationContext, response: schemathesis.Response) -> list[Any]:
    """The schema of a stream is that of the JSON in one `data:` line."""
    lines = response.content.decode().split("\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: "schemathesis.Case[Any]", kwargs: dict[str, Any]
) -> None:
    """Valid requests are of one user and about what there is: by chance they would find nothing."""
    if not _is_valid(case):
        return
    if isinstance(case.body, dict) and "user" in case.body:
        case.body["user"] = USER
    if any(parameter.name == "user" for parameter in case.operation.query):
        case.query["user"] = USER
    if case.operation.method == "post":
        # Resumes what an earlier POST with the same Idempotency-Key began.
        case.headers.pop("Last-Event-ID", None)
    for parameters in (case.path_parameters, case.query):
        for name in [name for name in parameters if _made.get(name)]:
            parameters[name] = _made[name].pop() if case.operation.method == "delete" else _made[name][-1]


@schemathesis.hook
def after_call(
    context: schemathesis.HookContext, case: "schemathesis.Case[Any]", response: schemathesis.Response
) -> None:
    """Remember what there is now."""
    if not _is_valid(case) or response.status_code >= 300:
        return
    if response.headers.get("content-type") == ["application/json"]:
        reply = json.loads(response.content)
        for name, value in reply.items():
            if name.endswith(("_id", "_token")) and isinstance(value, str):
                _made.setdefault(name, []).append(value)


def _is_valid(case: "schemathesis.Case[Any]") -> bool:
    return case.meta is not None and case.meta.generation.mode.is_positive
