"""What no start could work with, found before anything starts."""

import os

from agent_gateway.apps.config import AppConfig, default_app
from agent_gateway.apps.file import load_app_file, refusal
from agent_gateway.backend.compose import has_place_for_files
from agent_gateway.preparation import check_database, open_backend
from agent_gateway.settings import Settings


def validate_settings(settings: Settings) -> AppConfig:
    """The configuration of the default app. Raises ConfigError for settings that no start could work with."""
    check_database(settings)
    settings.given_secret_key()
    config = load_config(settings)
    if settings.model and not settings.backend_url:
        open_backend(settings)
    return config


def load_config(settings: Settings) -> AppConfig:
    """The configuration of the default app; ConfigError when its file is wrong."""
    if settings.app_file is None:
        return default_app(settings.app_mode)
    config = load_app_file(settings.app_file, os.environ)
    check_app(settings, config, str(settings.app_file))
    return config


def check_app(settings: Settings, config: AppConfig, source: str) -> list[str]:
    """Raise ConfigError for what the embedded agent would leave out; returns what else is worth a note.

    What another backend knows is its own business. `source` says whose data it is.
    """
    notes: list[str] = []
    if config.file_upload.enabled and not has_place_for_files(config.composition):
        notes.append("files of messages reach no layer: say ${files} in a prompt, or turn file_upload off")
    if settings.backend_url:
        return notes
    from agent_gateway.backend.embedded.app_check import problems, unknown_models

    if found := problems(config):
        raise refusal(source, found, " for the embedded agent (AGENT_GATEWAY_BACKEND_URL is not set)")
    return notes + unknown_models(config)
