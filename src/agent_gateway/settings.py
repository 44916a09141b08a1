"""Settings, read from `AGENT_GATEWAY_*` environment variables or a `.env` file.

Only the composition root and alembic/env.py read them. Every other module gets its values as arguments.
"""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from agent_gateway.apps.config import AppMode
from agent_gateway.domain.ids import Generation
from agent_gateway.errors import ConfigError

PREFIX: Final = "AGENT_GATEWAY_"
ENV_FILE: Final = ".env"
SECRET_CHARACTERS: Final = 32
"""The minimum length of a secret key, so that nobody can guess it."""
LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to be replaced
"""The address at which an agent on this machine reaches a server that listens on all addresses."""
QUOTES: Final = "\"'`“”‘’"
KUBERNETES: Final = re.compile(
    r"(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PORT|PROTO|ADDR))?)"
)
"""Variables that Kubernetes sets for services whose names begin with ours, besides `…PORT`."""


class Settings(BaseSettings):
    """Every setting of the gateway. Durations are seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=ENV_FILE,
        # Accepts the byte order mark that some editors write.
        env_file_encoding="utf-8-sig",
        extra="ignore",
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    data_dir: Path = Path(".data")
    """Folder of the embedded database, of files, and of secrets that the first start makes."""
    database_url: str = ""
    """SQLAlchemy or libpq style URL; empty: an SQLite file in DATA_DIR."""
    database_pool_size: int = Field(5, ge=1)
    """Connections of each process for requests; three more are kept for finishes and heartbeats."""
    files_url: str = ""
    """Where files are kept: file:///folder, s3://, gs:// or az://; empty: a folder in DATA_DIR."""
    image_file_size_limit: int = Field(10, ge=1)
    """Megabytes, like the other limits of files."""
    file_size_limit: int = Field(15, ge=1)
    """For documents and all files that are not images, audio or video."""
    audio_file_size_limit: int = Field(50, ge=1)
    video_file_size_limit: int = Field(100, ge=1)
    backend_url: str = ""
    """Base URL of the agent backend; empty: the embedded one."""
    backend_token: SecretStr = SecretStr("")
    """Bearer token sent to the backend (and expected by `agent-gateway backend`)."""
    backend_reconnect_seconds: float = Field(15.0, gt=0)
    """How long a turn outlives an unreachable backend; progress resets it."""
    backend_schema: Generation | None = None
    """Generation of the run protocol, for a backend that does not name it; empty: that of the app file."""
    model: str = ""
    """Model of the embedded agent, e.g. `openai:gpt-5-mini`; empty: the offline demo agent."""
    api_key: SecretStr = SecretStr("")
    """Key of the default app; empty: the first start makes one and prints it once."""
    app_file: Path | None = None
    """YAML file of the default app; wins over APP_MODE."""
    app_mode: AppMode = "chat"
    """Mode of the built-in default app."""
    secret_key: SecretStr = SecretStr("")
    """Signs tickets and hashes keys: 32 characters or more. Made once in DATA_DIR when empty, required with
    Postgres."""
    public_url: str = ""
    """How clients and agents reach this service; prefixes the URLs it makes. Empty: they are paths."""
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The lowest level that is logged."""
    metrics: bool = True
    """Whether GET /metrics answers, and anything is measured."""
    lease_seconds: float = Field(8.0, gt=0)
    """How long a process keeps its turns without a heartbeat; it sends three heartbeats in that time."""
    turn_timeout_seconds: float = Field(3600.0, gt=0)
    """The longest time that a turn may take."""
    idle_timeout_seconds: float = Field(300.0, gt=0)
    """The longest time without an event of a run; keepalives do not count."""
    ping_seconds: float = Field(3.0, gt=0)
    drain_seconds: float = Field(30.0, ge=0)
    """How long a drain waits for readers and turns that cannot continue in another process."""
    max_active_turns: int = Field(10_000, ge=1)
    """Turns that one process runs at once; more are refused with 503."""
    max_body_bytes: int = Field(8 * 1024 * 1024, ge=1024)
    """The largest body of a request; more is refused with 413."""
    retention_days: int = Field(0, ge=0, le=36_500)
    """How long untouched conversations of apps are kept that do not say it themselves; 0: for ever."""
    playground: bool | None = None
    """Whether `/` has a page for chatting. Unset: only where nobody but this machine reaches the gateway."""
    cookie_domain: str = ""
    """Domain of the playground's cookie; empty: the host that a browser asked, and no other."""
    cors_origins: Annotated[frozenset[str], NoDecode] = frozenset()
    """Origins whose pages may call the API, comma separated, each exact; empty: none."""

    @classmethod
    def read(cls, **given: Any) -> "Settings":
        """The settings of the environment, with these values in place of its own. Raises ConfigError."""
        try:
            return cls(**given)
        except ValidationError as error:
            faults = [
                f"{PREFIX}{'.'.join(map(str, fault['loc']))}".upper() + f": {fault['msg']}"
                for fault in error.errors()
            ]
            raise ConfigError("; ".join(faults).replace(": Value error, ", ": ")) from None
        except UnicodeDecodeError:
            raise ConfigError(f"{ENV_FILE} is not UTF-8") from None
        except OSError as error:
            raise ConfigError(f"{ENV_FILE} cannot be read: {error.strerror}") from None

    @classmethod
    def settings_customise_sources(  # pyrefly: ignore[missing-override-decorator]
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Refuse variables that are no settings: a typing error would silently configure another gateway."""
        for source, place in ((env_settings, "the environment"), (dotenv_settings, ENV_FILE)):
            if isinstance(source, EnvSettingsSource):
                _refuse_unknown(source.env_vars, place, cls.model_fields)
        return init_settings, env_settings, dotenv_settings

    @field_validator("port", mode="before")
    @classmethod
    def _no_service(cls, value: Any) -> Any:
        # Kubernetes sets this in every pod for a service named agent-gateway.
        if isinstance(value, str) and value.startswith(("tcp://", "udp://", "sctp://")):
            return cls.model_fields["port"].default
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _small(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

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
        if value and not (re.fullmatch(r"https?://[^/?#\s]+[^?#\s]*", value) and _has_address(value)):
            raise ValueError("not a URL like https://example.com/path")
        return value

    @field_validator("api_key", "backend_token")
    @classmethod
    def _header(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"[!-~]*", value.get_secret_value()):
            raise ValueError("holds spaces or letters that are not ASCII: an HTTP header does not carry them")
        return value

    @field_validator("secret_key")
    @classmethod
    def _typed(cls, value: SecretStr) -> SecretStr:
        # Another machine may encode the same letter as other bytes.
        if not re.fullmatch(r"[ -~]*", value.get_secret_value()):
            raise ValueError("holds letters that are not ASCII")
        return value

    # The last one is called first.
    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any) -> Any:
        """Remove the line break at the end of a file; refuse other characters that were not intended."""
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not isinstance(text, str):
            return value
        text = text.strip()
        if text.startswith(tuple(QUOTES)) or text.endswith(tuple(QUOTES)):
            raise ValueError("begins or ends with a quotation mark: give it without")
        if not text.isprintable():
            raise ValueError("holds a line break or another invisible character")
        return text

    @field_validator("cookie_domain")
    @classmethod
    def _domain(cls, value: str) -> str:
        if value and not re.fullmatch(r"\.?[a-z0-9-]+(\.[a-z0-9-]+)*", value):
            raise ValueError("not a domain like example.com")
        return value

    @property
    def shows_playground(self) -> bool:
        """Whether there is a playground. By default not where others than this machine may reach it."""
        if self.playground is not None:
            return self.playground
        return self.is_local and not self.public_url

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def agent_url(self) -> str:
        """The URL at which an agent reaches this service for the files of a message."""
        return self.public_url or self.local_url

    @property
    def local_url(self) -> str:
        """The URL at which a client on this machine reaches this service."""
        local = LOOPBACK.get(self.host, self.host)
        return f"http://{f'[{local}]' if ':' in local else local}:{self.port}"

    @property
    def embedded_database(self) -> bool:
        """True when the database is SQLite: one process, migrated by itself."""
        return not self.database_url or self.database_url.startswith("sqlite")

    def resolved_database_url(self) -> str:
        """The database URL, with the default filled in."""
        return self.database_url or f"sqlite:///{quote(str(self.data_dir.absolute()))}/agent-gateway.db"

    def given_secret_key(self) -> bytes | None:
        """The value of SECRET_KEY; None when the key is in a file in DATA_DIR.

        Raises ConfigError with Postgres, where all processes share one key and anybody may reach them.
        """
        key = self.secret_key.get_secret_value()
        if not self.embedded_database and len(key) < SECRET_CHARACTERS:
            fault = "is too short" if key else "is required with Postgres, since all processes share it"
            raise ConfigError(
                f"AGENT_GATEWAY_SECRET_KEY {fault}: set {SECRET_CHARACTERS} random characters or more"
            )
        return key.encode() or None


def _has_address(url: str) -> bool:
    """Whether a URL, in ASCII, names a host, and a port that exists if any."""
    try:
        parts = urlsplit(url)
        return url.isascii() and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _refuse_unknown(variables: Mapping[str, str | None], place: str, known: Iterable[str]) -> None:
    """Raise ConfigError for variables that have the prefix and are no settings."""
    names = {f"{PREFIX}{name}".upper() for name in known}
    faults = []
    for given, value in sorted(variables.items()):
        name = given.upper()
        if not name.startswith(PREFIX) or name in names or _is_of_kubernetes(name, value or ""):
            continue
        nearest = get_close_matches(name, names, n=1, cutoff=0)[0]
        faults.append(f"{name} in {place} is no setting: the nearest is {nearest}")
    if faults:
        raise ConfigError("; ".join(faults))


def _is_of_kubernetes(name: str, value: str) -> bool:
    is_port = name.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", value)
    return bool(is_port or KUBERNETES.fullmatch(name.removeprefix(PREFIX)))
