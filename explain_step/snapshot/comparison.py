"""Compare tables of one snapshot with recomputed ones, by a tolerance that was recorded before.

Classes
-------
============ ==============================================================================================
bytes        the same bytes (configuration, descriptions of data)
exact        the same floating-point numbers; where they are not, judged as ``numeric``, and told
numeric      ``|a - b| <= absolute + relative * scale``; ``scale`` is the largest magnitude of the recorded column
             within one output (of all attributions of that output together), so small numbers are not asked for more
             digits than the sums they come from
statistical  ``|a - b| <= 4`` combined standard errors, for work that a time budget cut; never called reproduced
visual       figures and pages: the tables they show are compared, their bytes are only told
============ ==============================================================================================

Text, truth values, missing values and infinities have to be the same in every class but ``statistical``. Rows may stand
in another order where their text tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from explain_step.types import FloatArray, IntArray

ToleranceClass = Literal["bytes", "exact", "numeric", "statistical", "visual"]
ReplayVerdict = Literal["identical", "within_tolerance", "consistent", "not_replayable", "different"]
VERDICTS: tuple[ReplayVerdict, ...] = (
    "identical",
    "within_tolerance",
    "consistent",
    "not_replayable",
    "different",
)
"""From best to worst."""
EXACT_METHODS = ("tree_interventional",)
"""Methods whose numbers do not depend on the order in which a linear-algebra library adds."""
STANDARD_ERRORS = 4.0
NORMAL_95 = 1.959963984540054
NUMBERS_AS_TEXT = frozenset({"y_true", "y_pred", "feature_value", "standard_error"})
"""Columns of text that may hold numbers; they are compared as numbers where all of them are."""
POOLED = ("shap:", "prediction", "base_value")


@dataclass(frozen=True, kw_only=True, slots=True)
class Tolerance:
    """How far a recomputed table may be from the recorded one.

    Attributes
    ----------
    kind : {"exact", "numeric", "statistical"}
    absolute, relative : float
        Of the numeric rule, on the same versions and processor.
    elsewhere : float
        ``relative`` on other versions or another processor, where single precision may round otherwise.
    """

    kind: ToleranceClass = "numeric"
    absolute: float = 1e-9
    relative: float = 1e-7
    elsewhere: float = 1e-5

    def record(self) -> dict[str, Any]:
        """Return the tolerance as the manifest has it."""
        return {
            "class": self.kind,
            "absolute": self.absolute,
            "relative": self.relative,
            "relative_elsewhere": self.elsewhere,
        }


DEFAULT = Tolerance()
"""For tables of snapshots that recorded none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableComparison:
    """What came out for one table.

    Attributes
    ----------
    name : str
    verdict : {"identical", "within_tolerance", "consistent", "not_replayable", "different"}
    kind : str
        The tolerance class that was used.
    reason : str
        What differs most, in words; empty for ``identical``.
    largest : float, optional
        Largest absolute difference of a number; None where no number differs or rows cannot be matched.
    column : str, optional
        Where it is.
    """

    name: str
    verdict: ReplayVerdict
    kind: ToleranceClass
    reason: str = ""
    largest: float | None = None
    column: str | None = None


def choose_tolerance(method: str | None, *, cut: bool) -> Tolerance:
    """Return the tolerance of a table when it is written.

    Parameters
    ----------
    method : str, optional
        Name of the attribution method that the table rests on.
    cut : bool
        A time budget cut the work: another machine reaches another number of evaluations.
    """
    if cut:
        return Tolerance(kind="statistical")
    return Tolerance(kind="exact" if method in EXACT_METHODS else "numeric")


def recorded_tolerance(entry: Mapping[str, Any]) -> Tolerance:
    """Return the tolerance in a table's entry of the manifest; `DEFAULT` where there is none.

    A recorded tolerance that is no finite, small number counts as not recorded: it would let everything pass.
    """
    record = entry.get("tolerance")
    if not isinstance(record, Mapping) or record.get("class") not in ("exact", "numeric", "statistical"):
        return DEFAULT
    numbers = [record.get(key) for key in ("absolute", "relative", "relative_elsewhere")]
    if not all(type(n) in (int, float) and 0 <= n <= 1e-3 for n in numbers):  # type: ignore[operator]
        return DEFAULT
    absolute, relative, elsewhere = (float(n) for n in numbers)  # type: ignore[arg-type]
    return Tolerance(kind=record["class"], absolute=absolute, relative=relative, elsewhere=elsewhere)


