"""The playground over HTTP: who gets the page, the link that works once, and the cookie that it sets."""

import re
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from itsdangerous import URLSafeTimedSerializer
from pydantic import ValidationError

from agent_gateway.domain.ids import new_id
from agent_gateway.routes.http import sessions
from agent_gateway.routes.http.sessions import LINK_SALT, SignInLinks
from agent_gateway.settings import Settings
from tests.support.chat import Chat, refused
from tests.support.gateway_process import GatewayProcess
from tests.support.gateway_server import (
    BOUND,
    NO_KEY_IS_REMEMBERED,
    SECRET_KEY,
    GatewayServer,
    StartGateway,
)

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}
LINKS = SignInLinks(SECRET_KEY.encode())
one_database = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def nobody(server: GatewayServer) -> httpx.Client:
    """A client without a key."""
    return httpx.Client(base_url=server.url, timeout=BOUND, trust_env=False)


def sign_in(client: httpx.Client, link: str = "") -> httpx.Response:
    return client.get(link or LINKS.make(str(client.base_url).rstrip("/")))


def cookie_of(response: httpx.Response) -> tuple[str, dict[str, str]]:
    """The name of the cookie that a response sets, and its attributes."""
    [(name, morsel)] = SimpleCookie(response.headers["set-cookie"]).items()
    return name, {key: str(value) for key, value in morsel.items() if value}


# -- the page --------------------------------------------------------------------------------------


def test_a_browser_gets_the_page_and_a_program_the_index(server: GatewayServer) -> None:
    with nobody(server) as client:
        page, index = client.get("/", headers=BROWSER), client.get("/")
        below = client.get("/v1/", headers=BROWSER)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert index.json() == below.json()
    assert index.json()["welcome"] == "Agent Gateway"
    assert page.headers["vary"] == index.headers["vary"] == "Accept"


def test_the_page_may_load_and_run_only_what_the_gateway_serves(server: GatewayServer) -> None:
    with nobody(server) as client:
        page = client.get("/", headers=BROWSER)
    policy = dict(rule.split(" ", 1) for rule in page.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]* src=)|<style| style=| on\w+=", page.text)
    assert "://" not in page.text


def test_all_that_the_page_names_is_served_and_asked_for_again_after_a_release(server: GatewayServer) -> None:
    with nobody(server) as client:
        page = client.get("/", headers=BROWSER).text
        found = set(re.findall(r'(?:src|href)="([^"#]+)"', page)) - {"docs"}
        assert found == {"favicon.ico", "playground/style.css", "playground/main.js"}
        seen: set[str] = set()
        while found:
            seen |= (now := found)
            found = set()
            for path in now:
                response = client.get(path)
                assert response.status_code == 200, path
                if path.endswith(".js"):
                    assert response.headers["content-type"].startswith("text/javascript")
                    assert response.headers["cache-control"] == "no-cache"
                    imports = re.findall(r'^import [^;]*from "\./([^"]+)";', response.text, re.MULTILINE)
                    found |= {str(Path(path).parent / name) for name in imports}
            found -= seen
    assert "playground/vendor/marked.js" in seen


