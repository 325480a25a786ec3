"""What is counted while rows stream by, fixed before the first of them: plain values that survive JSON.

Bins, levels and segments come from a sample (`planning.plan_of`); the rules here tell the group of any further row.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from explain_step import privacy
from explain_step.artifacts import columns, effects, segment_rules
from explain_step.artifacts.segment_evaluation import evaluate
from explain_step.artifacts.segment_expressions import parse
from explain_step.errors import InvalidInput
from explain_step.types import FloatArray, IntArray, OutputSpace

VERSION = 3
OUTPUT = "output"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """A rule that gives every row one of several levels.

    Attributes
    ----------
    kind : {"numbers", "days", "years", "levels", "expression", "output"}
    source : str
        The column, or the expression.
    edges : tuple of float
        Where numbers, days or the first output are cut; a value on an edge belongs to the bin above it (of the output:
        below it).
    levels : tuple of str
        Names; of ``numbers`` and ``days`` the last one is that of missing values.
    """

    kind: Literal["numbers", "days", "years", "levels", "expression", "output"]
    source: str
    edges: tuple[float, ...] = ()
    levels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """A partition of the rows: one cut, or the intersection of several.

    Attributes
    ----------
    cells : tuple of tuple of int
        One level of every cut, then the segment's level. Rows of other cells are in group ``len(levels)``, or in
        level ``rest`` where the segment has one for them.
    origin, columns, margins
        See `segment_rules.Partition`.
    """

    name: str
    levels: tuple[str, ...]
    cuts: tuple[Cut, ...]
    cells: tuple[tuple[int, ...], ...]
    rest: int | None
    origin: segment_rules.Origin
    columns: tuple[str, ...]
    margins: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """The points of one feature's dependence curve.

    Attributes
    ----------
    grid : tuple of float
        Grid points of a numeric column.
    ends : tuple of int
        Positions in ``grid`` of the bins' ends; empty where each grid point is a value of its own.
    density : tuple of float
        Edges of the density's bins.
    levels : tuple of str
        Names of levels, of a column that has no numbers.
    """

    feature: str
    grid: tuple[float, ...] = ()
    ends: tuple[int, ...] = ()
    density: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()

    @property
    def groups(self) -> int:
        """Number of groups without the last one, which is that of missing values or of other levels."""
        if self.levels:
            return len(self.levels)
        return len(self.ends) - 1 if self.ends else len(self.grid)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """What is summed of the model's performance.

    Attributes
    ----------
    metrics : tuple of str
        Names of the metrics, the chosen one first; none without labels.
    losses : tuple of str
        Those that are a function of a mean over rows.
    centres, scales : tuple of float
        Near the mean and the spread of each loss, so that sums of cubes do not cancel.
    targets : tuple of float
        The same for each target; empty where R² is not asked for.
    classes : bool
        Whether true and said classes are counted.
    edges : tuple of tuple of float, optional
        Where the scores of each ROC curve (`metrics.curves`) are cut into ranges that are sorted on their own; None where
        areas are not asked for.
    bounded : tuple of bool
        Whether the scores of each curve are in [0, 1].
    """

    metrics: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    centres: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    targets: tuple[float, ...] = ()
    classes: bool = False
    edges: tuple[tuple[float, ...], ...] | None = None
    bounded: tuple[bool, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything that blocks of rows are asked for.

    Attributes
    ----------
    scale : tuple of float
        What each output's |SHAP| is divided by before outputs are averaged.
    views : tuple of (label, names, members)
        Ways to count columns: single features, declared groups, clusters; ``members`` are feature positions.
    pairs : tuple of (int, int)
        Output and feature positions that segments report.
    weighted : bool
        Whether rows have weights.
    sample_rows, measured_rows : int
        Rows of the sample, and rows that performance is of and segments were cut on: those of the sample, or all.
    kept : tuple of str
        Segments and curves that cannot be told from a rule; they keep the sample's numbers.
    measure : Measure, optional
        What is summed of performance, where it is not of all rows already.
    """

    features: tuple[str, ...]
    outputs: tuple[str, ...]
    output_space: OutputSpace
    scale: tuple[float, ...]
    views: tuple[tuple[str, tuple[str, ...], tuple[tuple[int, ...], ...]], ...]
    pairs: tuple[tuple[int, int], ...]
    segments: tuple[Segment, ...]
    curves: tuple[Curve, ...]
    weighted: bool
    seed: int
    sample_rows: int
    measured_rows: int
    kept: tuple[str, ...] = ()
    measure: Measure | None = None
    version: int = VERSION

    def to_json(self) -> str:
        """Return the plan as strict JSON text."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False, ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> Plan:
        """Return the plan that `to_json` wrote.

        Raises
        ------
        InvalidInput
            The text is of another version.
        """
        found = _tuples(json.loads(text))
        if found.get("version") != VERSION:
            msg = (
                f"A streaming plan must be of version {VERSION}, got {found.get('version')!r}; make it anew."
            )
            raise InvalidInput(msg)
        segments = (
            Segment(**{**s, "cuts": tuple(Cut(**cut) for cut in s["cuts"])}) for s in found["segments"]
        )
        curves = (Curve(**curve) for curve in found["curves"])
        measure = None if found["measure"] is None else Measure(**found["measure"])
        return Plan(**{**found, "segments": tuple(segments), "curves": tuple(curves), "measure": measure})


def _tuples(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_tuples(v) for v in value)
    return {k: _tuples(v) for k, v in value.items()} if isinstance(value, dict) else value


def cut_codes(cut: Cut, frame: pd.DataFrame, *, output: FloatArray) -> IntArray:
    """Return the level of each row of ``frame``; ``len(cut.levels)`` for a level that the cut does not name.

    Parameters
    ----------
    output : ndarray of shape (n, k)
        The model's outputs.
    """
    if cut.kind == "output":
        return np.asarray(output[:, 0] > cut.edges[0], dtype=np.int64)
    if cut.kind == "expression":
        return np.where(evaluate(parse(cut.source, list(frame.columns)), frame), 0, 1).astype(np.int64)
    series = frame[cut.source]
    if cut.kind in ("numbers", "days"):
        numbers = segment_rules.plain_numbers(series, kind=cut.kind)
        codes = np.searchsorted(np.asarray(cut.edges), numbers, side="right").astype(np.int64)
        return np.where(np.isnan(numbers), len(cut.levels) - 1, codes)
    if cut.kind == "years":
        series = series.dt.year.astype("Int64")
    return level_codes(series, cut.levels)


def level_codes(series: pd.Series[Any], levels: tuple[str, ...]) -> IntArray:
    """Return each cell's position among named levels: those without a name are `privacy.OTHER`, or the last, unnamed."""
    other = levels.index(privacy.OTHER) if privacy.OTHER in levels else len(levels)
    found = pd.Index(levels).get_indexer(pd.Index(privacy.level_names(series)))
    return np.where(found < 0, other, found).astype(np.int64)


