"""Settings, read from `AGENT_GATEWAY_*` environment variables or a `.env` file.

Read by app, cli and alembic/env only; everything else is handed what it needs.
"""

import re
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from agent_gateway.domain import Generation
from agent_gateway.errors import ConfigError


class Settings(BaseSettings):
    """Every setting of the gateway. Durations are seconds."""

    model_config = SettingsConfigDict(
        env_prefix="AGENT_GATEWAY_", env_file=".env", extra="ignore", env_ignore_empty=True
    )

    data_dir: Path = Path(".data")
    """Folder of the embedded database and of secrets made at first start."""
    database_url: str = ""
    """SQLAlchemy or libpq style URL; empty: an SQLite file in DATA_DIR."""
    database_pool_size: int = Field(5, ge=1)
    """Connections each process holds for requests; three more are kept for finishes and heartbeats."""
    files_url: str = ""
    """Where files are kept: file:///folder, s3://, gs:// or az://; empty: a folder in DATA_DIR."""
    image_file_size_limit: int = Field(10, ge=1)
    """Megabytes, as the other limits of files."""
    file_size_limit: int = Field(15, ge=1)
    """Of documents and all that is not image, audio or video."""
    audio_file_size_limit: int = Field(50, ge=1)
    video_file_size_limit: int = Field(100, ge=1)
    backend_url: str = ""
    """Base URL of the agent backend; empty: the embedded one."""
    backend_token: SecretStr = SecretStr("")
    """Bearer token sent to the backend (and expected by `agent-gateway backend`)."""
    backend_reconnect_seconds: float = Field(15.0, gt=0)
    """How long a turn outlives a backend that can not be reached; progress resets it."""
    backend_schema: Generation | None = None
    """Generation of the run protocol of a backend that does not say it; empty: that of the app file."""
    model: str = ""
    """Model of the embedded agent, e.g. `openai:gpt-5-mini`; empty: the offline demo agent."""
    api_key: SecretStr = SecretStr("")
    """Key of the default app; empty: one is made and printed once at first start."""
    app_file: Path | None = None
    """YAML file of the default app; wins over APP_MODE."""
    app_mode: Literal["chat", "agent-chat", "agent"] = "chat"
    """Mode of the built-in default app."""
    secret_key: SecretStr = SecretStr("")
    """Signs tickets and hashes keys; made once in DATA_DIR when empty, required with Postgres."""
    public_url: str = ""
    """How clients and agents reach this service; prefixes the URLs it makes. Empty: they are paths."""
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    log_format: Literal["text", "json"] = "text"
    lease_seconds: float = Field(8.0, gt=0)
    """How long a turn stays its process's own without a heartbeat; renewed each third of it."""
    turn_timeout_seconds: float = Field(3600.0, gt=0)
    """The longest a turn may take."""
    idle_timeout_seconds: float = Field(300.0, gt=0)
    """The longest a run may say nothing; keepalives do not count."""
    ping_seconds: float = Field(3.0, gt=0)
    drain_seconds: float = Field(30.0, ge=0)
    """How long SIGTERM waits for readers who can not resume elsewhere and turns that can not go on there."""
    max_active_turns: int = Field(10_000, ge=1)
    """Turns one process runs at once; more are refused with 503."""
    max_body_bytes: int = Field(8 * 1024 * 1024, ge=1024)
    """The largest body of a request; more is refused with 413."""
    cors_origins: Annotated[frozenset[str], NoDecode] = frozenset()
    """Origins whose pages may call the API, comma separated, each exact; empty: none."""

    @field_validator("backend_schema", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return int(value) if isinstance(value, str) and value in ("1", "2") else value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return frozenset(filter(None, (origin.strip() for origin in value.split(","))))

    @field_validator("cors_origins")
    @classmethod
    def _exact(cls, value: frozenset[str]) -> frozenset[str]:
        for origin in value:
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#*\s@A-Z]+", origin):
                raise ValueError(f"{origin!r} is not an origin as browsers send it, like https://example.com")
        return value

    @field_validator("public_url", "backend_url")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        return value.rstrip("/")

    @field_validator("public_url", "backend_url")
    @classmethod
    def _http(cls, value: str) -> str:
        if value and not re.fullmatch(r"https?://[^/?#\s]+[^?#\s]*", value):
            raise ValueError("not a URL like https://example.com/path")
        return value

    @property
    def agent_url(self) -> str:
        """How an agent reaches this service for the files of a message."""
        local = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host  # noqa: S104 - to be replaced
        return self.public_url or f"http://{f'[{local}]' if ':' in local else local}:{self.port}"

    @property
    def embedded_database(self) -> bool:
        """True when the database is SQLite: one process, migrated by itself."""
        return not self.database_url or self.database_url.startswith("sqlite")

    def resolved_database_url(self) -> str:
        """The database URL, with the default filled in."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'agent-gateway.db'}"

    def resolved_secret_key(self) -> bytes:
        """The secret key; made once and kept in DATA_DIR when none is set.

        Raises ConfigError with Postgres, where all processes must share one key.
        """
        if key := self.secret_key.get_secret_value():
            return key.encode()
        if not self.embedded_database:
            raise ConfigError("AGENT_GATEWAY_SECRET_KEY is required with Postgres: all processes share it.")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        path = self.data_dir / "secret-key"
        if not path.exists():
            # Complete or not there at all, whenever the process dies.
            new = path.with_suffix(".new")
            new.touch(mode=0o600)
            new.write_text(secrets.token_urlsafe(32))
            new.replace(path)
        if key := path.read_text().strip():
            return key.encode()
        raise ConfigError(f"{path} is empty: delete it, and a new key is made.")
