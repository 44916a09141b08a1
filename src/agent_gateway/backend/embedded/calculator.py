"""Arithmetic from text, safe for anything a user may type: no names, no calls, bounded numbers."""

import ast
import math
import operator
from collections.abc import Callable
from typing import Final

_MAX_LENGTH: Final = 200
_MAX_BITS: Final = 4096
"""Bound of every intermediate result; also what keeps a power from taking for ever."""

Number = int | float

_BINARY: Final[dict[type[ast.operator], Callable[[Number, Number], Number]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: Final[dict[type[ast.unaryop], Callable[[Number], Number]]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def calculate(expression: str) -> str:
    """The value of an arithmetic expression as text.

    Knows numbers, parentheses and + - * / // % **. Raises ValueError with a text for the user.
    """
    if len(expression) > _MAX_LENGTH:
        raise ValueError("the expression is too long")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except ZeroDivisionError:
        raise ValueError("that is a division by zero") from None
    except OverflowError:
        raise ValueError("the numbers are too large") from None
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("that is not an arithmetic expression") from None
    return str(value) if isinstance(value, int) else f"{value:.12g}"


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _bounded(value)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            a, b = _value(left), _value(right)
            if isinstance(op, ast.Pow) and isinstance(a, int) and (a.bit_length() - 1) * b > _MAX_BITS:
                raise OverflowError
            return _bounded(_BINARY[type(op)](a, b))
        case _:
            raise ValueError("that is not an arithmetic expression")


def _bounded(value: Number) -> Number:
    if isinstance(value, complex):
        raise ValueError("the result is not a real number")  # noqa: TRY004 - a user's mistake, not a caller's
    if value.bit_length() > _MAX_BITS if isinstance(value, int) else not math.isfinite(value):
        raise OverflowError
    return value
