"""Loads the agent that `agent-gateway backend --agent module:name` names, before anything is served."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Awaitable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Protocol

from agent_gateway.backend.embedded.function.agent import PlainAgents
from agent_gateway.backend.embedded.places import place, place_of
from agent_gateway.backend.embedded.runs import Emit
from agent_gateway.backend.protocol import CreateRunRequest
from agent_gateway.errors import ConfigError

EXAMPLE = "my_agent:agent"


class Agents(Protocol):
    """What runs the agent of a request."""

    def execute(self, request: CreateRunRequest, emit: Emit) -> Awaitable[bytes]:
        """Run it and return the data of `run_succeeded`; raises RunFailed or RunInterrupted."""
        ...

    async def aclose(self) -> None:
        """Close what is open between two runs."""
        ...


def load_agent(name: str) -> Agents:
    """The agent named `module:attribute`; the current folder is searched first. Raises ConfigError.

    An error of the module itself is told by its type and place, without its text, which may hold secrets.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigError(f"--agent {name!r} must name a module and an agent in it, as in {EXAMPLE}")
    if "/" in module_name or module_name.endswith(".py"):
        meant = Path(module_name).stem
        raise ConfigError(f"--agent {name!r} must name a module, not a file, as in {meant}:{attribute}")
    module = _import(name, module_name)
    found = getattr(module, attribute, None)
    if found is None:
        nearest = get_close_matches(attribute, [one for one in vars(module) if not one.startswith("_")], n=1)
        hint = f"; did you mean {module_name}:{nearest[0]}?" if nearest else ""
        raise ConfigError(f"--agent {name}: the module {module_name!r} has no {attribute!r}{hint}")
    return _agents(found, name)


def _import(name: str, module_name: str) -> ModuleType:
    sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or "a module"
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise ConfigError(
                f"--agent {name}: there is no module {missing!r} in {Path.cwd()} or among what is installed"
            ) from None
        raise _broken(name, f"its import of {missing!r} failed: no such module", error) from None
    except ImportError as error:
        said = f"an import from {error.name!r} failed" if error.name else _told(error)
        raise _broken(name, said, error) from None
    except SyntaxError as error:
        where = place(error.filename or module_name, error.lineno)
        raise ConfigError(f"--agent {name}: {error.msg} at {where}") from None
    except Exception as error:  # noqa: BLE001 - a module may raise anything
        raise _broken(name, _told(error), error) from None
    except SystemExit as error:
        raise _broken(name, "the module ends the process (SystemExit)", error) from None


def _told(error: Exception) -> str:
    """The kind of an error; or its text, when the agent framework wrote it for whoever configures it.

    Those are a missing API key (UserError) and a missing library of a provider (ImportError).
    """
    kind = type(error).__name__
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    if kind in ("UserError", "ImportError") and "pydantic_ai" in raised_in.parts:
        return " ".join(str(error).split())
    return kind


def _broken(name: str, said: str, error: BaseException) -> ConfigError:
    return ConfigError(f"--agent {name}: the module cannot be loaded: {said} (at {place_of(error)})")


def _agents(found: object, name: str) -> Agents:
    if "pydantic_ai" in sys.modules:  # without it there is no such agent, and importing it takes seconds
        from pydantic_ai.agent import AbstractAgent

        if isinstance(found, AbstractAgent):
            from agent_gateway.backend.embedded.agent.own import OwnAgents

            return OwnAgents(found, name)
    if not inspect.isasyncgenfunction(found):
        raise ConfigError(
            f"--agent {name} is {_kind(found)}; it must be a pydantic-ai Agent or an async generator "
            "function: `async def` with `yield`"
        )
    try:
        inspect.signature(found).bind(None)
    except TypeError:
        raise ConfigError(f"--agent {name} must be a function that takes one argument, the turn") from None
    return PlainAgents(found)


def _kind(found: object) -> str:
    if inspect.iscoroutinefunction(found):
        return "an async function without `yield`"
    if inspect.isgeneratorfunction(found):
        return "a generator function without `async`"
    if inspect.isclass(found):
        return f"the class {found.__name__}"
    return "a function" if inspect.isroutine(found) else f"of the type {type(found).__name__}"
