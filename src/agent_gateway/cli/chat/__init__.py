"""What `agent-gateway chat` does: talks to any gateway from a terminal, or from a pipe.

It is a client like any other, so it may run anywhere. Only `--app` needs the database of the gateway, and
only without `--url` the settings are read.
"""

import sys

import typer

from agent_gateway.cli.chat.access import Wanted, access
from agent_gateway.cli.chat.talk import Talk
from agent_gateway.cli.chat.terminal import Terminal
from agent_gateway.errors import ConfigError
from agent_gateway_client import Client, ConnectionLost, GatewayError

FAILED = 1
"""The exit code when a message had no whole answer."""
INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


def chat(query: str | None, wanted: Wanted, user: str, conversation_id: str | None) -> None:
    """Ask one question, or each line of a pipe, or what is typed. Exits with FAILED or INTERRUPTED.

    Raises ConfigError for a URL or a key that cannot be used.
    """
    terminal = Terminal(sys.stdout, sys.stderr)
    with access(wanted) as (url, key):
        try:
            client = Client(url, key, user=user)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        with client:
            talk = Talk(client, terminal, conversation_id, can_ask=sys.stdin.isatty())
            code = _run(talk, terminal, query, url)
    if code:
        raise typer.Exit(code)


def _run(talk: Talk, terminal: Terminal, query: str | None, url: str) -> int:
    try:
        if not _greet(talk, terminal, url, is_typed=query is None and sys.stdin.isatty()):
            return FAILED
        if query is not None:
            return _code(talk, talk.ask(query))
        if sys.stdin.isatty():
            _converse(talk, terminal)
            return 0
        return _code(talk, _ask_lines(talk))
    except KeyboardInterrupt:
        terminal.end_line()
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the answers has left, as `head` does.
        terminal.abandon()
        return FAILED


def _ask_lines(talk: Talk) -> bool:
    """Ask each line of the pipe, until Ctrl-C; whether all of them have an answer."""
    is_answered = True
    for line in map(str.strip, sys.stdin):
        if line:
            is_answered &= talk.ask(line)
        if talk.was_stopped:
            break
    return is_answered


def _code(talk: Talk, is_answered: bool) -> int:
    if talk.was_stopped:
        return INTERRUPTED
    return 0 if is_answered else FAILED


def _greet(talk: Talk, terminal: Terminal, url: str, *, is_typed: bool) -> bool:
    """Try the URL and the key before anything is asked; says what is wrong with them."""
    try:
        info = talk.client.get_app_info()
        if is_typed:
            terminal.aside(f"{info['name']} at {url}. Ctrl-C stops an answer, Ctrl-D leaves.")
            if opening := talk.client.get_app_parameters()["opening_statement"]:
                terminal.answer(f"{opening}\n")
    except ConnectionLost as error:
        terminal.error(f"no gateway answers at {url}: {error.message}")
        return False
    except GatewayError as error:
        terminal.error(str(error))
        return False
    return True


def _converse(talk: Talk, terminal: Terminal) -> None:
    """Ask what is typed, until Ctrl-D or Ctrl-C at the prompt."""
    while True:
        try:
            query = terminal.read("> ")
        except (EOFError, KeyboardInterrupt):
            terminal.end_line()
            return
        if query.strip():
            talk.ask(query)
