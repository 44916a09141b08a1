"""Database URLs as people and hosts write them: what each part means, or one line that says what is wrong."""

import difflib
import os
import re
import shlex
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from agent_gateway.errors import ConfigError

NAME: Final = "AGENT_GATEWAY_DATABASE_URL"
POSTGRES_PORT: Final = 5432
CONNECT_SECONDS: Final = 5.0
"""How long one host may take to be connected to, unless `connect_timeout` says something else."""

_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_TLS: Final = (
    "sslcert",
    "sslkey",
    "sslpassword",
    "sslrootcert",
    "sslcrl",
    "sslnegotiation",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
)
"""Given to the driver as they are."""
_TLS_FILES: Final = ("sslcert", "sslkey", "sslrootcert", "sslcrl")
_WRITABLE: Final = ("any", "read-write", "primary")
_ALLOWED: Final[Mapping[str, tuple[str, ...]]] = {
    "channel_binding": ("disable", "prefer", "require"),
    "client_encoding": ("utf8", "utf-8", "auto"),
    "gssencmode": ("disable", "prefer"),
    "keepalives": ("0", "1"),
    "load_balance_hosts": ("disable",),
    "sslcertmode": ("allow",),
    "ssl_max_protocol_version": ("tlsv1.2", "tlsv1.3"),
    "ssl_min_protocol_version": ("tlsv1.2", "tlsv1.3"),
    "sslcompression": ("0",),
    "sslmode": _SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "sslsni": ("1",),
    "target_session_attrs": _WRITABLE,
}
"""What these may be; anything else would ask for something the gateway or its driver does not do."""
_POOLER: Final[Mapping[str, str]] = {
    "pgbouncer": "true",
    "statement_cache_size": "0",
    "prepared_statement_cache_size": "0",
    "prepareThreshold": "0",
    "prepare_threshold": "0",
}
"""How hosts say in a URL that a connection pooler stands before the database."""
_PLACE: Final = ("host", "port", "user", "password", "dbname", "database")
_OTHERS: Final = ("application_name", "connect_timeout", "fallback_application_name", "options", "ssl")
_KNOWN: Final = frozenset((*_PLACE, *_OTHERS, *_TLS, *_ALLOWED, *_POOLER))


class Host(NamedTuple):
    """Where a server listens; a name that begins with `/` is the folder of a Unix socket."""

    name: str
    port: int

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


@dataclass(frozen=True)
class PostgresAddress:
    """How Postgres is reached: all that a URL says about it."""

    hosts: tuple[Host, ...]
    """Tried in this order; empty: the driver's own defaults (sockets, then localhost)."""
    login: Mapping[str, str] = field(repr=False)
    """User, password and database, as far as they are given."""
    tls: Mapping[str, str] = field(repr=False)
    """The `ssl…` parameters, as the driver takes them in a DSN."""
    settings: Mapping[str, str]
    """Run-time parameters of the session, by their names."""
    startup_options: str = ""
    """`options` that name no run-time parameters: some hosts route by them."""
    target: str = "any"
    """What kind of server will do (`target_session_attrs`)."""
    connect_seconds: float = CONNECT_SECONDS
    pooled: bool = False
    """The URL says that a connection pooler stands before the database."""

    def arguments(self, host: Host | None) -> dict[str, Any]:
        """What the driver's `connect` needs for this host."""
        place: dict[str, Any] = {} if host is None else {"host": host.name, "port": host.port}
        found = {**place, **self.login, "timeout": self.connect_seconds, "target_session_attrs": self.target}
        if self.tls.get("sslrootcert") == "system":
            # The system's own roots, and the host's name is checked: the driver does not know this word.
            return {**found, "ssl": _load(self.tls)}
        return {**found, "dsn": f"postgresql://?{urlencode(self.tls)}"} if self.tls else found


