"""The providers of models: which exist, what must be installed for them, and what they take.

Importing this module loads nothing of the agent framework; calling its functions does.
"""

import inspect
import re
import warnings
from collections.abc import Iterable
from functools import cache
from importlib.metadata import metadata
from typing import TYPE_CHECKING, Any, Final

from agent_gateway.backend.embedded.layers import nearest

if TYPE_CHECKING:
    from pydantic_ai.providers import Provider

_EXTRA: Final = re.compile(r"pydantic-ai-slim\[([a-z-]+)\]")
_VARIABLE: Final = re.compile(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)`")


class Unusable(Exception):
    """A model cannot be made. The text holds no secret and no word of a user."""


def problem_of(provider: str, keys: Iterable[str] = ()) -> str | None:
    """Why no model of this provider can be used with these keys of a layer; None when one can."""
    try:
        made = _class_of(provider)
    except ValueError:
        return f"no provider {provider!r} is known{nearest(provider, _names())}"
    except ImportError as error:
        return f"the provider {provider!r} needs a package: install {_extra(error)}"
    return next((_not_taken(provider, key) for key in keys if key not in _taken_by(made)), None)


def missing_variables(provider: str) -> list[str]:
    """The environment variables, one of which this provider needs and none of which is set here."""
    if provider.startswith("gateway/"):
        return []  # its class is that of the provider behind the gateway
    try:
        with warnings.catch_warnings(action="ignore"):  # of providers that will go away
            _class_of(provider)()
    except Exception as error:  # noqa: BLE001 - each provider says in its own way what it needs
        return _VARIABLE.findall(str(error))
    return []


def provider_of(name: str, *, api_key: str | None, base_url: str | None) -> "Provider[Any]":
    """The provider with this key and address. Raises Unusable when it does not take one of them."""
    given = {key: value for key, value in {"api_key": api_key, "base_url": base_url}.items() if value}
    made = _class_of(name)
    for key in given:
        if key not in _taken_by(made):
            raise Unusable(_not_taken(name, key))
    return made(**given)


def _not_taken(provider: str, key: str) -> str:
    return f"the provider {provider!r} takes no {key!r}"


def _taken_by(made: "type[Provider[Any]]") -> frozenset[str]:
    return frozenset(inspect.signature(made.__init__).parameters)


def _class_of(provider: str) -> "type[Provider[Any]]":
    """Raises ValueError for an unknown provider, ImportError for one that is not installed."""
    from pydantic_ai.providers import infer_provider_class

    return infer_provider_class(provider)


def _extra(error: ImportError) -> str:
    """The extra that brings what is missing: of this package, or else of the agent framework."""
    found = _EXTRA.search(str(error))
    if found is None:
        return f"what it says: {error}"
    ours = metadata("agent-gateway").get_all("Provides-Extra") or []
    return f"agent-gateway[{found[1]}]" if found[1] in ours else found[0]


@cache
def _names() -> frozenset[str]:
    from pydantic_ai.models import known_model_names

    return frozenset(name.partition(":")[0] for name in known_model_names())
