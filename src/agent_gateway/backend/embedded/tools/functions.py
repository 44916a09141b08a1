"""Python functions of the operator, found by `module:function`."""

import importlib
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any


class FunctionMissing(Exception):
    """The function is not there. The text says why, and names only modules and attributes."""


def load_function(place: str) -> Callable[..., Any]:
    """The function at `module:function`; imports the module. Raises FunctionMissing."""
    module_name, _, name = place.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise FunctionMissing(f"{place!r}: there is no module {error.name!r}") from None
    except Exception as error:  # noqa: BLE001 - a module may raise anything when it is imported
        raise FunctionMissing(f"{place!r}: the module cannot be imported ({type(error).__name__})") from None
    found = getattr(module, name, None)
    if found is None:
        close = get_close_matches(name, [known for known in vars(module) if not known.startswith("_")], n=1)
        meant = f"; did you mean {close[0]!r}?" if close else ""
        raise FunctionMissing(f"{place!r}: the module has no {name!r}{meant}")
    if not callable(found):
        raise FunctionMissing(f"{place!r}: {name!r} is no function")
    return found