def async_url(url: str) -> URL:
    """The URL with its async driver; accepts what other tools accept (`postgres://`, many hosts).

    Raises ConfigError for any other database and for what cannot be honoured.
    """
    scheme = url.partition(":")[0].partition("+")[0].lower()
    try:
        parsed = _postgres_url(url) if scheme in ("postgres", "postgresql") else make_url(url)
    except (ArgumentError, ValueError):
        # Not its text: it quotes the URL, and with it a password.
        raise ConfigError(
            f"{NAME} is no URL like postgresql://user:password@host:5432/name"
            " (in a password write / as %2F, ? as %3F, # as %23)."
        ) from None
    name = parsed.get_backend_name()
    if name == "postgresql":
        postgres_address(parsed)
        return parsed
    if name == "sqlite":
        return parsed.set(drivername="sqlite+aiosqlite")
    raise ConfigError(f"{NAME} is for {name}: only SQLite and Postgres are supported.")


def described(url: URL) -> str:
    """The database for people: the file, or the hosts and the name; never a user or a password."""
    if url.get_backend_name() == "sqlite":
        return f"sqlite {url.database}"
    address = postgres_address(url)
    hosts = ",".join(str(host) for host in address.hosts) or "(its default place)"
    return f"postgresql {hosts}/{address.login.get('database', '')}"


def postgres_address(url: URL) -> PostgresAddress:
    """What a URL of Postgres says; ConfigError for a parameter that cannot be honoured."""
    # Of several values the last counts, as in libpq.
    given = {
        name: value if isinstance(value, str) else value[-1]
        for name, value in url.query.items()
        if name != "host"
    }
    _refuse_unknown(given)
    if "ssl" in given:
        given.setdefault("sslmode", {"true": "require", "false": "disable"}.get(given["ssl"], given["ssl"]))
    for name, allowed in _ALLOWED.items():
        if name in given and given[name].lower() not in allowed:
            raise ConfigError(f"{NAME}: {name} can only be {' or '.join(allowed)}.")
    hosts = _hosts(url, given)
    settings, startup_options = _options(given.get("options", ""))
    if name := given.get("application_name") or given.get("fallback_application_name"):
        settings["application_name"] = name
    login = {
        "user": url.username or given.get("user"),
        "password": url.password if url.password is not None else given.get("password"),
        "database": url.database or given.get("dbname") or given.get("database"),
    }
    # With several hosts the one that can be written is meant.
    target = given.get("target_session_attrs", "read-write" if len(hosts) > 1 else "any")
    return PostgresAddress(
        hosts=hosts,
        login={name: value for name, value in login.items() if value is not None},
        tls=_tls(given),
        settings=settings,
        startup_options=startup_options,
        target=target,
        connect_seconds=_seconds(given.get("connect_timeout", "")),
        pooled=any(given.get(name, "").lower() == value for name, value in _POOLER.items()),
    )


def _postgres_url(text: str) -> URL:
    """Taken apart by hand: a password may hold `@`, and there may be several hosts."""
    parts = re.fullmatch(r"[^:]*://([^/?]*)(?:/([^?]*))?(?:\?(.*))?", text.strip(), re.DOTALL)
    if parts is None:
        raise ValueError
    userinfo, _, place = parts[1].rpartition("@")
    user, colon, password = userinfo.partition(":")
    query: dict[str, tuple[str, ...]] = {}
    for name, value in parse_qsl(parts[3] or "", keep_blank_values=True):
        query[name] = (*query.get(name, ()), value)
    hosts = [_host(part) for part in place.split(",")] if place else []
    single = len(hosts) == 1
    if len(hosts) > 1:
        query["host"] = tuple(str(Host(name, port or POSTGRES_PORT)) for name, port in hosts)
    return URL.create(
        "postgresql+asyncpg",
        username=unquote(user) if user else None,
        password=unquote(password) if colon else None,
        host=hosts[0][0] if single else None,
        port=hosts[0][1] if single else None,
        database=unquote(parts[2] or "") or None,
        query={name: values if len(values) > 1 else values[0] for name, values in query.items()},
    )


def _host(text: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.%]+)\]|([^:\[\]]*))(?::([0-9]*))?", text)
    if found is None:
        raise ValueError
    port = int(found[3]) if found[3] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError
    return unquote(found[1] or found[2]), port