def worst(verdicts: Sequence[ReplayVerdict]) -> ReplayVerdict:
    """Return the worst of some verdicts; ``not_replayable`` of none.

    Examples
    --------
    >>> worst(["identical", "within_tolerance"])
    'within_tolerance'
    """
    return max(verdicts, key=VERDICTS.index) if verdicts else "not_replayable"


def compare_table(
    recorded: pd.DataFrame,
    replayed: pd.DataFrame,
    *,
    name: str,
    tolerance: Tolerance = DEFAULT,
    same_environment: bool = True,
) -> TableComparison:
    """Compare a recomputed table with the recorded one.

    Parameters
    ----------
    recorded, replayed : DataFrame
        As read back from a snapshot: text, truth values, numbers, times.
    name : str
    tolerance : Tolerance
    same_environment : bool
        Whether versions of the libraries and the processor are the recorded ones.

    Examples
    --------
    >>> a = pd.DataFrame({"feature": ["age"], "mean_abs_shap": [0.5]})
    >>> compare_table(a, a.assign(mean_abs_shap=0.5 + 1e-12), name="importance").verdict
    'within_tolerance'
    >>> compare_table(a, a.assign(mean_abs_shap=0.6), name="importance").reason
    'mean_abs_shap differs by up to 0.1, allowed is 5.1e-08'
    """

    def result(verdict: ReplayVerdict, reason: str = "", **more: Any) -> TableComparison:
        return TableComparison(name=name, verdict=verdict, kind=tolerance.kind, reason=reason, **more)

    lacking = [c for c in recorded.columns if c not in replayed.columns]
    if lacking:
        return result("different", f"the replay has no column {', '.join(lacking[:5])}")
    replayed = replayed[list(recorded.columns)]
    if _same(recorded, replayed):
        return result("identical")
    numeric = _numeric_columns(recorded, replayed)
    if tolerance.kind == "statistical":
        return _statistical(recorded, replayed, numeric=numeric, result=result)
    if len(recorded) != len(replayed):
        return result("different", f"{len(recorded)} rows were recorded, the replay has {len(replayed)}")
    aligned = _aligned(recorded, replayed, numeric=numeric)
    if aligned is None:
        column, said = _other_text(recorded, replayed, numeric=numeric)
        return result("different", said, column=column)
    allowed = tolerance.relative if same_environment else tolerance.elsewhere
    return _numeric(
        recorded, aligned, numeric=numeric, absolute=tolerance.absolute, relative=allowed, result=result
    )


_Result = Callable[..., TableComparison]


def _same(a: pd.DataFrame, b: pd.DataFrame) -> bool:
    """Tell whether two tables hold the same values in the same order, bit for bit (-0.0 is 0.0)."""
    return len(a) == len(b) and all(_equal(a.iloc[:, k], b.iloc[:, k]).all() for k in range(a.shape[1]))


def _equal(a: pd.Series[Any], b: pd.Series[Any]) -> Any:
    missing = a.isna().to_numpy(dtype=bool), b.isna().to_numpy(dtype=bool)
    left, right = a.to_numpy(dtype=object), b.to_numpy(dtype=object)
    return (missing[0] & missing[1]) | (~missing[0] & ~missing[1] & (left == right))


def _numeric_columns(a: pd.DataFrame, b: pd.DataFrame) -> list[str]:
    return [c for c in a.columns if _is_numeric(a[c], name=c) and _is_numeric(b[c], name=c)]


def _is_numeric(column: pd.Series[Any], *, name: str) -> bool:
    if pd.api.types.is_bool_dtype(column.dtype):
        return False
    if pd.api.types.is_numeric_dtype(column.dtype) or column.isna().all():
        return True
    texts = column.dropna()
    return name in NUMBERS_AS_TEXT and bool(pd.to_numeric(texts, errors="coerce").notna().all())


