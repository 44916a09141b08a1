"""The page at /docs: it loads only what the gateway serves, under whatever path that is reached."""

import re
from urllib.parse import urljoin, urlsplit

import pytest

from tests.support.fleet import Fleet

PATHS = ["", "/v0/agents"]
"""What a proxy cuts off before it passes a request on."""


@pytest.fixture
def page_urls(fleet: Fleet) -> list[str]:
    """Every URL that the page names, as it names it."""
    with fleet.start(public_url="https://example.com/v0/agents").client() as client:
        page = client.get("/docs").raise_for_status().text
    return re.findall(r'(?:src|href)="([^"]+)"', page) + re.findall(r'"?url"?: *[\'"]([^\'"]+)[\'"]', page)


def test_the_page_loads_nothing_from_another_host(page_urls: list[str]) -> None:
    loaded = [url for url in page_urls if not url.startswith("data:")]
    assert len(loaded) == 4, "a script, a style sheet, an icon and the document"
    assert [urlsplit(url).netloc for url in loaded] == [""] * 4


@pytest.mark.parametrize("path", PATHS)
def test_everything_the_page_loads_is_served_below_its_path(
    fleet: Fleet, page_urls: list[str], path: str
) -> None:
    with fleet.start().client() as client:
        for url in page_urls:
            if url.startswith("data:"):
                continue
            joined = urljoin(f"https://example.com{path}/docs", url)
            asked = urlsplit(joined).path
            assert asked.startswith(f"{path}/")
            response = client.get(asked.removeprefix(path))
            assert response.status_code == 200, asked
            assert "https://" not in re.sub(r"data:[^)]*", "", response.text) or not asked.endswith(".css")


@pytest.mark.parametrize(("public_url", "server"), [("", "/"), ("https://example.com/v0/agents/", None)])
def test_the_document_names_the_public_url(fleet: Fleet, public_url: str, server: str | None) -> None:
    with fleet.start(public_url=public_url).client() as client:
        document = client.get("/openapi.json").json()
    assert document["servers"] == [{"url": server or public_url.rstrip("/")}]
