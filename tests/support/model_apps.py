"""Apps for the built-in agent, made of layers, and who talks to them."""

from collections.abc import Callable
from typing import Any

from agent_gateway.apps.config import AppConfig
from agent_gateway.apps.file import parse_app
from tests.support.chat import Chat
from tests.support.json_type import Json

PROVIDER_KEY = "sk-very-secret-0123456789"
ChatWith = Callable[..., Chat]
"""Makes somebody who talks to an app with these layers, which are given by their kinds."""


def app_of(app: Json, **layers: Any) -> AppConfig:
    """An app with a prompt, a memory and a model, changed like this; a layer that is None is left out."""
    prompt = {"prefix": "Be kind.", "user": "${query}"} | layers.pop("prompt", {})
    kinds: Json = {"prompt": prompt, "history": {}, "llm": {}, **layers}
    made = [{"name": kind, "config": config} for kind, config in kinds.items() if config is not None]
    return parse_app({"name": "x", "composition": {"layers": made}, **app}, None, "app.yaml")
