"""The data that a backend reads in a request and makes from it: query, history, next snapshot, usage."""

from tests.support.json_type import Json


def query_of(body: Json) -> str:
    """The user prompt of a request."""
    for layer in body["composition"]["layers"]:
        config = layer.get("config") or {}
        user = config.get("user", config.get("text")) if isinstance(config, dict) else None
        if user is not None:
            return user if isinstance(user, str) else " ".join(user)
    return ""


def history_of(snapshot: Json | None) -> list[Json]:
    """The messages in a session snapshot's history layer."""
    layers = (snapshot or {}).get("layers", [])
    held = layers if isinstance(layers, dict) else {one["name"]: one.get("runtime_state") for one in layers}
    messages: list[Json] = (held.get("history") or {}).get("messages", [])
    return messages


def problem_of(body: Json) -> str | None:
    """The mistake that a real backend notices only after its 202, if there is one."""
    names = [layer["name"] for layer in body["composition"]["layers"]]
    snapshot = body.get("session_snapshot")
    if snapshot is None:
        return None
    found = [layer["name"] for layer in snapshot["layers"]]
    if found != names:
        return f"CompositorSessionSnapshot layer names must match in order: expected {names}, got {found}"
    last = history_of(snapshot)[-1:]
    asked = any(part["part_kind"] == "tool-call" for message in last for part in message["parts"])
    prompted = any(
        (layer.get("type") or layer["name"]).endswith("llm") for layer in body["composition"]["layers"]
    )
    if asked and prompted and not body.get("deferred_tool_results"):
        return "Cannot provide a new user prompt when the message history contains unprocessed tool calls."
    return None


def grown_snapshot(body: Json, reply: Json) -> Json:
    """The request's snapshot, one turn and the model's `reply` part later. No history layer, no memory."""
    answers = body.get("deferred_tool_results")
    if answers:
        calls = answers["calls"].items()
        parts = [{"tool_call_id": key, "content": value, "part_kind": "tool-return"} for key, value in calls]
    else:
        parts = [{"content": query_of(body), "part_kind": "user-prompt"}]
    turn = [
        {"parts": parts, "kind": "request", "state": "complete"},
        {"parts": [reply], "kind": "response", "state": "complete"},
    ]
    messages = [*history_of(body.get("session_snapshot")), *turn]
    if body["composition"]["schema_version"] == 2:
        names = [layer["name"] for layer in body["composition"]["layers"]]
        held = {name: {"messages": messages} if name == "history" else {} for name in names}
        return {"schema_version": 2, "layers": held}
    layers = [
        {
            "name": layer["name"],
            "lifecycle_state": "suspended",
            "runtime_state": {"messages": messages} if layer["name"] == "history" else {},
        }
        for layer in body["composition"]["layers"]
    ]
    return {"schema_version": body["composition"]["schema_version"], "layers": layers}


def usage_of(body: Json, said: str) -> Json:
    """As many tokens as words, at a thousandth and two thousandths each thousand."""
    prompt = len(query_of(body).split())
    completion = len(said.split())
    return {
        "prompt_tokens": prompt,
        "prompt_unit_price": "0.001",
        "prompt_price_unit": "0.001",
        "prompt_price": f"{prompt * 1e-6:.7f}",
        "completion_tokens": completion,
        "completion_unit_price": "0.002",
        "completion_price_unit": "0.001",
        "completion_price": f"{completion * 2e-6:.7f}",
        "total_tokens": prompt + completion,
        "total_price": f"{(prompt + 2 * completion) * 1e-6:.7f}",
        "currency": "USD",
        "latency": 0.086,
        "time_to_first_token": 0.01,
        "time_to_generate": 0.086,
    }


def remembered(body: Json) -> list[str]:
    """The earlier messages of the user that the run got."""
    parts = [part for message in history_of(body.get("session_snapshot")) for part in message["parts"]]
    return [part["content"] for part in parts if part["part_kind"] == "user-prompt"]
