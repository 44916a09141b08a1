"""A question of an agent, answered in the terminal: choose an action, fill the inputs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agent_gateway.cli.chat.terminal import Terminal, one_line
from agent_gateway_client.types import FormInputItem, HumanInputForm


class FormAnswer(NamedTuple):
    """What goes into a submission."""

    action: str
    inputs: Mapping[str, object]


def ask(form: HumanInputForm, terminal: Terminal) -> FormAnswer | None:
    """Ask for the action and the inputs of a form; None after Ctrl-C or Ctrl-D: the question stays open."""
    try:
        actions = [(action["id"], action["title"]) for action in form["actions"]]
        terminal.aside(form["node_title"])
        chosen = _choose(terminal, actions)
        defaults = form["resolved_default_values"]
        filled = {one["output_variable_name"]: _fill(terminal, one, defaults) for one in form["inputs"]}
    except (EOFError, KeyboardInterrupt):
        terminal.end_line()
        terminal.aside("The question stays open: your next message is its answer.")
        return None
    return FormAnswer(chosen, {name: value for name, value in filled.items() if value is not None})


def _choose(terminal: Terminal, options: Sequence[tuple[str, str]]) -> str:
    """One of these values, which have titles; by its number, its value or its title."""
    for number, (_, title) in enumerate(options, 1):
        terminal.aside(f"{number}) {title}")
    names = {str(number): value for number, (value, _) in enumerate(options, 1)}
    names |= {name.casefold(): value for value, title in options for name in (value, title)}
    while True:
        chosen = names.get(terminal.read(f"1-{len(options)}: ").strip().casefold())
        if chosen is not None:
            return chosen


def _fill(terminal: Terminal, field: FormInputItem, defaults: Mapping[str, object]) -> object:
    """The value of an input; None for one that is left out."""
    default = defaults.get(field["output_variable_name"])
    label = one_line(field["label"]) or one_line(field["output_variable_name"])
    if field["options"]:
        terminal.aside(label)
        return _choose(terminal, [(option["value"], option["label"]) for option in field["options"]])
    hint = (
        f" [{one_line(str(default))}]" if default is not None else "" if field["required"] else " (optional)"
    )
    while True:
        typed = terminal.read(f"{label}{hint}: ").strip()
        if typed or default is not None or not field["required"]:
            return typed or default
