"""Looks at a backend over HTTP, without a run: it is asked to cancel one that it cannot know."""

from typing import Final

from agent_gateway.backend.client import HTTPBackend
from agent_gateway.backend.generation_detection import named_generation
from agent_gateway.domain.ids import RunId, new_id
from agent_gateway.errors import BackendError, BackendRefused, ConfigError
from agent_gateway.settings import Settings

REFUSALS: Final = frozenset({401, 403})


async def look_at(settings: Settings) -> str:
    """What a backend says of itself and of its token. Raises ConfigError for what is wrong."""
    token = settings.backend_token.get_secret_value()
    backend = HTTPBackend(settings.backend_url, token)
    try:
        await _cancel(backend, token)
        generation = await _generation(backend)
    finally:
        await backend.aclose()
    if generation is None:
        said = "reachable; no /openapi.json names a generation, so it may be another kind of server"
    else:
        said = f"reachable, speaks schema {generation}"
    if await _takes_any_token(settings.backend_url):
        return f"{said}; it asks for no token here, so whether it does for a run cannot be told"
    return f"{said}, accepts the token"


async def _cancel(backend: HTTPBackend, token: str) -> None:
    """Ask for something that changes nothing, but is not answered without the right token."""
    try:
        await backend.cancel(RunId(new_id()))
    except BackendRefused as error:
        if error.status not in REFUSALS:
            raise ConfigError(
                f"it answers {error.status} to the cancel of an unknown run, where 404 is expected: "
                "see whether AGENT_GATEWAY_BACKEND_URL is the base URL of a backend"
            ) from None
        wrong = "is not the one that it expects" if token else "is not set, and it wants one"
        raise ConfigError(f"it answers {error.status}: AGENT_GATEWAY_BACKEND_TOKEN {wrong}") from None
    except BackendError as error:
        raise ConfigError(f"{error}: see whether it runs and can be reached from here") from None


async def _generation(backend: HTTPBackend) -> int | None:
    try:
        return named_generation(await backend.openapi())
    except BackendError:
        return None


async def _takes_any_token(url: str) -> bool:
    """Whether a token that nobody gave out is accepted as well."""
    stranger = HTTPBackend(url, f"check-{new_id()}")
    try:
        await stranger.cancel(RunId(new_id()))
    except BackendError:
        return False
    finally:
        await stranger.aclose()
    return True
