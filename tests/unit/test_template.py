"""The placeholder grammar: what is found, what is refused, and that values are never searched."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_gateway.apps.template import TURN_NAMES, Placeholder, TemplateError, fill, parse, strings, uses

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def filled(template: Any, **values: Any) -> Any:
    return fill(template, lambda placeholder: values[placeholder.name])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("plain", ["plain"]),
        ("${query}", [Placeholder("turn", "query")]),
        ("a ${query} b", ["a ", Placeholder("turn", "query"), " b"]),
        ("${inputs.city}", [Placeholder("inputs", "city")]),
        ("${inputs.größe}", [Placeholder("inputs", "größe")]),
        ("${env:API_KEY}", [Placeholder("env", "API_KEY")]),
        ("${query}${user_id}", [Placeholder("turn", "query"), Placeholder("turn", "user_id")]),
        ("$${query}", ["${query}"]),
        ("$$${query}", ["$", Placeholder("turn", "query")]),
        ("$$$${query}", ["$${query}"]),
        ("$5 and $$ and {x} and }", ["$5 and $$ and {x} and }"]),
        ("$${ never closed", ["${ never closed"]),
    ],
)
def test_a_string_is_split_into_text_and_placeholders(text: str, parts: list[str | Placeholder]) -> None:
    assert parse(text) == tuple(parts)


@pytest.mark.parametrize("name", TURN_NAMES)
def test_every_name_of_a_turn_is_a_placeholder(name: str) -> None:
    assert parse(f"${{{name}}}") == (Placeholder("turn", name),)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("${quary}", "unknown placeholder '${quary}'"),
        ("${inputs.}", "unknown placeholder '${inputs.}'"),
        ("${env:}", "unknown placeholder '${env:}'"),
        ("${env:1X}", "unknown placeholder '${env:1X}'"),
        ("${environ.HOME}", "unknown placeholder '${environ.HOME}'"),
        ("${foo bar}", "malformed placeholder '${foo bar}'"),
        ("${ query }", "malformed placeholder '${ query }'"),
        ("${}", "malformed placeholder '${}'"),
        ("${inputs.${query}}", "malformed placeholder"),
        ("${query", "'${' is never closed"),
        ("fine ${query} and then ${", "'${' is never closed"),
    ],
)
def test_a_malformed_placeholder_is_refused_and_named(text: str, complaint: str) -> None:
    with pytest.raises(TemplateError) as refusal:
        parse(text)
    assert complaint in str(refusal.value)


@given(st.text(alphabet="${}aq.: \n\\"))
def test_any_string_is_either_split_or_refused(text: str) -> None:
    try:
        parts = parse(text)
    except TemplateError:
        return
    assert "${" in text or parts == ((text,) if text else ())


@given(st.text())
def test_an_escaped_text_is_returned_unchanged(text: str) -> None:
    # Every dollar that stands in a run directly before a brace is doubled.
    head, *tail = text.split("{")
    escaped = head
    for piece in tail:
        run = len(escaped) - len(escaped.rstrip("$"))
        escaped = f"{escaped}{'$' * run}{{{piece}"
    assert fill(escaped, lambda placeholder: pytest.fail(f"found {placeholder}")) == text


@given(json_values)
def test_a_lone_placeholder_keeps_the_type_of_its_value(value: Any) -> None:
    assert filled({"a": ["${query}"]}, query=value) == {"a": [value]}


@given(json_values)
def test_within_a_longer_string_values_become_text(value: Any) -> None:
    text = filled("<${query}>", query=value)
    if value is None:
        assert text == "<>"
    elif isinstance(value, str):
        assert text == f"<{value}>"
    else:
        assert json.loads(text[1:-1]) == value


@given(st.text() | st.sampled_from(["${env:SECRET}", "${inputs.x}", "$${query}", "${", "a ${query}"]))
def test_a_value_is_never_searched_for_placeholders(value: str) -> None:
    template = ["${query}", "say ${query}!", {"deep": {"er": "${query}${query}"}}]
    assert filled(template, query=value) == [value, f"say {value}!", {"deep": {"er": value + value}}]


def test_two_adjacent_values_never_form_a_placeholder() -> None:
    assert filled("${query}${user_id}", query="${env:", user_id="SECRET}") == "${env:SECRET}"


def test_keys_and_non_strings_are_left_unchanged() -> None:
    template: dict[str, Any] = {"${query}": 1, "list": [True, None, 2.5, "x"], "empty": {}}
    result = filled(template, query="never")
    assert result == template
    assert result is not template


def test_strings_are_listed_with_their_paths() -> None:
    data = {"a": ["x", {"b": "y"}], "c": 3, "d": "z"}
    assert list(strings(data, "config")) == [("config.a[0]", "x"), ("config.a[1].b", "y"), ("config.d", "z")]


def test_the_line_of_a_file_has_its_own_placeholders() -> None:
    name, url = Placeholder("turn", "name"), Placeholder("turn", "url")
    assert parse("${name}: ${url}$${", of_file=True) == (name, ": ", url, "${")
    for other in ("${query}", "${env:HOME}", "${inputs.a}", "${nothing}"):
        with pytest.raises(TemplateError, match="known here: type, name"):
            parse(other, of_file=True)
    with pytest.raises(TemplateError, match="unknown placeholder"):
        parse("${url}")


def test_used_placeholders_are_found() -> None:
    files = Placeholder("turn", "files")
    assert uses({"a": [{"b": "see ${files}"}]}, files)
    assert not uses({"a": ["${query}", "$${files}", 7, None], "${files}": ""}, files)
