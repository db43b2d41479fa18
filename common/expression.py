"""Expressions of --accept and --where: `clip > 0.26 and nsfw < 0.2`, parsed, never run as code.

    accept = parse("clip > 0.26 and not (nsfw >= 0.2 or rendered_text < 1)")
    accept.names                                          # {"clip", "nsfw", "rendered_text"}
    accept.holds({"clip": 0.31, "nsfw": 0.02, "rendered_text": 1.0})      # True

Names, numbers, strings in quotes, the comparisons < <= > >= == != (also 0.2 < clip < 0.4), and,
or, not, parentheses. A value that is missing, null or NaN makes a comparison unknown, as in SQL:
an unknown result is not accepted, and `not` of an unknown stays unknown.
"""

import argparse
import ast
import math
import operator
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from common.command_line import UserError

NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")  # of a score
LONGEST = 2000  # characters
MOST_PARTS = 20  # conditions of an expression that are counted apart
COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
Value = float | int | str | bool | None
# CPython 3.11 mixes up two threads that parse at the same instant: SystemError.
PARSING = threading.Lock()


@dataclass(frozen=True)
class Expression:
    """A parsed expression. text: as it was written, for definitions, tables and index files."""

    text: str
    tree: ast.expr
    names: frozenset[str]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether these values are accepted; an unknown result is not."""
        return _truth(self.tree, values) is True


def option(word: str) -> str:
    """For argparse: an expression that is not empty (as an unset shell variable would be)."""
    if not word.strip():
        raise argparse.ArgumentTypeError("it is empty; leave the option out for everything")
    return word


def parse(text: str) -> Expression:
    """UserError, naming the place, for what is not such an expression."""
    if len(text) > LONGEST:
        raise UserError(f"the expression has {len(text)} characters, at most {LONGEST} are taken")
    try:
        with PARSING:
            tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        why = error.msg if isinstance(error, SyntaxError) else "it cannot be read"
        raise UserError(f"the expression {text!r}: {why}; {EXPECTED}") from None
    names: set[str] = set()
    _check_truth(tree, text, names)
    return Expression(text.strip(), tree, frozenset(names))


def parts_of(expression: Expression) -> list[Expression]:
    """The conditions that all have to hold: what the outermost `and` joins, or the whole."""
    tree = expression.tree
    if not (isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And)):
        return [expression]
    return [Expression(ast.unparse(part), part, frozenset(_names(part))) for part in tree.values]


def _names(tree: ast.expr) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


EXPECTED = "expected comparisons such as clip > 0.26, joined by and, or, not"


def _check_truth(node: ast.expr, text: str, names: set[str]) -> None:
    if isinstance(node, ast.BoolOp):
        for value in node.values:
            _check_truth(value, text, names)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        _check_truth(node.operand, text, names)
    elif isinstance(node, ast.Compare) and all(type(op) in COMPARE for op in node.ops):
        for value in (node.left, *node.comparators):
            _check_value(value, text, names)
    else:
        raise _refused(node, text)


def _check_value(node: ast.expr, text: str, names: set[str]) -> None:
    if isinstance(node, ast.Name):
        names.add(node.id)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        if not (isinstance(node.operand, ast.Constant) and _is_number(node.operand.value)):
            raise _refused(node, text)
    elif not (isinstance(node, ast.Constant) and _is_constant(node.value)):
        raise _refused(node, text)


def _is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and math.isfinite(value))


def _is_constant(value: object) -> bool:
    return _is_number(value) or isinstance(value, str | bool)


def _refused(node: ast.expr, text: str) -> UserError:
    part = ast.get_source_segment(text.strip(), node) or "it"
    return UserError(f"the expression {text!r}: {part!r} is not understood; {EXPECTED}")


def _truth(node: ast.expr, values: Mapping[str, Any]) -> bool | None:
    """True, False, or None = unknown."""
    if isinstance(node, ast.BoolOp):
        parts = [_truth(value, values) for value in node.values]
        decides = isinstance(node.op, ast.Or)  # one true decides an or, one false an and
        if decides in parts:
            return decides
        return None if None in parts else not decides
    if isinstance(node, ast.UnaryOp):
        part = _truth(node.operand, values)
        return None if part is None else not part
    assert isinstance(node, ast.Compare)
    sides = [_value(side, values) for side in (node.left, *node.comparators)]
    results = [
        _compare(op, left, right)
        for op, left, right in zip(node.ops, sides, sides[1:], strict=False)
    ]
    if False in results:
        return False
    return None if None in results else True


def _compare(op: ast.cmpop, left: Value, right: Value) -> bool | None:
    if left is None or right is None or isinstance(left, str) != isinstance(right, str):
        return None
    return COMPARE[type(op)](left, right)


def _value(node: ast.expr, values: Mapping[str, Any]) -> Value:
    if isinstance(node, ast.Constant):
        constant: Value = node.value  # type: ignore[assignment]
        return constant
    if isinstance(node, ast.UnaryOp):
        number = _value(node.operand, values)
        assert isinstance(number, int | float)
        return -number
    assert isinstance(node, ast.Name)
    value = values.get(node.id)
    if not isinstance(value, int | float | str) or (isinstance(value, float) and math.isnan(value)):
        return None
    return value
