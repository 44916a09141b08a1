"""The steps of an agent while it works: what it thinks as it grows, and each tool with its result."""

from typing import Final

from agent_gateway.cli.chat.terminal import Terminal, one_line
from agent_gateway_client.types import AgentThoughtEvent

LONGEST: Final = 200
"""Characters of what is shown of a tool's input, and of its result."""


class Steps:
    """Shows the steps of one turn. Each event of a step tells the whole step again."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._shown: dict[str, int] = {}
        """How many characters of a thought are shown, by the step's id."""
        self._current = ""
        """The thought whose end is where the cursor is."""
        self._calls: dict[str, AgentThoughtEvent] = {}
        """The tools that have not answered yet."""
        self._told: set[str] = set()

    def add(self, step: AgentThoughtEvent) -> None:
        """Show what is new in a step."""
        if step["tool"]:
            self._calls[step["id"]] = step
            if step["observation"]:
                self._tell(step["id"])
        else:
            self._think(step["id"], step["thought"])

    def close(self) -> None:
        """Show the tools that never answered, or answered with nothing."""
        for step_id in list(self._calls):
            self._tell(step_id)

    def _think(self, step_id: str, thought: str) -> None:
        shown = self._shown.get(step_id, 0)
        if self._current != step_id:
            self._current = step_id
            self._terminal.end_line()
        self._terminal.step(thought[shown:])
        self._shown[step_id] = max(shown, len(thought))

    def _tell(self, step_id: str) -> None:
        call = self._calls.pop(step_id)
        if step_id in self._told:
            return
        self._told.add(step_id)
        result = f" → {_shortened(call['observation'])}" if call["observation"] else ""
        self._terminal.end_line()
        self._terminal.step(f"{one_line(call['tool'])} {_shortened(call['tool_input'])}{result}\n")
        self._current = ""


def _shortened(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
