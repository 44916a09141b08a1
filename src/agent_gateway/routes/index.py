"""The root of a base URL: clients probe it to learn whether the URL is right."""

from importlib.metadata import version

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)


@router.get("/")
async def get_index() -> dict[str, str]:
    """Which API this is, and which release serves it; without a key."""
    return {
        "welcome": "Agent Gateway",
        "api_version": "v1",
        "server_version": version("agent-gateway"),
    }
