"""Checks the settings before anything starts."""

import os

from agent_gateway import tracing
from agent_gateway.apps.config import AppConfig, default_app
from agent_gateway.apps.file import load_app_file, refusal
from agent_gateway.backend.compose import has_place_for_files
from agent_gateway.openers import check_database, check_model
from agent_gateway.settings import Settings


def validate_settings(settings: Settings) -> AppConfig:
    """The configuration of the default app. Raises ConfigError for settings with which no start can work."""
    check_database(settings)
    settings.given_secret_key()
    tracing.require()
    config = load_config(settings)
    if settings.model and not settings.backend_url:
        check_model(settings)
    return config


def load_config(settings: Settings) -> AppConfig:
    """The configuration of the default app. Raises ConfigError for errors in its file."""
    if settings.app_file is None:
        return default_app(settings.app_mode)
    config = load_app_file(settings.app_file, os.environ)
    check_app(settings, config, str(settings.app_file))
    return config


async def try_tools(settings: Settings, config: AppConfig) -> str:
    """What came of connecting to the MCP servers of an app; empty when the built-in agent uses none.

    Raises ConfigError for the first that cannot be used.
    """
    if settings.backend_url:
        return ""
    from agent_gateway.backend.embedded.app_check import try_servers

    return await try_servers(config, os.environ)


def app_model(settings: Settings, config: AppConfig) -> str:
    """The model that an app names for the built-in agent; empty without one."""
    if settings.backend_url:
        return ""
    from agent_gateway.backend.embedded.app_check import model_named

    return model_named(config)


def check_app(settings: Settings, config: AppConfig, source: str) -> list[str]:
    """Notes about an app for the operator. Raises ConfigError for parts that the embedded agent would ignore.

    With another backend no parts are refused. `source` names the file or the app in errors.
    """
    notes: list[str] = []
    if config.file_upload.enabled and not has_place_for_files(config.composition):
        notes.append("files of messages reach no layer: say ${files} in a prompt, or turn file_upload off")
    if settings.backend_url:
        return notes
    from agent_gateway.backend.embedded import app_check

    if found := app_check.problems(config):
        raise refusal(source, found, " for the embedded agent (AGENT_GATEWAY_BACKEND_URL is not set)")
    return notes + app_check.notes(config) + app_check.missing_programs(config)
