"""An answer that grows looks as if it had been rendered as a whole, and costs the same for each token."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.gateway_server import GatewayServer

WORDS = " ".join(f"word{number}" for number in range(60))
MIXED = f"""## A part

{WORDS} **bold** and `code`.

1. item with *text*
2. {WORDS}
   - nested

```python
def one(x):
    return x + 1
```

| a | b |
|---|---|
| 1 | {WORDS} |
| 2 | x |

> a quote
> goes on

"""
ODD = """A title
of two lines
===

* a

* b
  more

      code in b
* c

Text [x][1] and **b *i* b** <b>html</b>

1) one
2) two

    indented
    code

~~~
tilde `` ` ``
~~~

```js
let x = `a`;
  ```
after

---

|a|b|
|-|-|
|1|2|
end
- [x] done
- [ ] open"""
TEXTS = {
    "mixed": MIXED * 25,
    "odd": ODD,
    "a link that is defined at the end": f"See [this][1] and [that].\n\n{MIXED}\n\n[1]: https://example.com",
    "one paragraph": " ".join(f"word{number}" for number in range(10_000)),
    "one list": "\n".join(f"{number}. item {WORDS[:60]}" for number in range(1, 1000)),
    "a loose list": "\n\n".join(f"- item {number} {WORDS[:60]}" for number in range(300)),
    "a nested list": "\n".join(f"{'  ' * (number % 4)}- item {WORDS[:60]}" for number in range(1, 1000)),
    "one piece of code": "```python\n" + "x = '`' # no end\n" * 1500 + "```\nafter",
    "code without an end": "```python\n" + "def f(x): return x\n" * 1500,
    "one table": "| a | b |\n|---|---|\n"
    + "\n".join(f"| {number} | {WORDS[:40]} |" for number in range(1000)),
    "nothing": "",
}
LONG = {name: text for name, text in TEXTS.items() if len(text) > 20_000}
GROW = """async ([text, largest]) => {
    const {MarkdownView, rendered} = await import("/playground/markdown.js");
    const root = document.createElement("div");
    const view = new MarkdownView(root);
    let added = 0, moved = 0, steps = 0, seed = 7;
    const watch = (records) => {
        for (const {target, addedNodes, removedNodes} of records) {
            added += addedNodes.length;
            if (target === root) moved += removedNodes.length;
        }
    };
    const observer = new MutationObserver(watch);
    observer.observe(root, {childList: true, subtree: true});
    const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
    for (let at = 0; at < text.length; steps++) {
        const length = 1 + Math.floor(random() * largest);
        view.text += text.slice(at, at + length);
        at += length;
        view._advance();
        if (steps % 1000 === 0) watch(observer.takeRecords());
    }
    view.finish();
    watch(observer.takeRecords());
    const whole = document.createElement("div");
    whole.append(rendered(text));
    // Blocks have boxes of their own, code gets its colours later, and a list that is cut is numbered anew.
    const plain = (one) => one.innerHTML
        .replace(/<\\/?(?:div|span)[^>]*>| class="[^"]*"|\\n/g, "")
        .replace(/<ol start="\\d+">/g, "<ol>");
    return {grown: plain(root), whole: plain(whole), steps, added, moved};
}"""


@pytest.fixture(scope="module")
def page(browser: Browser, site_server: GatewayServer) -> Iterator[Page]:
    """Any page of the gateway, whose modules are loaded."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(site_server.url)
        yield page


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("largest", [8, 40, 4000])
def test_a_text_that_grows_ends_as_the_whole_text(page: Page, name: str, largest: int) -> None:
    told: Any = page.evaluate(GROW, [TEXTS[name], largest])
    assert told["grown"] == told["whole"]


@pytest.mark.parametrize("name", LONG)
def test_a_token_of_a_long_text_is_as_little_work_as_one_of_a_short_text(page: Page, name: str) -> None:
    told: Any = page.evaluate(GROW, [LONG[name], 8])
    assert told["steps"] > 4_000
    # Each step makes the nodes of the part that is still written, and no others.
    assert told["added"] < 60 * told["steps"]
    # What is complete stays; the box of a block that never came goes.
    assert told["moved"] == 1
