"""A snapshot as plain text for a terminal."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from explain_step.snapshot import Snapshot

TOP = 12
NAME_WIDTH = 40
WIDTH = 80
"""Of a line of prose; rows of a table are as long as they are."""


def summary(snapshot: Snapshot, *, top: int = TOP) -> str:
    """Return status, explained quantity, importances with intervals and shared ranks, performance and scores.

    Parameters
    ----------
    snapshot : Snapshot
    top : int
        Features shown per output.

    Returns
    -------
    str
        Lines without colour or control characters: names from data cannot steer the terminal.
    """
    blocks = [
        _identity(snapshot),
        *_importance(snapshot, top=top),
        _performance(snapshot),
        _scores(snapshot),
        _listed("Missing", (f"{k}: {v['reason']}" for k, v in _missing(snapshot).items())),
        _listed("Caveats", (caveat.message for caveat in snapshot.caveats)),
    ]
    return "\n\n".join(block for block in blocks if block)


def clean(text: object, *, width: int | None = None) -> str:
    r"""Return one line of text without control or direction characters, shortened to ``width``.

    Examples
    --------
    >>> clean("a\x1b[31mb\nc") == "a\ufffd[31mb c", clean("x" * 9, width=5)
    (True, 'xxxx…')
    """
    line = " ".join(str(text).split())
    line = "".join("\ufffd" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in line)
    return line if width is None or len(line) <= width else line[: width - 1] + "…"


def _wrapped(line: str, *, indent: int) -> str:
    """Return lines of at most `WIDTH` columns, all but the first indented; a longer word stays whole."""
    return textwrap.fill(
        line,
        WIDTH,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def number(value: Any) -> str:
    """Return a number with three significant digits; ``-`` where there is none.

    Examples
    --------
    >>> number(0.123456), number(1234567.0), number(None), number(1.2e-9)
    ('0.123', '1,230,000', '-', '1.2e-09')
    """
    if value is None or pd.isna(value):
        return "-"
    value = float(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    short = float(f"{value:.2e}")
    if abs(short) >= 1000:
        return f"{short:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.2g}"
    return f"{short:.{max(0, 2 - math.floor(math.log10(abs(short))))}f}"


def _identity(snapshot: Snapshot) -> str:
    model, quantity = snapshot.model, snapshot.manifest["quantity"]
    name = f"{model.name}, version {model.version}" if model.name else model.model_class or "model"
    lines = [
        _wrapped(f"{snapshot.status}: {clean(snapshot.reason)}", indent=2),
        _wrapped(f"Model     {clean(name)} (same as logged: {model.binding})", indent=10),
        _wrapped(f"Explains  {clean(_sentence(quantity))}", indent=10),
        f"Snapshot  {snapshot.id}",
        f"Made      {clean(snapshot.manifest['created_at'])} by {clean(snapshot.manifest['tool'])}",
    ]
    return "\n".join(lines)


def _sentence(quantity: Any) -> str:
    rows, given = quantity.get("rows"), quantity.get("rows_given")
    count = "the" if rows is None else f"{rows:,}" if given in (None, rows) else f"{rows:,} of {given:,}"
    how = "exactly" if quantity.get("exact") else "estimated"
    if quantity.get("feature_perturbation") == "correlation_dependent":
        how += ", correlation-dependent"
    outputs = quantity.get("outputs", [])
    rest = len(outputs) - 1
    more = f" and {rest} more output{'s' if rest > 1 else ''}" if rest > 0 else ""
    return (
        f"the {quantity.get('phrase', 'output')}{more} for {count} rows, "
        f"against {quantity.get('background', 'a background')}, {how}"
    )


def _importance(snapshot: Snapshot, *, top: int) -> list[str]:
    table = snapshot.tables.get("importance")
    if table is None:
        return []
    blocks = []
    outputs = list(dict.fromkeys(table["output"]))
    for output in outputs:
        part = table[table["output"] == output].sort_values(
            ["mean_abs_shap", "rank", "feature"], ascending=[False, True, True], kind="stable"
        )
        rows = [_importance_row(row) for _, row in part.head(top).iterrows()]
        title = "Importance" if len(outputs) == 1 else f"Importance for {clean(output)}"
        rest = len(part) - top
        note = f"\n  … and {rest} more feature{'s' if rest > 1 else ''}" if rest > 0 else ""
        header = ["rank", "feature", "mean |SHAP|", "95% interval", "share"]
        blocks.append(f"{title}\n{_grid(header, rows)}{note}")
    return blocks


def _importance_row(row: pd.Series[Any]) -> list[str]:
    name = clean(row["feature"], width=NAME_WIDTH)
    return [_rank(row), name, number(row["mean_abs_shap"]), _interval(row), _share(row)]


def _rank(row: pd.Series[Any]) -> str:
    low, high = row.get("rank_low"), row.get("rank_high")
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return f"{int(row['rank'])}"
    return f"{int(low)}" if low == high else f"{int(low)}-{int(high)}"


def _interval(row: pd.Series[Any], low: str = "ci_low", high: str = "ci_high") -> str:
    if pd.isna(row[low]) or pd.isna(row[high]):
        return "-"
    return f"{number(row[low])} to {number(row[high])}"


def _share(row: pd.Series[Any]) -> str:
    share = row.get("share")
    return "-" if share is None or pd.isna(share) else f"{100 * float(share):.0f}%"


def _performance(snapshot: Snapshot) -> str:
    table = snapshot.tables.get("performance")
    if table is None or table.empty:
        return ""
    rows = [[clean(row["metric"]), number(row["value"]), _interval(row)] for _, row in table.iterrows()]
    return f"Performance\n{_grid(['metric', 'value', '95% interval'], rows)}"


def _scores(snapshot: Snapshot) -> str:
    if not snapshot.scores:
        return ""
    rows = []
    for score in snapshot.scores:
        interval = _interval(pd.Series({"ci_low": score.ci_low, "ci_high": score.ci_high}, dtype="float64"))
        rows.append([clean(score.name), clean(score.variant), number(score.value), interval, score.direction])
    return (
        f"Quality of the explanation\n{_grid(['score', 'variant', 'value', '95% interval', 'better'], rows)}"
    )


def _missing(snapshot: Snapshot) -> dict[str, Any]:
    return {k: v for k, v in snapshot.manifest["sections"].items() if v.get("state") == "missing"}


def _listed(title: str, lines: Iterable[str]) -> str:
    shown = [_wrapped(f"  - {clean(line)}", indent=4) for line in lines]
    return "\n".join([title, *shown]) if shown else ""


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return left-aligned names and right-aligned numbers in columns."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    right = {"value", "mean |SHAP|", "share", "95% interval"}
    lines = []
    for line in [header, *rows]:
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(line, widths, header, strict=True)
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
