"""Names and types of files, for any name that a client sends."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_gateway.filetypes import (
    MAX_NAME,
    MB,
    OCTETS,
    SizeLimits,
    clean_name,
    describe,
    describe_artifact,
    may_be_inline,
    served_as,
)
from agent_gateway.routes.http.byte_ranges import byte_range
from agent_gateway.routes.http.disposition import content_disposition
from agent_gateway.routes.schemas.chat_messages import is_web_url


@given(st.text(max_size=300) | st.text(alphabet="./\\ab \x00\n\u202e\ud83d", max_size=300))
@example("a" * 199 + " " + "b" * 10)
@example("a" * 195 + " . .txt" + "b" * 10)
@example("a" * 195 + " " * 10 + "b.txt")
def test_a_clean_name_is_printable_short_and_has_no_separators(name: str) -> None:
    clean = clean_name(name)
    assert len(clean) <= MAX_NAME
    assert not set(clean) & set("/\\\x00\r\n")
    assert all(unicodedata.category(letter)[0] != "C" for letter in clean)
    assert clean not in (".", "..")
    assert clean_name(clean) == clean
    clean.encode()


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_name_is_described_or_refused(name: str, content_type: str) -> None:
    what = describe(name, content_type)
    assert (what is None) == (clean_name(name) == "")
    if what is not None:
        assert what.extension == "" or what.name.lower().endswith(f".{what.extension}")
        assert (what.type == "custom") == (what.mime_type == OCTETS)
        assert content_disposition(what.name, inline=False).isascii()
        assert content_disposition(what.name, inline=False).isprintable()


@pytest.mark.parametrize(
    ("name", "content_type", "wanted"),
    [
        ("a.PNG", "text/html", ("a.PNG", "png", "image", "image/png")),
        ("a.html", "image/png", ("a.html", "html", "document", "text/html")),
        ("blob", "audio/mpeg; codecs=x", ("blob.mp3", "mp3", "audio", "audio/mpeg")),
        ("blob", "application/x-evil", ("blob", "", "custom", OCTETS)),
        ("a.tar.gz", "", ("a.tar.gz", "gz", "custom", OCTETS)),
        ("a.b c", "", ("a.b c", "", "custom", OCTETS)),
        (".png", "", ("png", "", "custom", OCTETS)),
    ],
)
def test_the_extension_decides_the_type_of_a_file(
    name: str, content_type: str, wanted: tuple[str, ...]
) -> None:
    what = describe(name, content_type)
    assert what is not None
    assert (what.name, what.extension, what.type, what.mime_type) == wanted


@pytest.mark.parametrize(
    ("media_type", "wanted"),
    [
        ("image/png", ("image-3.png", "image", "image/png")),
        ("Audio/MPEG", ("audio-3.mp3", "audio", "audio/mpeg")),
        ("image/x-new", ("image-3.bin", "image", "image/x-new")),
        ("application/pdf", ("document-3.pdf", "document", "application/pdf")),
        ("application/zip", ("file-3.bin", "custom", "application/zip")),
        ("text/html\r\nSet-Cookie: a", ("file-3.bin", "custom", OCTETS)),
        ("", ("file-3.bin", "custom", OCTETS)),
    ],
)
def test_an_artifact_is_named_by_its_media_type(media_type: str, wanted: tuple[str, ...]) -> None:
    what = describe_artifact(3, media_type)
    assert (what.name, what.type, what.mime_type) == wanted


def test_only_types_without_scripts_are_served_inline() -> None:
    shown = ["image/png", "image/jpeg", "audio/mpeg", "video/mp4", "text/plain", "application/pdf"]
    saved = [
        "text/html",
        "image/svg+xml",
        "application/xml",
        "text/markdown",
        "application/zip",
        "x/y",
        OCTETS,
    ]
    assert [may_be_inline(mime_type) for mime_type in shown] == [True] * len(shown)
    assert [may_be_inline(mime_type) for mime_type in saved] == [False] * len(saved)
    assert served_as("text/markdown") == "text/markdown"
    for mime_type in ("text/html", "image/svg+xml", "application/xml", "text/javascript", "image/x-new"):
        assert served_as(mime_type) == OCTETS


def test_each_kind_of_file_has_its_size_limit() -> None:
    limits = SizeLimits(image=1, document=2, audio=3, video=4)
    kinds = ("image", "document", "audio", "video", "custom")
    assert [limits.most(kind) for kind in kinds] == [MB, 2 * MB, 3 * MB, 4 * MB, 2 * MB]


@given(st.text(alphabet="bytes=0123456789-, ", max_size=30), st.integers(0, 100))
def test_any_accepted_range_lies_within_the_file(wanted: str, size: int) -> None:
    span = byte_range(wanted, size)
    if span is not None:
        assert 0 <= span[0] < span[1] <= size


@given(st.text(max_size=40).map("https://x.test/{}".format) | st.text(max_size=40))
def test_a_url_for_an_agent_is_one_line(url: str) -> None:
    if is_web_url(url):
        assert url.startswith(("http://", "https://")) or url[:5].lower().startswith("http")
        assert len(url.splitlines()) == 1
        assert " " not in url
