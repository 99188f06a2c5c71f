"""Arithmetic on text from outside, without `eval` and within bounds."""

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

Number: TypeAlias = int | float

MAX_LENGTH = 200
"""How many characters an expression may have."""

MAX_BITS = 2048
"""How large a whole number may become on the way, in bits: some 600 digits."""

_SIGNS = str.maketrans("\u00d7\u00f7\u2212", "*/-")
_ALLOWED = re.compile(r"[\d.+\-*/%()\s]*", re.ASCII)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))", re.ASCII)


class CalculationError(ValueError):
    """The expression cannot be calculated; the message says why."""


def calculate(expression: str) -> Number:
    """Return the value of an expression of numbers, `+ - * / // % **` and parentheses.

    Raises:
        CalculationError: It is something else, has no value, or grows too large.
    """
    try:
        value = _value(_parse(expression))
    except ZeroDivisionError:
        raise CalculationError("Division by zero has no value.") from None
    except OverflowError:
        raise CalculationError("The result is too large.") from None
    return value


def _parse(expression: str) -> ast.expr:
    if len(expression) > MAX_LENGTH:
        raise CalculationError(f"The expression is longer than {MAX_LENGTH} characters.")
    text = _THOUSANDS.sub("", expression.translate(_SIGNS))
    if not _ALLOWED.fullmatch(text):
        raise CalculationError("Only numbers, + - * / // % ** and parentheses can be calculated.")
    try:
        return ast.parse(" ".join(text.split()), mode="eval").body
    except (SyntaxError, RecursionError, MemoryError):
        raise CalculationError("The expression is not complete or not well formed.") from None


def _value(node: ast.expr) -> Number:
    """Return the value of a node of the syntax tree; refuse any that is not arithmetic."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return _bounded(number)
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _UNARY:
            return _UNARY[type(sign)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_value(left), _value(right)))
    raise CalculationError("Only arithmetic can be calculated.")


def _bounded(number: Number) -> Number:
    if isinstance(number, int) and number.bit_length() > MAX_BITS:
        raise CalculationError("The result is too large.")
    if isinstance(number, float) and not math.isfinite(number):
        raise CalculationError("The result is too large.")
    return number


def _power(base: Number, exponent: Number) -> Number:
    """Return a power; one that would be too large is not begun."""
    if isinstance(base, int) and base.bit_length() * abs(exponent) > MAX_BITS:
        raise CalculationError("The power is too large.")
    power = base**exponent
    if isinstance(power, complex):
        raise CalculationError("An even root of a negative number is not a real number.")
    return power


_BINARY: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}

_UNARY: Mapping[type[ast.unaryop], Callable[[Number], Number]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
