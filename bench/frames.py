"""What a frame costs the playground while an answer grows, beside rendering the whole answer each time.

    .venv/bin/python -m bench.frames

In a real Chromium, both ways in the same page, four tokens a frame. No server is involved.
"""

import http.server
import shutil
import threading
from functools import partial
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import sync_playwright

from bench.machine import description

WEB: Final = Path(__file__).parents[1] / "src/agent_gateway/web"
ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
TOKENS: Final = 10_000
WORDS: Final = " ".join(f"word{number}" for number in range(50))
PART: Final = f"""## A part

{WORDS} **bold** and `code`.

{chr(10).join(f"{number}. item *{number}* {WORDS[:50]}" for number in range(1, 9))}

```python
{chr(10).join(f"def f{number}(x): return x + {number}" for number in range(12))}
```

| a | b |
|---|---|
{chr(10).join(f"| {number} | {WORDS[:30]} |" for number in range(8))}

"""
TEXTS: Final = {
    "everything": PART * 100,
    "one paragraph": WORDS + f" {WORDS}" * 300,
    "one list": "\n".join(f"{number}. item {WORDS[:50]}" for number in range(1, 2000)),
    "one table": "| a | b |\n|---|---|\n"
    + "".join(f"| {number} | {WORDS[:40]} |\n" for number in range(999)),
    "one piece of code": "```python\n" + "def f(x): return x + 1  # one more\n" * 2000,
}
MEASURE: Final = """async ([text, tokens]) => {
    const {MarkdownView, rendered} = await import("/markdown.js");
    const pieces = text.match(/\\s*\\S+/g).slice(0, tokens);
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const measured = async (show, every) => {
        const times = [];
        for (let at = 0; at < pieces.length; at += 4) {
            if (at % every) { show(pieces.slice(at, at + 4).join(""), false); continue; }
            await frame();
            const began = performance.now();
            show(pieces.slice(at, at + 4).join(""), true);
            times.push(performance.now() - began);
        }
        times.sort((one, other) => one - other);
        const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
        return [at(0.5), at(0.99), times.at(-1)];
    };
    const root = document.body.appendChild(document.createElement("div"));
    const view = new MarkdownView(root);
    const ours = await measured((piece) => { view.text += piece; view._advance(); }, 4);
    root.replaceChildren();
    let all = "";
    // This costs the square of the length: ten of its frames are enough.
    const whole = await measured((piece, shown) => {
        all += piece;
        if (shown) root.replaceChildren(rendered(all));
    }, 1000);
    root.remove();
    return {tokens: pieces.length, ours, whole};
}"""


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the library
        """Say nothing."""


def main() -> None:
    """Measure and print."""
    files = partial(_Files, directory=str(WEB))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            _measure(f"http://127.0.0.1:{server.server_port}/")
        finally:
            server.shutdown()


def _measure(url: str) -> None:
    for name, value in description().items():
        if name in ("date", "processor", "cores"):
            print(f"- {name}: {value}")
    print(f"\n{TOKENS:,} tokens, milliseconds: median, p99, most; and the same when all is rendered anew")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        print(f"- browser: {browser.version}")
        page = browser.new_page()
        page.goto(f"{url}vendor/README.md")
        for name, text in TEXTS.items():
            told: Any = page.evaluate(MEASURE, [text, TOKENS])
            ours, whole = (" ".join(f"{value:8.2f}" for value in told[way]) for way in ("ours", "whole"))
            print(f"{name:20} {ours}   {whole}", flush=True)
        browser.close()


if __name__ == "__main__":
    main()
