"""App files that are written come back as the same app."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_gateway.apps.config import AppConfig, default_app
from agent_gateway.apps.file import load_app_file, parse_app, unset_variables, write_app_file
from agent_gateway.errors import ConfigError

text = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
json_data = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner) | st.dictionaries(text, inner),
    max_leaves=20,
)
QUERY = {"name": "prompt", "config": "${query}"}


@example("x", "", 5e-324)
@given(text.filter(bool), text, json_data)
def test_any_app_is_read_back_unchanged(
    tmp_path_factory: pytest.TempPathFactory, name: str, opening: str, metadata: Any
) -> None:
    layers = [QUERY, {"name": "other", "config": None, "metadata": {"x": metadata}}]
    config = AppConfig.model_validate(
        {"name": name, "opening_statement": opening, "composition": {"layers": layers}}
    )
    path = tmp_path_factory.getbasetemp() / "app.yaml"
    path.write_bytes(write_app_file("an-app", config).encode())
    read = load_app_file(path, None)
    assert read.slug == "an-app"
    assert read.model_dump_json() == config.model_dump_json()


def test_texts_of_several_lines_stay_readable() -> None:
    config = default_app().model_copy(update={"description": "One\n  Two\n", "opening_statement": "Grüße 😀"})
    written = write_app_file("a", config)
    assert "description: |\n  One\n    Two\n" in written
    assert "opening_statement: Grüße 😀\n" in written


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("on", True),
        ("No", False),
        ("y", "y"),
        ("n", "n"),
        ("012", 10),
        ("0o12", "0o12"),
        ("1e3", "1e3"),
        ("1.5e3", "1.5e3"),
        ("1.0e+3", 1000.0),
        ("1:30", 90),
        ("1_000", 1000),
        ("'on'", "on"),
    ],
)
def test_a_bare_value_is_read_as_yaml_1_1_does(tmp_path: Path, written: str, read: object) -> None:
    path = tmp_path / "app.yaml"
    path.write_text(f"name: x\ncomposition: {{layers: [{{name: a, config: {{value: {written}}}}}]}}\n")
    [layer] = load_app_file(path, None).composition.layers
    assert layer.config == {"value": read}
    path.write_text(write_app_file("x", load_app_file(path, None)))
    [layer] = load_app_file(path, None).composition.layers
    assert layer.config == {"value": read}


def test_a_key_written_twice_is_named_and_no_value_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "app.yaml"
    path.write_text("name: x\nicon: secret-1\nicon: secret-2\n")
    with pytest.raises(ConfigError, match="line 3, column 1: the key 'icon' is written twice") as raised:
        load_app_file(path, None)
    assert "secret" not in str(raised.value)


def test_a_key_written_twice_beside_a_merge_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.yaml"
    path.write_text("name: x\nicon: &x {p: '1'}\nmeta:\n  <<: *x\n  q: 2\n  q: 3\n")
    with pytest.raises(ConfigError, match="line 6, column 3: the key 'q' is written twice"):
        load_app_file(path, None)


def test_a_block_of_text_may_begin_with_a_blank_line(tmp_path: Path) -> None:
    path = tmp_path / "app.yaml"
    path.write_text("name: x\nopening_statement: |\n  \n    Hello\n")
    assert load_app_file(path, None).opening_statement == "\nHello\n"


@pytest.mark.parametrize("version", ["1.0", "1.2", "1.3"])
def test_a_yaml_directive_changes_no_value(tmp_path: Path, version: str) -> None:
    path = tmp_path / "app.yaml"
    path.write_text(
        f"%YAML {version}\n---\nname: x\ncomposition: {{layers: [{{name: a, config: [on, 012]}}]}}\n"
    )
    [layer] = load_app_file(path, None).composition.layers
    assert layer.config == [True, 10]


def test_the_slug_is_not_part_of_a_version(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("slug: my-app\nname: x")
    config = load_app_file(path, {})
    assert config.slug == "my-app"
    assert "slug" not in config.model_dump_json()


@pytest.mark.parametrize("slug", ["My", "a b", "-a", "a-", "a_b", "a~b", "ä", "a" * 64, "a\n", 7])
def test_an_invalid_slug_is_refused(slug: object) -> None:
    with pytest.raises(ConfigError, match=r"slug: "):
        parse_app({"name": "x", "slug": slug}, {}, "app.yaml")


@pytest.mark.parametrize(
    ("limits", "path"),
    [
        ({"concurrent_turns": 0}, "limits.concurrent_turns"),
        ({"requests_per_minute": -1}, "limits.requests_per_minute"),
        ({"query_characters": "many"}, "limits.query_characters"),
        ({"turns": 1}, "limits.turns: unknown key"),
    ],
)
def test_an_invalid_limit_is_refused(limits: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError, match=path):
        parse_app({"name": "x", "limits": limits}, {}, "app.yaml")


def test_unset_variables_are_listed() -> None:
    layers = [{"name": "a", "config": ["${env:B} ${env:A}", "$${env:C}", {"x": "${env:D}"}]}]
    data = {"name": "x", "composition": {"layers": layers}}
    config = parse_app(data, None, "app.yaml")
    assert unset_variables(config, {"D": ""}) == ["A", "B"]
    with pytest.raises(ConfigError, match="environment variable A is not set"):
        parse_app(data, {"B": "", "D": ""}, "app.yaml")
