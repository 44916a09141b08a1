"""Arithmetic from text, safe for anything a user may type: no names, no calls, bounded numbers."""

import ast
import math
import operator
from collections.abc import Callable
from typing import Any, Final

from simpleeval import InvalidExpression, SimpleEval

_MAX_LENGTH: Final = 200
_MAX_BITS: Final = 4096
"""Bound of every intermediate result. It also bounds the time that a power takes."""


def calculate(expression: str) -> str:
    """The value of an arithmetic expression as text.

    Knows numbers, parentheses and + - * / // % **. Raises ValueError with a text for the user.
    """
    if len(expression) > _MAX_LENGTH:
        raise ValueError("the expression is too long")
    try:
        parsed = ast.parse(expression.strip(), mode="eval").body
        value = _bounded(_evaluator().eval("", previously_parsed=parsed))
    except ZeroDivisionError:
        raise ValueError("that is a division by zero") from None
    except OverflowError:
        raise ValueError("the numbers are too large") from None
    except (InvalidExpression, SyntaxError, RecursionError, MemoryError):
        raise ValueError("that is not an arithmetic expression") from None
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def _evaluator() -> SimpleEval:
    evaluator = SimpleEval(operators=_OPERATORS, functions={}, names={})
    # The library knows much more than arithmetic.
    evaluator.nodes = {node: evaluator.nodes[node] for node in (ast.Constant, ast.UnaryOp, ast.BinOp)}
    return evaluator


def _bounded(value: object) -> int | float:
    if isinstance(value, complex):
        raise ValueError("the result is not a real number")  # noqa: TRY004 - a user's mistake, not a caller's
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidExpression("not a number")
    if value.bit_length() > _MAX_BITS if isinstance(value, int) else not math.isfinite(value):
        raise OverflowError
    return value


def _on_numbers(operation: Callable[..., Any]) -> Callable[..., int | float]:
    def apply(*operands: object) -> int | float:
        return _bounded(operation(*map(_bounded, operands)))

    return apply


def _power(base: float, exponent: float) -> Any:
    if isinstance(base, int) and (base.bit_length() - 1) * exponent > _MAX_BITS:
        raise OverflowError
    return base**exponent


_OPERATORS: Final = {
    ast.Add: _on_numbers(operator.add),
    ast.Sub: _on_numbers(operator.sub),
    ast.Mult: _on_numbers(operator.mul),
    ast.Div: _on_numbers(operator.truediv),
    ast.FloorDiv: _on_numbers(operator.floordiv),
    ast.Mod: _on_numbers(operator.mod),
    ast.Pow: _on_numbers(_power),
    ast.UAdd: _on_numbers(operator.pos),
    ast.USub: _on_numbers(operator.neg),
}
