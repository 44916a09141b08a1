"""Values of settings are read as intended or refused in one line that names the variable."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_gateway.errors import ConfigError
from agent_gateway.openers import secret_key
from agent_gateway.settings import Settings

Read = Callable[..., Settings]
LONG = "a long secret of 32 characters or more"


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads the settings of an environment that has these variables and no others."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.upper().startswith("AGENT_GATEWAY_")]:
        monkeypatch.delenv(name)

    def run(**variables: str) -> Settings:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(f"AGENT_GATEWAY_{name}", value)
            return Settings.read()

    return run


def refusal(read: Read, **variables: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read(**variables)
    told = str(refused.value)
    assert "\n" not in told
    return told


SECRETS = ("API_KEY", "BACKEND_TOKEN", "SECRET_KEY")
TEXTS = (*SECRETS, "DATABASE_URL", "BACKEND_URL", "PUBLIC_URL", "FILES_URL", "MODEL")


def value_of(settings: Settings, name: str) -> str:
    value = getattr(settings, name.lower())
    return value if isinstance(value, str) else str(value.get_secret_value())


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " {} ", "\t{}", "\n{}\n\n", "\u00a0{}\u00a0"])
def test_surrounding_whitespace_is_removed(read: Read, name: str, around: str) -> None:
    meant = "https://example.com/x" if name.endswith("URL") else "x-123"
    assert value_of(read(**{name: around.format(meant)}), name) == meant


@pytest.mark.parametrize("name", [*TEXTS, "HOST", "PORT", "DATA_DIR", "CORS_ORIGINS", "APP_MODE"])
@pytest.mark.parametrize("around", ['"{}"', "'{}'", '{}"', "'{}", "“{}”", "`{}`"])
def test_quotation_marks_are_refused(read: Read, name: str, around: str) -> None:
    told = refusal(read, **{name: around.format("swordfish")})
    assert told == f"AGENT_GATEWAY_{name}: begins or ends with a quotation mark: give it without"


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("inside", ["\n", "\x1b", "\u200b", "\udcff"])
def test_invisible_characters_are_refused(read: Read, name: str, inside: str) -> None:
    told = refusal(read, **{name: f"sword{inside}fish"})
    assert told.startswith(f"AGENT_GATEWAY_{name}: holds a line break or another invisible character")
    assert "sword" not in told


@pytest.mark.parametrize("name", ["API_KEY", "BACKEND_TOKEN", "SECRET_KEY", "BACKEND_URL", "PUBLIC_URL"])
def test_non_ascii_values_are_refused_where_bytes_matter(read: Read, name: str) -> None:
    value = "http://schlüssel.example" if name.endswith("URL") else "schlüssel"
    told = refusal(read, **{name: value})
    assert told.startswith(f"AGENT_GATEWAY_{name}: ")
    assert "schl" not in told


@pytest.mark.parametrize("name", ["API_KEY", "BACKEND_TOKEN"])
def test_a_value_for_a_header_cannot_contain_spaces(read: Read, name: str) -> None:
    assert "header" in refusal(read, **{name: "two words"})


@pytest.mark.parametrize(
    "url",
    ["http://host:99999", "http://host:port", "http://:80", "http://[::1", "http://host:0", "http://"],
)
def test_an_invalid_address_is_refused(read: Read, url: str) -> None:
    for name in ("BACKEND_URL", "PUBLIC_URL"):
        assert refusal(read, **{name: url}).startswith(f"AGENT_GATEWAY_{name}: not a URL")


@pytest.mark.parametrize(
    ("given", "nearest"),
    [
        ("BAKEND_URL", "BACKEND_URL"),
        ("DATABASE_ULR", "DATABASE_URL"),
        ("DB_URL", "DATABASE_URL"),
        ("APIKEY", "API_KEY"),
        ("DATADIR", "DATA_DIR"),
        ("CORS_ORIGIN", "CORS_ORIGINS"),
        ("SECRET", "SECRET_KEY"),
    ],
)
@pytest.mark.parametrize("place", ["the environment", ".env"])
def test_a_mistyped_variable_is_refused_with_the_nearest_name(
    read: Read, tmp_path: Path, given: str, nearest: str, place: str
) -> None:
    if place == ".env":
        (tmp_path / ".env").write_text(f"AGENT_GATEWAY_{given}=swordfish\nOTHER=1\n")
        told = refusal(read)
    else:
        told = refusal(read, **{given: "swordfish"})
    assert told == f"AGENT_GATEWAY_{given} in {place} is no setting: the nearest is AGENT_GATEWAY_{nearest}"


def test_every_mistyped_variable_is_reported(read: Read) -> None:
    told = refusal(read, BAKEND_URL="x", PROT="1")
    assert "AGENT_GATEWAY_BAKEND_URL" in told
    assert "AGENT_GATEWAY_PROT in the environment is no setting: the nearest is AGENT_GATEWAY_PORT" in told


def test_service_variables_of_kubernetes_are_ignored(read: Read) -> None:
    """The variables of the services agent-gateway and agent-gateway-backend."""
    settings = read(
        SERVICE_HOST="10.0.0.1",
        SERVICE_PORT="80",
        SERVICE_PORT_HTTP="80",
        PORT="tcp://10.0.0.1:80",
        PORT_80_TCP="tcp://10.0.0.1:80",
        PORT_80_TCP_PROTO="tcp",
        PORT_80_TCP_PORT="80",
        PORT_80_TCP_ADDR="10.0.0.1",
        BACKEND_SERVICE_HOST="10.0.0.2",
        BACKEND_PORT="tcp://10.0.0.2:80",
        BACKEND_PORT_80_TCP_ADDR="10.0.0.2",
    )
    assert settings.port == 8000
    assert "nearest" in refusal(read, BACKEND_PORT="80")


def test_a_settings_file_with_a_byte_order_mark_is_read(read: Read, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes("\ufeffAGENT_GATEWAY_MODEL=test\r\nexport AGENT_GATEWAY_PORT=9\r\n".encode())
    assert (read().model, read().port) == ("test", 9)
    file.write_bytes("AGENT_GATEWAY_MODEL=größer".encode("utf-16"))
    assert refusal(read) == ".env is not UTF-8"


def test_all_errors_are_reported_in_one_line(read: Read) -> None:
    told = refusal(read, PORT="x", MODEL="'x'")
    assert "AGENT_GATEWAY_PORT: " in told
    assert "AGENT_GATEWAY_MODEL: begins" in told


@pytest.mark.parametrize("key", ["", "swordfish", "x" * 31])
def test_with_postgres_a_short_secret_key_is_refused(read: Read, key: str) -> None:
    settings = read(DATABASE_URL="postgresql://host/db", SECRET_KEY=key)
    with pytest.raises(ConfigError, match=r"AGENT_GATEWAY_SECRET_KEY is .* 32 random characters") as told:
        secret_key(settings, make=True)
    assert not key or key not in str(told.value)
    assert secret_key(read(DATABASE_URL="postgresql://host/db", SECRET_KEY=LONG)) == LONG.encode()


def test_only_the_gateway_creates_the_secret_key_and_only_once(read: Read, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*\.data/secret-key"):
        secret_key(read())
    assert list(tmp_path.iterdir()) == []
    key = secret_key(read(), make=True)
    assert len(key) >= 32
    assert [secret_key(read()), secret_key(read(), make=True)] == [key, key]
    file = tmp_path / ".data" / "secret-key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["secret-key"]
    file.write_text("\n")
    with pytest.raises(ConfigError, match="secret-key is empty"):
        secret_key(read(), make=True)