def _numbers(column: pd.Series[Any]) -> FloatArray:
    return np.asarray(pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan))


def _words(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return text as it is, and everything else apart from any text: a missing value is not the word ``None``."""
    plain = column.astype(object).where(column.notna(), None)
    return plain.map(lambda value: value if isinstance(value, str) else f"\0{'' if value is None else value}")


def _keys(table: pd.DataFrame, *, without: Sequence[str]) -> pd.MultiIndex:
    """Return what tells rows apart: their text, and the how-manieth row of that text they are."""
    words = table.drop(columns=list(without)).apply(_words)
    if words.shape[1] == 0:
        return pd.MultiIndex.from_arrays([np.arange(len(table))])
    turn = words.groupby(list(words.columns), sort=False).cumcount()
    return pd.MultiIndex.from_arrays([*(words[c] for c in words.columns), turn])


def _places(a: pd.DataFrame, b: pd.DataFrame, *, without: Sequence[str]) -> IntArray:
    """Return for each row of ``a`` where it is in ``b``, by all columns but some; -1 where it is not."""
    found = _keys(b, without=without).get_indexer(_keys(a, without=without))
    return np.asarray(found, dtype=np.int64)


def _other_text(a: pd.DataFrame, b: pd.DataFrame, *, numeric: Sequence[str]) -> tuple[str, str]:
    """Return the column whose text is another one, and what is said of it.

    Rows that are in both are set aside; the others are matched by all columns but one where that is possible, else
    they are taken as they stand.
    """
    places = _places(a, b, without=numeric)
    lost = np.flatnonzero(places < 0)
    left = np.setdiff1d(np.arange(len(b)), places)
    texts = [c for c in a.columns if c not in numeric]
    for column in texts if len(texts) > 1 else ():
        among = _places(a.iloc[lost], b.iloc[left], without=[*numeric, column])
        if (among >= 0).all():
            places[lost] = left[among]
            return column, _said(a, b.iloc[places].reset_index(drop=True), [column], lost=len(lost))
    changed = [c for c in texts if (_words(a[c]).to_numpy() != _words(b[c]).to_numpy()).any()]
    return changed[0], _said(a, b, changed, lost=len(lost))


def _said(a: pd.DataFrame, b: pd.DataFrame, columns: Sequence[str], *, lost: int) -> str:
    column = columns[0]
    other = np.flatnonzero(_words(a[column]).to_numpy() != _words(b[column]).to_numpy())
    at = int(other[0])
    beside = [f"{k}={v}" for k, v in a.iloc[at].items() if isinstance(v, str) and k != column]
    where = f"row {at}" + (f" ({', '.join(beside)[:120]})" if beside else "")
    now, before = _shown(b[column].iloc[at]), _shown(a[column].iloc[at])
    more = f"; {', '.join(map(str, columns[1:4]))} too, {lost} rows in all" if len(columns) > 1 else ""
    return f"{column} is another text in {len(other)} of {len(a)} rows, first in {where}: {now}, recorded {before}{more}"


def _shown(value: Any) -> str:
    return "nothing" if pd.isna(value) else repr(value)[:80]


def _aligned(a: pd.DataFrame, b: pd.DataFrame, *, numeric: Sequence[str]) -> pd.DataFrame | None:
    """Return ``b`` with its rows in the order of ``a``; None where their text differs."""
    places = _places(a, b, without=numeric)
    return None if (places < 0).any() else b.iloc[places].reset_index(drop=True)


def _groups(table: pd.DataFrame) -> Iterator[Any]:
    """Yield the rows of each output: outputs may have other units."""
    if "output" not in table.columns:
        yield np.arange(len(table))
        return
    yield from table.groupby("output", sort=False, dropna=False).indices.values()


def _pool(name: str) -> str:
    """Return which columns are measured on one scale."""
    return "attributions" if name.startswith(POOLED[0]) or name in POOLED[1:] else name


def _scales(table: pd.DataFrame, rows: Any, *, numeric: Sequence[str]) -> dict[str, float]:
    pooled = {c for c in table.columns if str(c).startswith(POOLED[0])}
    scales: dict[str, float] = {}
    for column in numeric:
        values = np.abs(_numbers(table[column])[rows])
        finite = values[np.isfinite(values)]
        pool = _pool(column) if pooled else column
        scales[pool] = max(scales.get(pool, 0.0), float(finite.max()) if finite.size else 0.0)
    return {column: scales[_pool(column) if pooled else column] for column in numeric}


def _numeric(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    numeric: Sequence[str],
    absolute: float,
    relative: float,
    result: _Result,
) -> TableComparison:
    found: tuple[float, str, float, float] = (-1.0, "", 0.0, 0.0)  # ratio, column, gap, allowed
    for rows in _groups(a):
        scales = _scales(a, rows, numeric=numeric)
        for column in numeric:
            ours, theirs = _numbers(a[column])[rows], _numbers(b[column])[rows]
            if not np.array_equal(np.isnan(ours), np.isnan(theirs)):
                at = rows[int(np.argmax(np.isnan(ours) != np.isnan(theirs)))]
                said = f"{column} has missing values in other rows, first in row {at}"
                return result("different", said, column=column)
            gap = _gap(ours, theirs)
            allowed = absolute + relative * scales[column]
            if gap > 0:
                found = max(found, (gap / allowed, column, gap, allowed))
    ratio, column, gap, allowed = found
    if ratio < 0:
        return result(
            "within_tolerance", "the same rows in another order, or the same numbers spelled otherwise"
        )
    said = f"{column} differs by up to {gap:.2g}, allowed is {allowed:.2g}"
    verdict: ReplayVerdict = "within_tolerance" if ratio <= 1 else "different"
    return result(verdict, said, largest=gap if np.isfinite(gap) else None, column=column)


def _gap(ours: FloatArray, theirs: FloatArray) -> float:
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        gaps = np.abs(ours - theirs)[~same]
    return float(gaps.max()) if np.isfinite(gaps).all() else float("inf")


def _statistical(
    a: pd.DataFrame, b: pd.DataFrame, *, numeric: Sequence[str], result: _Result
) -> TableComparison:
    """Judge the rows that both have, where a standard error or an interval tells how far they may be apart."""
    places = _places(a, b, without=numeric)
    a, b = a[places >= 0], b.iloc[places[places >= 0]]
    judged, ratio, where, gap = 0, 0.0, "", 0.0
    for column in numeric:
        errors = _standard_error(a, column), _standard_error(b, column)
        if errors[0] is None or errors[1] is None:
            continue
        difference = np.abs(_numbers(a[column]) - _numbers(b[column]))
        allowed = STANDARD_ERRORS * np.hypot(errors[0], errors[1]) + DEFAULT.absolute
        known = np.isfinite(difference) & np.isfinite(allowed)
        judged += int(known.sum())
        if known.any() and float((difference[known] / allowed[known]).max()) > ratio:
            ratio = float((difference[known] / allowed[known]).max())
            where, gap = column, float(difference[known].max())
    if not judged:
        why = "a time budget cut the work, and no standard error tells how far these numbers may be apart"
        return result("not_replayable", why)
    said = f"{judged} numbers, at most {STANDARD_ERRORS * ratio:.2g} standard errors apart ({where or 'all'})"
    return result(
        "consistent" if ratio <= 1 else "different", said, largest=gap or None, column=where or None
    )


def _standard_error(table: pd.DataFrame, column: str) -> FloatArray | None:
    """Return the standard errors beside a column of estimates; None where there are none."""
    if column.startswith(POOLED[0]):
        beside = f"standard_error:{column.removeprefix(POOLED[0])}"
        return _numbers(table[beside]) if beside in table.columns else None
    if column in ("mean_abs_shap", "value", "strength"):
        low, high = "ci_low", "ci_high"
    elif column == "permutation_importance":
        low, high = "permutation_ci_low", "permutation_ci_high"
    elif column in ("difference", "share"):
        low, high = f"{column}_ci_low", f"{column}_ci_high"
    else:
        return None
    if not {low, high} <= set(table.columns):
        return None
    return np.asarray((_numbers(table[high]) - _numbers(table[low])) / (2 * NORMAL_95))