def segment_codes(segment: Segment, frame: pd.DataFrame, *, output: FloatArray) -> IntArray:
    """Return each row's level of a segment; ``len(segment.levels)`` for rows that the sample had none like."""
    sizes = [len(cut.levels) + 1 for cut in segment.cuts]
    table = np.full(int(np.prod(sizes)), len(segment.levels) if segment.rest is None else segment.rest)
    for *cell, level in segment.cells:
        table[np.ravel_multi_index(cell, sizes)] = level
    codes = [cut_codes(cut, frame, output=output) for cut in segment.cuts]
    return np.asarray(table[np.ravel_multi_index(codes, sizes)], dtype=np.int64)


def curve_codes(curve: Curve, series: pd.Series[Any]) -> tuple[IntArray, FloatArray | None]:
    """Return each row's group on a curve, and the column's numbers where it has any."""
    if curve.levels:
        return level_codes(series, curve.levels), None
    values, grid = columns.numbers(series), np.asarray(curve.grid)
    if curve.ends:
        raw = np.clip(np.searchsorted(grid, np.nan_to_num(values), side="right") - 1, 0, len(grid) - 2)
        codes = np.searchsorted(np.asarray(curve.ends), raw, side="right") - 1
    else:
        codes = effects.nearest(values, grid)
    return np.where(np.isnan(values), curve.groups, codes).astype(np.int64), values
