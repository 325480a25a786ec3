"""Which rows satisfy a parsed segment expression: its tree is interpreted over columns, never run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import dates, privacy
from explain_step.artifacts.segment_expressions import Expression, Walker, literal_value

BoolArray = npt.NDArray[np.bool_]
ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def evaluate(expression: Expression, frame: pd.DataFrame) -> BoolArray:
    """Return which rows of ``frame`` satisfy the expression.

    Raises
    ------
    InvalidInput
        A column is compared with a value of a kind that it never holds.

    Examples
    --------
    >>> from explain_step.artifacts.segment_expressions import parse
    >>> frame = pd.DataFrame({"age": [20.0, 40.0, None]})
    >>> evaluate(parse("age < 30", ["age"]), frame).tolist()
    [True, False, False]
    """
    return _Evaluator(expression, frame).condition(expression.tree)


class _Evaluator(Walker):
    """Interprets a checked tree over a frame."""

    def __init__(self, expression: Expression, frame: pd.DataFrame) -> None:
        super().__init__(text=expression.text, origin=expression.origin, parsed=expression.parsed)
        self.names = expression.names
        self.frame = frame

    def condition(self, node: ast.expr) -> BoolArray:
        match node:
            case ast.BoolOp(op=op, values=values):
                join = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return np.asarray(join.reduce([self.condition(v) for v in values]), dtype=np.bool_)
            case ast.UnaryOp(operand=operand):
                return np.asarray(~self.condition(operand), dtype=np.bool_)
            case ast.Compare():
                sides = [node.left, *node.comparators]
                steps = zip(sides, node.ops, sides[1:], strict=False)
                found = [self.compare(left, op, right) for left, op, right in steps]
                return np.asarray(np.logical_and.reduce(found), dtype=np.bool_)
            case _:
                return self.flag(node)

    def flag(self, node: ast.expr) -> BoolArray:
        series = self.column(node)
        if not pd.api.types.is_bool_dtype(series):
            self.refuse(
                node, f"column {series.name!r} is not true or false", remedy="compare it with a value"
            )
        return np.asarray(series.fillna(False).to_numpy(dtype=np.bool_), dtype=np.bool_)

    def column(self, node: ast.expr) -> pd.Series[Any]:
        assert isinstance(node, ast.Name)  # the checker saw to it
        series = self.frame[self.names[node.id]]
        if isinstance(series.dtype, pd.CategoricalDtype) and not series.cat.ordered:
            return series.astype(series.cat.categories.dtype)
        if series.dtype == object and privacy.is_numeric(series):
            return series.astype(np.float64)
        return dates.comparable(series)

    def compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> BoolArray:
        if isinstance(op, ast.Is | ast.IsNot):
            missing = self.column(left).isna().to_numpy(dtype=np.bool_)
            return missing if isinstance(op, ast.Is) else ~missing
        if isinstance(op, ast.In | ast.NotIn):
            assert isinstance(right, ast.List | ast.Tuple | ast.Set)  # the checker saw to it
            found = np.logical_or.reduce([self.equal(left, element) for element in right.elts])
            return np.asarray(found if isinstance(op, ast.In) else ~found, dtype=np.bool_)
        if isinstance(op, ast.Eq | ast.NotEq):
            same = self.equal(left, right)
            return same if isinstance(op, ast.Eq) else ~same
        return self.ordered(left, ORDER[type(op)], right)

    def equal(self, left: ast.expr, right: ast.expr) -> BoolArray:
        return self.apply(left, operator.eq, right)

    def ordered(self, left: ast.expr, op: Callable[[Any, Any], Any], right: ast.expr) -> BoolArray:
        return self.apply(left, op, right)

    def apply(self, left: ast.expr, op: Callable[[Any, Any], Any], right: ast.expr) -> BoolArray:
        a, b = self.side(left, other=right), self.side(right, other=left)
        try:
            result = pd.Series(op(a, b))
        except (TypeError, ValueError, OverflowError):
            series = a if isinstance(a, pd.Series) else b
            self.refuse(left, f"column {series.name!r} ({series.dtype}) cannot be compared with that value")
        return np.asarray(result.fillna(False).to_numpy(dtype=np.bool_), dtype=np.bool_)

    def side(self, node: ast.expr, *, other: ast.expr) -> Any:
        """Return a column, or a value turned into the kind of the column on the other side."""
        if isinstance(node, ast.Name):
            return self.column(node)
        value = literal_value(node)
        if not isinstance(other, ast.Name):
            return value
        series = self.column(other)
        if dates.is_dates(series):
            return self.instant(node, value, series)
        is_text = isinstance(value, str)
        numbers = pd.api.types.is_numeric_dtype(series)  # booleans are numbers
        if numbers and is_text:
            self.refuse(
                node,
                f"column {series.name!r} holds numbers and is compared with text",
                remedy="write a number",
            )
        if not numbers and not is_text and pd.api.types.infer_dtype(series, skipna=True) == "string":
            self.refuse(node, f"column {series.name!r} holds text", remedy=f"quote the value: '{value}'")
        return value

    def instant(self, node: ast.expr, value: Any, series: pd.Series[Any]) -> pd.Timestamp:
        try:
            stamp = pd.Timestamp(value) if isinstance(value, str) else None
        except ValueError:
            stamp = None
        if stamp is None or pd.isna(stamp):
            remedy = "write one as text, like '2024-03-01'"
            self.refuse(node, f"column {series.name!r} holds dates and {value!r} is none", remedy=remedy)
        zone = series.dt.tz
        if zone is not None and stamp.tzinfo is None:
            return stamp.tz_localize(zone)
        return stamp
