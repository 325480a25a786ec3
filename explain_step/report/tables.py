"""From artifact tables to tables for readers: which columns, under which words, with which rounding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd

from explain_step.report.format import (
    MISSING,
    Name,
    Text,
    count,
    decimals,
    interval,
    is_number,
    number,
    p_value,
    percent,
    plain,
    tidy,
)

Kind = Literal["name", "text", "number", "signed", "percent", "count", "interval", "p", "rank", "word"]
MAX_ROWS = 60
LONG_TEXT = 18


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """How one column of a page's table is made from the columns of an artifact."""

    title: str
    source: str
    kind: Kind = "number"
    low: str = ""
    high: str = ""

    @property
    def numeric(self) -> bool:
        """Whether the column is right-aligned."""
        return self.kind not in ("name", "text", "word")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table for readers: every cell is text; ``notes`` stand below it."""

    caption: Text
    columns: tuple[Column, ...]
    rows: tuple[tuple[Text, ...], ...]
    notes: tuple[Text, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the style of each column: numbers, short text on one line, or long text that wraps."""
        widths = [max((len(plain(row[k])) for row in self.rows), default=0) for k in range(len(self.columns))]
        return tuple(
            "number" if c.numeric else "long" if width > LONG_TEXT else "short"
            for c, width in zip(self.columns, widths, strict=True)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Labels:
    """Reader names of raw columns (a missing key is the name itself)."""

    names: Mapping[str, str] = field(default_factory=dict)

    def of(self, feature: object) -> Name:
        """Return a column's reader name."""
        return Name(str(self.names.get(str(feature), feature)))


WORDS: dict[str, tuple[str, Kind]] = {
    "output": ("Output", "text"),
    "feature": ("Input", "name"),
    "feature_a": ("Input", "name"),
    "feature_b": ("with", "name"),
    "strength": ("Strength", "number"),
    "rule": ("Rule", "text"),
    "rest_value": ("Rest", "number"),
    "group": ("Group", "text"),
    "cluster": ("Cluster", "text"),
    "features": ("Inputs", "text"),
    "members": ("Inputs", "text"),
    "segment": ("Segment", "text"),
    "level": ("Level", "text"),
    "metric": ("Metric", "word"),
    "n": ("Rows", "count"),
    "count": ("Rows", "count"),
    "rank": ("Rank", "rank"),
    "mean_abs_shap": ("Average effect", "number"),
    "mean_shap": ("Average with sign", "signed"),
    "share": ("Share", "percent"),
    "permutation_importance": ("Loss when shuffled", "number"),
    "metric_value": ("Performance", "number"),
    "metric_difference": ("Difference to the rest", "signed"),
    "difference": ("Difference to the rest", "signed"),
    "p_adjusted": ("Adjusted p", "p"),
    "p_value": ("p", "p"),
    "selection_rate": ("Of all rows", "percent"),
    "tpr": ("Of actual ones", "percent"),
    "fpr": ("Of the others", "percent"),
    "x": ("Value", "text"),
    "value": ("Value", "number"),
    "shap": ("Contribution", "signed"),
    "direction": ("Better", "word"),
    "score": ("Score", "word"),
    "variant": ("Variant", "word"),
    "feature_value": ("Value", "text"),
    "curve": ("Curve", "word"),
}
"""Words and kind of the stored columns."""
COUNT_SUFFIXES = ("_rows", "_n", "_count")


def make_table(
    frame: pd.DataFrame,
    columns: Sequence[Column],
    *,
    caption: Text,
    labels: Labels,
    absent: str = "not available",
    file: str = "",
    limit: int = MAX_ROWS,
) -> Table:
    """Return a table for readers; columns without their source or with nothing to show are left out.

    Parameters
    ----------
    frame : DataFrame
        A stored table, or some of its rows, in the order to show.
    columns : sequence of Column
    caption : Text
    labels : Labels
    absent : str
        Why a cell may have no number; stands below the table when an en dash occurs in it.
    file : str
        Name of the stored table, for the note on rows that are not shown.
    limit : int
        Rows to show.
    """
    shown = frame.head(limit)
    used = [c for c in columns if _present(c, shown)]
    cells = [_cells(c, shown, labels=labels) for c in used]
    rows = tuple(zip(*cells, strict=True)) if cells else ()
    notes: list[Text] = []
    if any(cell == (MISSING,) for row in rows for cell in row):
        notes.append((f"{MISSING} {absent}.",))
    if len(frame) > limit:
        notes.append(
            (f"The first {limit:,} of {len(frame):,} rows; all of them are in ", Name(f"tables/{file}"), ".")
        )
    return Table(caption=caption, columns=tuple(used), rows=rows, notes=tuple(notes))


def infer_columns(frame: pd.DataFrame, *, hide: Sequence[str] = ()) -> tuple[Column, ...]:
    """Return columns for a table whose layout is not known here: intervals are joined into one column."""
    stems = {c[: -len("ci_low")]: c for c in frame.columns if c.endswith("ci_low")}
    out: list[Column] = []
    last_value = ""
    for name in map(str, frame.columns):
        stem = name[: -len("ci_low")] if name.endswith("ci_low") else ""
        if name in hide or name.endswith("ci_high") or name in ("rank_low", "rank_high"):
            continue
        if name.endswith("ci_low"):
            out.append(interval_column(last_value, low=stems[stem], high=f"{stem}ci_high"))
            continue
        title, kind = WORDS.get(name, (words(name), _guess(frame[name], name)))
        out.append(Column(title=title, source=name, kind=kind))
        last_value = name if out[-1].numeric else last_value
    return tuple(out)


def interval_column(source: str, *, low: str = "ci_low", high: str = "ci_high") -> Column:
    """Return the column with the interval of ``source``."""
    return Column(title="95% interval", source=source, kind="interval", low=low, high=high)


def column(name: str, title: str | None = None) -> Column:
    """Return a stored column under the usual words."""
    usual, kind = WORDS.get(name, (words(name), "number"))
    return Column(title=title or usual, source=name, kind=kind)


def words(name: str) -> str:
    """Return an identifier as words.

    Examples
    --------
    >>> words("selection_rate")
    'Selection rate'
    """
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def ranks(low: Any, high: Any, rank: Any) -> str:
    """Return the ranks that a feature may have: ``3`` or ``3 to 6``.

    Examples
    --------
    >>> ranks(3, 6, 4), ranks(1, 1, 1), ranks(None, None, 2)
    ('3 to 6', '1', '2')
    """
    if is_number(low) and is_number(high):
        return count(low) if low == high else f"{count(low)} to {count(high)}"
    return count(rank)


def _guess(series: pd.Series[Any], name: str) -> Kind:
    if not pd.api.types.is_numeric_dtype(series) or pd.api.types.is_bool_dtype(series):
        return "text"
    if name.endswith(COUNT_SUFFIXES) or pd.api.types.is_integer_dtype(series):
        return "count"
    return "percent" if name.endswith("_rate") else "number"


def _present(column: Column, frame: pd.DataFrame) -> bool:
    needed = (column.low, column.high) if column.kind == "interval" else (column.source,)
    if not all(c in frame.columns for c in needed):
        return False
    shown = frame[needed[0]]
    return bool((shown.notna() & (shown.astype(object) != "")).any())


def _cells(column: Column, frame: pd.DataFrame, *, labels: Labels) -> list[Text]:
    if column.kind == "interval":
        return _interval_cells(column, frame)
    values = frame[column.source].tolist()
    if column.kind == "rank":
        blank: list[Any] = [None] * len(frame)
        low = frame["rank_low"].tolist() if "rank_low" in frame.columns else blank
        high = frame["rank_high"].tolist() if "rank_high" in frame.columns else blank
        return [(ranks(a, b, v),) for a, b, v in zip(low, high, values, strict=True)]
    if column.kind == "name":
        return [(labels.of(v),) for v in values]
    if column.kind == "text":
        return [_data_text(v) for v in values]
    return [(v,) for v in _number_cells(column, values)]


def _data_text(value: Any) -> Text:
    if isinstance(value, str) and value == "":
        return ("",)
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = tidy(value)
    return (MISSING,) if text == MISSING else (Name(text),)


def _number_cells(column: Column, values: list[Any]) -> list[str]:
    places = decimals(values)
    match column.kind:
        case "count":
            return [count(v) for v in values]
        case "percent":
            return [percent(v, places=1 if len(values) > 1 else 0) for v in values]
        case "p":
            return [p_value(v) for v in values]
        case "word":
            return [MISSING if pd.isna(v) else str(v).replace("_", " ") for v in values]
        case _:
            return [number(v, places=places, sign=column.kind == "signed") for v in values]


def _interval_cells(column: Column, frame: pd.DataFrame) -> list[Text]:
    low, high = frame[column.low].tolist(), frame[column.high].tolist()
    base = frame[column.source].tolist() if column.source in frame.columns else [*low, *high]
    kind = WORDS.get(column.source, ("", "number"))[1]
    if kind == "percent":
        pairs = [_percent_interval(a, b) for a, b in zip(low, high, strict=True)]
    elif pd.api.types.is_numeric_dtype(frame[column.low]):
        places = decimals(base if any(is_number(v) for v in base) else [*low, *high])
        pairs = [interval(a, b, places=places) for a, b in zip(low, high, strict=True)]
    else:
        pairs = [MISSING] * len(frame)
    return [(p,) for p in pairs]


def _percent_interval(low: Any, high: Any) -> str:
    if not (is_number(low) and is_number(high)):
        return MISSING
    return f"{percent(low, places=1)} to {percent(high, places=1)}"


def largest(frame: pd.DataFrame, by: str, *, smallest: bool = False) -> pd.Series[Any]:
    """Return the first row with the largest (or smallest) known value of column ``by``."""
    values = frame[by].to_numpy(dtype=np.float64)
    return frame.iloc[int(np.nanargmin(values) if smallest else np.nanargmax(values))]
