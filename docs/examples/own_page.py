"""A page of your own, in one file: it shows answers as they come, and a reload in the middle goes on.

    AGENT_GATEWAY_API_KEY=app-demo AGENT_GATEWAY_CORS_ORIGINS=http://127.0.0.1:3000 ./dev/start-api
    .venv/bin/python docs/examples/own_page.py        # http://127.0.0.1:3000

The key stays in this server, which begins the turns. The browser gets the URL of one turn and follows it at
the gateway. The page keeps that URL in its own address.
"""

import argparse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urljoin

from agent_gateway_client import Client, ConnectionLost, GatewayError

PAGE = """<!doctype html>
<title>My page</title>
<style>#answer { white-space: pre-wrap; }</style>
<form><input name="query" required autofocus placeholder="count to 300"> <button>Ask</button></form>
<p id="answer"></p>
<p id="problem"></p>
<script>
  const answer = document.querySelector("#answer");
  const problem = document.querySelector("#problem");
  let source;

  function follow(url) {
    source?.close();
    answer.textContent = problem.textContent = "";
    source = new EventSource(url);   // it comes back by itself after a cut, with the id of its last event
    source.onopen = () => problem.textContent = "";
    source.onerror = () => problem.textContent = source.readyState === EventSource.CLOSED
      ? "The gateway refuses: does AGENT_GATEWAY_CORS_ORIGINS name this page?" : "Connecting again…";
    source.onmessage = ({data}) => {
      const event = JSON.parse(data);
      if (event.event === "message") answer.append(event.answer);
      if (event.event === "message_replace") answer.textContent = event.answer;
      if (event.event === "error") problem.textContent = event.message;
      if (event.event === "message_end" || event.event === "error") source.close();
    };
  }

  document.querySelector("form").onsubmit = async (submit) => {
    submit.preventDefault();
    const query = new FormData(submit.target).get("query");
    const response = await fetch("/ask", {method: "POST", body: query});
    if (response.ok) location.hash = await response.text();
    else problem.textContent = await response.text();
  };
  onhashchange = () => follow(location.hash.slice(1));
  if (location.hash) follow(location.hash.slice(1));
</script>
"""


class Page(BaseHTTPRequestHandler):
    """The page, and the one call that it makes here."""

    client: Client
    gateway: str

    def do_GET(self) -> None:
        """The page itself."""
        self._send("text/html; charset=utf-8", PAGE)

    def do_POST(self) -> None:
        """Begin a turn; the answer is the URL of its events."""
        query = self.rfile.read(int(self.headers["Content-Length"])).decode()
        try:
            turn = self.client.begin(query)
        except (GatewayError, ConnectionLost) as error:
            self._send("text/plain; charset=utf-8", str(error), 502)
        else:
            self._send("text/plain; charset=utf-8", urljoin(self.gateway, turn["events_url"]))

    def _send(self, kind: str, text: str, status: int = 200) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until Ctrl-C."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--port", type=int, default=3000)
    options.add_argument("--gateway", default="http://127.0.0.1:8000")
    options.add_argument("--key", default="app-demo")
    given = options.parse_args()
    Page.gateway = given.gateway
    address = ("127.0.0.1", given.port)
    with (
        Client(given.gateway, given.key, user="me") as Page.client,
        ThreadingHTTPServer(address, Page) as server,
    ):
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