def _hosts(url: URL, given: Mapping[str, str]) -> tuple[Host, ...]:
    ports = [part for part in given.get("port", "").split(",") if part]
    in_query = url.query.get("host", ())
    texts = in_query.split(",") if isinstance(in_query, str) else list(in_query)
    try:
        found = [(text, None) if text.startswith("/") else _host(text) for text in texts if text]
        if not found and url.host:
            found = [(url.host, url.port)]
        if len(ports) > 1 and len(ports) != len(found):
            raise ConfigError(f"{NAME}: it names {len(found)} hosts and {len(ports)} ports.")
        default = url.port or (int(ports[0]) if len(ports) == 1 else POSTGRES_PORT)
        each = [int(port) for port in ports] if len(ports) > 1 else [default] * len(found)
    except ValueError:
        raise ConfigError(f"{NAME}: a host or port in it is none.") from None
    return tuple(Host(name, port or other) for (name, port), other in zip(found, each, strict=True))


def _refuse_unknown(given: Mapping[str, str]) -> None:
    for name in given:
        if name not in _KNOWN:
            near = difflib.get_close_matches(name, _KNOWN, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(f"{NAME}: the parameter {name!r} is not supported.{hint}")


def _options(text: str) -> tuple[dict[str, str], str]:
    """`-c name=value` and `--name=value` as parameters; anything else as it is."""
    try:
        words = shlex.split(text)
    except ValueError:
        return {}, text
    settings: dict[str, str] = {}
    joined = iter(words)
    for word in joined:
        pair = next(joined, "") if word == "-c" else word.removeprefix("-c") if word[:2] == "-c" else word[2:]
        name, equals, value = pair.partition("=")
        if not word.startswith(("-c", "--")) or not equals or not re.fullmatch(r"[\w.-]+", name):
            return {}, text
        settings[name.replace("-", "_")] = value
    return settings, ""


def _seconds(text: str) -> float:
    """libpq's 0 (for ever) is our own bound: nothing here waits for ever."""
    try:
        seconds = float(text or 0)
    except ValueError:
        raise ConfigError(f"{NAME}: connect_timeout is a number of seconds.") from None
    return seconds if seconds > 0 else CONNECT_SECONDS


def _tls(given: Mapping[str, str]) -> dict[str, str]:
    tls = {name: given[name] for name in ("sslmode", *_TLS) if given.get(name)}
    for name in _TLS_FILES:
        path = tls.get(name)
        if path and path != "system" and not Path(path).expanduser().is_file():
            raise ConfigError(f"{NAME}: {name} names {path}, which is no file that can be read.")
        if path and path != "system":
            tls[name] = str(Path(path).expanduser())
    if given.get("channel_binding") == "require":
        # The driver cannot bind to the channel. A verified certificate proves the same thing: that
        # nobody stands in between.
        tls["sslmode"] = "verify-full"
        tls.setdefault("sslrootcert", "system")
    if tls.get("sslrootcert") == "system":
        if tls.get("sslmode", "verify-full") != "verify-full":
            raise ConfigError(f"{NAME}: sslrootcert=system needs sslmode=verify-full.")
        tls["sslmode"] = "verify-full"
    elif tls.get("sslmode", "").startswith("verify-") and "sslrootcert" not in tls and not _own_root():
        raise ConfigError(
            f"{NAME}: sslmode={tls['sslmode']} needs sslrootcert: a file, or `system` for the system's own."
        )
    if tls.get("sslnegotiation") == "direct" and tls.get("sslmode") not in _SSL_MODES[3:]:
        raise ConfigError(f"{NAME}: sslnegotiation=direct needs sslmode=require or more.")
    try:
        # What the files hold is proven before anything starts.
        _load(tls)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{NAME}: its certificates cannot be used ({type(error).__name__}).") from None
    return tls


def _own_root() -> bool:
    """True when the driver finds roots where libpq looks for them."""
    return "PGSSLROOTCERT" in os.environ or (Path.home() / ".postgresql" / "root.crt").is_file()


def _load(tls: Mapping[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if (root := tls.get("sslrootcert", "system")) != "system":
        context.load_verify_locations(root)
    if certificate := tls.get("sslcert"):
        context.load_cert_chain(certificate, tls.get("sslkey"), tls.get("sslpassword", ""))
    return context