def test_the_page_is_off_by_a_setting_and_where_others_reach_the_gateway() -> None:
    def shown(**given: object) -> bool:
        return Settings(_env_file=None, **given).shows_playground  # type: ignore[arg-type]

    assert [shown(host=host) for host in ("127.0.0.1", "::1", "localhost")] == [True] * 3
    assert [shown(host=host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.com")] == [False] * 4
    assert not shown(public_url="https://example.com")
    assert shown(host="0.0.0.0", playground=True)
    assert not shown(playground=False)


@one_database
def test_without_the_playground_browsers_get_the_index_and_no_link_works(start_gateway: StartGateway) -> None:
    with nobody(start_gateway(playground=False)) as client:
        page, link = client.get("/", headers=BROWSER), sign_in(client)
        file, icon = client.get("/playground/main.js"), client.get("/favicon.ico")
    assert page.json()["welcome"] == "Agent Gateway"
    assert "vary" not in page.headers
    refused(link, 404, "not_found")
    refused(file, 404, "not_found")
    assert icon.headers["content-type"] == "image/svg+xml"


# -- the link --------------------------------------------------------------------------------------


def test_a_link_signs_a_browser_in_once(server: GatewayServer) -> None:
    link = LINKS.make(server.url)
    with nobody(server) as browser, nobody(server) as thief:
        first, second = sign_in(browser, link), sign_in(thief, link)
        assert (first.status_code, first.headers["location"]) == (303, "./")
        assert (second.status_code, second.headers["location"]) == (303, "./#link-used")
        assert "set-cookie" not in second.headers
        assert browser.get("/info", headers=OWN_PAGE).json()["name"] == "Demo agent"
        refused(thief.get("/info", headers=OWN_PAGE), 401, "unauthorized")


def test_a_program_that_looks_where_a_link_leads_does_not_use_it_up(server: GatewayServer) -> None:
    link = LINKS.make(server.url)
    with nobody(server) as client:
        assert "set-cookie" not in client.head(link).headers
        assert "set-cookie" in client.get(link).headers


@pytest.mark.parametrize("token", ["", "nonsense", "IiI.x.y"])
def test_a_wrong_link_signs_nobody_in(server: GatewayServer, token: str) -> None:
    with nobody(server) as client:
        response = client.get("/sign-in", params={"token": token})
    assert response.headers["location"] == "./#link-used"
    assert "set-cookie" not in response.headers


def test_a_link_of_another_secret_or_kind_signs_nobody_in(server: GatewayServer) -> None:
    others = [
        SignInLinks(b"another secret").make(server.url),
        f"{server.url}/sign-in?token={URLSafeTimedSerializer(SECRET_KEY, salt='other').dumps(new_id())}",
        f"{server.url}/sign-in?token={URLSafeTimedSerializer(SECRET_KEY, salt=LINK_SALT).dumps('no id')}",
    ]
    with nobody(server) as client:
        assert ["set-cookie" in sign_in(client, link).headers for link in others] == [False] * 3


def test_a_link_expires(server: GatewayServer, monkeypatch: pytest.MonkeyPatch) -> None:
    link = LINKS.make(server.url)
    with nobody(server) as client:
        monkeypatch.setattr(sessions, "LINK_SECONDS", -2)
        assert "set-cookie" not in sign_in(client, link).headers
        monkeypatch.undo()
        assert "set-cookie" in sign_in(client, link).headers


# -- the cookie ------------------------------------------------------------------------------------


def test_scripts_and_other_sites_get_nothing_of_the_cookie(server: GatewayServer) -> None:
    with nobody(server) as client:
        response = sign_in(client)
    name, attributes = cookie_of(response)
    assert name == f"agent_gateway_session_{urlsplit(server.url).port}", "one for each port of a host"
    assert attributes == {"httponly": "True", "samesite": "strict", "max-age": str(30 * 86400)}
    assert response.headers["cache-control"] == "no-store"


@one_database
def test_the_cookie_is_for_tls_and_the_named_domain(start_gateway: StartGateway) -> None:
    server = start_gateway(
        public_url="https://chat.example.com", playground=True, cookie_domain="example.com"
    )
    with nobody(server) as client:
        _, attributes = cookie_of(sign_in(client))
    assert (attributes["secure"], attributes["domain"]) == ("True", "example.com")


@one_database
def test_behind_a_proxy_with_another_host_the_public_one_counts(start_gateway: StartGateway) -> None:
    """Browsers send no Sec-Fetch-Site over plain HTTP, but the Origin."""
    server = start_gateway(public_url="http://chat.example.com/agents", playground=True)
    with nobody(server) as client:
        sign_in(client)
        for origin, status in (("http://chat.example.com", 200), ("http://evil.example.com", 401)):
            body = {"query": "Hello", "user": "ada"}
            assert client.post("/chat-messages", json=body, headers={"Origin": origin}).status_code == status


def test_a_ticket_is_enough_whatever_the_cookie_is(server: GatewayServer) -> None:
    with nobody(server) as client:
        sign_in(client)
        client.headers["Sec-Fetch-Site"] = "same-origin"
        url = Chat(client, "ticket").background("Hello")["events_url"]
        client.headers["Sec-Fetch-Site"] = "same-site"
        assert client.get(f"{url}&mode=agent-chat").status_code == 200


@pytest.mark.parametrize("domain", ["https://example.com", "exa mple.com", "example.com; HttpOnly", "Ä.de"])
def test_a_cookie_domain_that_is_none_is_refused(domain: str) -> None:
    with pytest.raises(ValidationError, match="not a domain"):
        Settings(_env_file=None, cookie_domain=domain)


@pytest.mark.parametrize(
    ("headers", "trusted"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "http://{host}"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://{host}"}, False),
        ({}, False),
    ],
)
def test_no_other_page_can_post_in_the_name_of_the_browser(
    server: GatewayServer, headers: dict[str, str], trusted: bool
) -> None:
    host = urlsplit(server.url).netloc
    sent = {name: value.format(host=host) for name, value in headers.items()}
    with nobody(server) as client:
        sign_in(client)
        user = f"cookie-{new_id()}"
        response = client.post("/chat-messages", json={"query": "Hello", "user": user}, headers=sent)
        if trusted:
            assert response.status_code == 200
        else:
            assert "own page" in refused(response, 401, "unauthorized")["message"]
        listed = client.get("/conversations", params={"user": user}, headers=OWN_PAGE).json()
    assert len(listed["data"]) == trusted


def test_a_header_wins_over_the_cookie(server: GatewayServer) -> None:
    with nobody(server) as client:
        sign_in(client)
        refused(
            client.get("/info", headers=OWN_PAGE | {"Authorization": "Bearer wrong"}), 401, "unauthorized"
        )


@pytest.mark.parametrize("made", ["{value}abc", "nonsense", ""])
def test_a_cookie_that_was_changed_opens_nothing(server: GatewayServer, made: str) -> None:
    with nobody(server) as client:
        name, _ = cookie_of(sign_in(client))
        value = client.cookies[name]
        client.cookies.clear()
        client.cookies.set(name, made.format(value=value))
        refused(client.get("/info", headers=OWN_PAGE), 401, "unauthorized")


def test_a_turn_is_streamed_and_stopped_with_the_cookie_alone(server: GatewayServer) -> None:
    with nobody(server) as client:
        sign_in(client)
        client.headers.update(OWN_PAGE)
        chat = Chat(client, "cookie-turn")
        begun = chat.background("Hello there")
        followed = client.get(f"/chat-messages/{begun['task_id']}/events", params={"user": "cookie-turn"})
        assert "message_end" in followed.text
        assert chat.stop(begun["task_id"]) == {"result": "success"}


def test_signing_out_revokes_the_key(start_gateway: StartGateway) -> None:
    server = start_gateway(limits=NO_KEY_IS_REMEMBERED)
    with nobody(server) as client:
        name, _ = cookie_of(sign_in(client))
        kept = client.cookies[name]
        assert client.post("/sign-out", headers=OWN_PAGE).status_code == 204
        assert name not in client.cookies
        client.cookies.set(name, kept)
        refused(client.get("/info", headers=OWN_PAGE), 401, "unauthorized")
        # Also a cookie whose key is gone is removed.
        again = client.post("/sign-out", headers=OWN_PAGE)
        assert again.status_code == 204
        assert SimpleCookie(again.headers["set-cookie"])[name]["max-age"] == "0"


def test_another_site_cannot_sign_a_browser_out(server: GatewayServer) -> None:
    with nobody(server) as client:
        sign_in(client)
        refused(client.post("/sign-out", headers={"Sec-Fetch-Site": "cross-site"}), 401, "unauthorized")
        assert client.get("/info", headers=OWN_PAGE).status_code == 200


# -- what a start says -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_start_prints_a_link_that_works_once_and_logs_nothing_of_it(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path) as process:
        [link] = re.findall(r"Chat in your browser: (\S+)", process.output)
        assert link.startswith(f"{process.url}/sign-in?token=")
        with httpx.Client(timeout=BOUND, trust_env=False) as client:
            assert client.get(link).headers["location"] == "./"
            assert client.get(link).headers["location"] == "./#link-used"
            assert client.get(f"{process.url}/info", headers=OWN_PAGE).status_code == 200
        token = link.partition("=")[2]
        cookie = next(iter(client.cookies.values()))
        assert process.output.count(token) == 1
        assert cookie not in process.output


@pytest.mark.slow
def test_a_start_where_others_reach_it_says_that_the_page_is_off(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, "--host", "0.0.0.0") as process:
        assert "the playground is off" in process.output
        assert "sign-in" not in process.output
