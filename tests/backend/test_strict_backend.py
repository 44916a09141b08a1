"""The scripted backend refuses what real ones of both generations were recorded to refuse, in their words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.strict import complaints, failure, openapi
from tests.support.paths import RECORDED

RUNS = sorted(
    path for folder in ("schema1", "schema2", "cross") for path in (RECORDED / folder).glob("*.sse")
)
MADE_LATER = {"error_mid_then", "cancel_text", "tool_knowledge"}
"""Their runs failed after they had begun, or for want of what only the real backend has."""


def request_of(path: Path) -> Any:
    return json.loads(path.with_suffix(".request.json").read_text("utf-8"))


def error_of(path: Path) -> str | None:
    """How the recorded run failed, in its first line."""
    for line in reversed(path.read_text("utf-8").split("\n")):
        if line.startswith("data: "):
            error = json.loads(line.removeprefix("data: "))["data"].get("error")
            return None if error is None else str(error).strip('"')
    raise AssertionError(f"{path} is empty")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_recorded_run_starts_or_fails_as_recorded(path: Path) -> None:
    body = request_of(path)
    generation = body["composition"]["schema_version"]
    assert complaints(body, generation) == []
    recorded = None if path.stem in MADE_LATER else error_of(path)
    told = failure(body, generation, "dify.")
    if recorded is None or told is None:
        assert told == recorded
    else:
        # Errors of several lines contain links: only their numbers and names are compared.
        assert _plain(told) == _plain(recorded)


def _plain(error: str) -> list[str]:
    return [line for line in error.strip("'\"").split("\n") if "further information" not in line]


@pytest.mark.parametrize(
    "name", ["v1_snapshot_custom_layer_name_to_schema2", "v2_snapshot_to_schema1"], ids=["to-2", "to-1"]
)
def test_a_snapshot_of_the_wrong_form_is_refused_as_recorded(name: str) -> None:
    recorded = json.loads((RECORDED / "cross" / f"{name}.post.json").read_text("utf-8"))
    body = json.loads((RECORDED / "cross" / f"{name}.request.json").read_text("utf-8"))
    assert recorded["status"] == 422
    assert complaints(body, body["composition"]["schema_version"]) == recorded["body"]["detail"]


@pytest.fixture(params=[1, 2])
def real(request: pytest.FixtureRequest) -> Iterator[tuple[ScriptedBackend, dict[str, Any], Any]]:
    """A strict backend, what its model answered, and a request that it takes."""
    folder = RECORDED / f"schema{request.param}"
    recorded = json.loads((folder / "http.json").read_text("utf-8"))
    with ScriptedBackend() as backend:
        backend.speaks = request.param
        yield backend, recorded, json.loads((folder / "plain.request.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("with_on_exit", {"on_exit": {"default": "suspend"}}),
        ("with_on_exit_delete", {"on_exit": {"default": "delete"}}),
        ("with_deferred", {"deferred_tool_results": {"calls": {"x": 1}, "metadata": {}}}),
        ("with_unknown_field", {"surprise": 1}),
    ],
)
def test_keys_are_accepted_or_refused_as_recorded(
    real: tuple[ScriptedBackend, dict[str, Any], Any], name: str, more: dict[str, Any]
) -> None:
    backend, recorded, body = real
    answer = httpx.post(f"{backend.url}/runs", json={**body, **more}, trust_env=False)
    assert answer.status_code == recorded[name]["status"]
    if answer.status_code == 422:
        assert answer.json() == recorded[name]["body"]


def test_the_other_generation_is_refused_as_recorded(
    real: tuple[ScriptedBackend, dict[str, Any], Any],
) -> None:
    backend, recorded, _ = real
    other = 2 if backend.speaks == 1 else 1
    # The recorded request had another query than the other requests.
    body = json.loads((RECORDED / f"schema{other}" / "tool_core.request.json").read_text("utf-8"))
    del body["composition"]["layers"][5]
    answer = httpx.post(f"{backend.url}/runs", json=body, trust_env=False)
    assert answer.status_code == 422
    wanted = json.loads(json.dumps(recorded["other_generation"]["body"]).replace("fake-text", "fake-tool"))
    assert answer.json() == wanted


def test_the_document_states_the_generation(real: tuple[ScriptedBackend, dict[str, Any], Any]) -> None:
    backend, _, _ = real
    document = httpx.get(f"{backend.url}/openapi.json", trust_env=False).json()
    version = document["components"]["schemas"]["RunComposition"]["properties"]["schema_version"]
    assert version.get("const") == (2 if backend.speaks == 2 else None)
    assert document == openapi(backend.speaks or 1)


def test_a_backend_without_a_document_answers_404(real: tuple[ScriptedBackend, dict[str, Any], Any]) -> None:
    backend, _, _ = real
    backend.documented = False
    assert httpx.get(f"{backend.url}/openapi.json", trust_env=False).status_code == 404
    assert backend.documents == 1
