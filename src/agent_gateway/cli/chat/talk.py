"""A conversation: asks, shows the answer while it comes, stops it at Ctrl-C, asks what the agent asks."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from agent_gateway.cli.chat import forms
from agent_gateway.cli.chat.steps import Steps
from agent_gateway.cli.chat.terminal import Terminal
from agent_gateway_client import ChatStreamEvent, Client, GatewayError, Reconnect, Turn
from agent_gateway_client.types import HumanInputForm

MODE: Final = "agent-chat"
"""Shows the steps of every app, and its answer once."""


class Talk:
    """One conversation. `can_ask`: whether somebody is there who answers the agent's questions."""

    def __init__(
        self, client: Client, terminal: Terminal, conversation_id: str | None, *, can_ask: bool
    ) -> None:
        self.client = client
        self._terminal = terminal
        self._conversation_id = conversation_id
        self._can_ask = can_ask
        self.was_stopped = False
        """Whether the last answer was stopped by Ctrl-C."""
        self._form: HumanInputForm | None = None
        """The question with which the last answer ended."""

    def ask(self, query: str) -> bool:
        """Send a message and show its answer; whether it has a whole one."""
        turn = self.client.chat(
            query, conversation_id=self._conversation_id, mode=MODE, on_reconnect=self._tell_cut
        )
        is_answered = self._show(turn)
        while self._form is not None and (answer := self._answer_of(self._form)):
            turn = self.client.answer_form(self._form, *answer, mode=MODE, on_reconnect=self._tell_cut)
            is_answered = self._show(turn)
        return is_answered and not self.was_stopped

    def _answer_of(self, form: HumanInputForm) -> forms.FormAnswer | None:
        if self._can_ask:
            return forms.ask(form, self._terminal)
        self._terminal.aside("The agent asks this: the next message of the conversation is the answer.")
        return None

    def _show(self, turn: Turn) -> bool:
        """Show a turn to its end; whether it did not fail."""
        shown = Shown(self._terminal)
        self.was_stopped = False
        try:
            with self._stopping(turn):
                for event in turn:
                    shown.add(event)
        except GatewayError as error:
            failure: GatewayError | None = error
        else:
            failure = turn.error
        self._form = shown.form
        self._conversation_id = turn.conversation_id or self._conversation_id
        shown.close()
        if failure is not None:
            self._terminal.error(str(failure))
        elif self.was_stopped:
            self._terminal.aside("(stopped)")
        return failure is None

    @contextmanager
    def _stopping(self, turn: Turn) -> Generator[None]:
        """Meanwhile Ctrl-C stops the turn, whose events go on to their end. A second one leaves at once."""

        def stop() -> None:
            try:
                turn.stop()
            except GatewayError as error:
                self._terminal.error(f"the answer could not be stopped: {error}")

        def interrupted(_signal: int, _frame: object) -> None:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.was_stopped = True
            # Not here: the main thread may hold the connection that a request would need.
            threading.Thread(target=stop, name="stop", daemon=True).start()

        before = signal.signal(signal.SIGINT, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _tell_cut(self, cut: Reconnect) -> None:
        self._terminal.aside(f"({cut.cause.message} Trying again.)")


class Shown:
    """What is shown of one turn."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._steps = Steps(terminal)
        self._pieces: list[str] = []
        self.form: HumanInputForm | None = None
        """The question that the agent asks, if it does."""

    def add(self, event: ChatStreamEvent) -> None:
        """Show what is new."""
        match event["event"]:
            case "agent_message" | "message":
                self._answer(event["answer"])
            case "message_replace":
                self._replace(event["answer"])
            case "agent_thought":
                self._steps.add(event)
            case "human_input_required":
                self.form = event["data"]
            case "message_file":
                self._terminal.aside(f"File: {event['url']}")
            case _:
                pass

    def close(self) -> None:
        """The turn is over."""
        self._steps.close()
        self._terminal.end_line()

    def _answer(self, text: str) -> None:
        self._pieces.append(text)
        self._terminal.answer(text)

    def _replace(self, text: str) -> None:
        """What is on the screen cannot be taken back: only a text that goes on from it needs no new line."""
        before = "".join(self._pieces)
        self._pieces = [text]
        if text.startswith(before):
            self._terminal.answer(text[len(before) :])
            return
        self._terminal.aside("(The answer was replaced by this one.)")
        self._terminal.answer(text)
