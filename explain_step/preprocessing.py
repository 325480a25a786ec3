"""Provenance through a Pipeline: which one raw column each derived column comes from.

The answer is read from the steps (structure) and then checked on rows (changing raw columns may change only
derived columns that claim to come from them). Where a step mixes columns there is no answer and the Pipeline
is a black box.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.types import IntArray, Preprocessing

CHECK_ROWS = 64
ONE_TO_ONE = frozenset(
    {"Binarizer", "MaxAbsScaler", "MinMaxScaler", "OrdinalEncoder", "PowerTransformer", "QuantileTransformer"}
    | {"RobustScaler", "StandardScaler"}
)
Prepare = Callable[[pd.DataFrame], Any]


class _MixedError(Exception):
    """A step mixes raw columns; the text says which."""


def chain(steps: Sequence[Any]) -> Callable[[Any], Any]:
    """Return the composition of the fitted transformers' ``transform``."""

    def front(rows: Any) -> Any:
        for step in steps:
            rows = step.transform(rows)
        return rows

    return front


def trace(
    steps: Sequence[Any], *, prepare: Prepare, frame: pd.DataFrame
) -> tuple[Preprocessing | None, str | None]:
    """Return the steps as `Preprocessing`, or None and why attributions cannot be folded back through them.

    Parameters
    ----------
    steps : sequence of fitted transformers
        What stands before the final estimator.
    prepare : callable
        Frame of raw rows to what the first step was trained on.
    frame : DataFrame
        Rows of the model's raw columns, on which the structure is checked; a spread sample of them is used.

    Examples
    --------
    >>> from sklearn.preprocessing import OneHotEncoder
    >>> X = pd.DataFrame({"size": ["s", "m", "s"], "color": ["red", "red", "blue"]})
    >>> trace([OneHotEncoder().fit(X)], prepare=lambda rows: rows, frame=X)[0].sources
    (0, 0, 1, 1)
    """
    sample = frame.iloc[_spread(len(frame))]
    rows, sources = prepare(sample), list(range(frame.shape[1]))
    front = chain(steps)
    try:
        for step in steps:
            rows, sources = _step(step, rows, sources)
        wrong = _contradiction(
            lambda raw: front(prepare(raw)), sample, sources=np.array(sources, dtype=np.int64)
        )
    except _MixedError as mixed:
        return None, str(mixed)
    except Exception as error:  # noqa: BLE001 - a transformer raises what it likes; the model, asked next, says it with a remedy
        return None, f"a step before it raises on some of the rows ({type(error).__name__})"
    if wrong is not None:
        return None, wrong
    return Preprocessing(transform=lambda raw: front(prepare(raw)), sources=tuple(sources)), None


def unread_columns(step: Any) -> frozenset[str]:
    """Return names of columns that a fitted ColumnTransformer drops: they may be absent from the rows."""
    if type(step).__name__ != "ColumnTransformer" or not hasattr(step, "feature_names_in_"):
        return frozenset()
    labels = [str(label) for label in step.feature_names_in_]
    blocks = _column_blocks(step, labels)
    read = {
        k for _, transformer, _, positions in blocks if not _is_word(transformer, "drop") for k in positions
    }
    return frozenset(label for position, label in enumerate(labels) if position not in read)


def _spread(n: int) -> IntArray:
    """Return up to CHECK_ROWS row positions spread evenly over n rows."""
    return np.unique(np.linspace(0, n - 1, CHECK_ROWS).astype(np.int64))


# --- structure


def _step(step: Any, rows: Any, sources: list[int]) -> tuple[Any, list[int]]:
    """Transform the sample by one step and follow the sources: one entry per derived column."""
    if step is None or _is_word(step, "passthrough"):
        return rows, sources
    name = type(step).__name__
    if name == "Pipeline":
        for _, inner in step.steps:
            rows, sources = _step(inner, rows, sources)
        return rows, sources
    derived = step.transform(rows)
    if name == "ColumnTransformer":
        found = _column_transformer(step, rows, sources)
    elif name == "FeatureUnion":
        found = _feature_union(step, rows, sources)
    else:
        found = _sources(step, sources, count=_width(derived))
    if len(found) != _width(derived):
        msg = f"{name} makes {_width(derived)} columns where its parts explain {len(found)}"
        raise _MixedError(msg)
    return derived, found


def _sources(step: Any, sources: list[int], *, count: int) -> list[int]:
    """Return the sources of the columns that one plain transformer derives."""
    name = type(step).__name__
    if name in ONE_TO_ONE or (name == "FunctionTransformer" and step.func is None):
        return sources
    if hasattr(step, "get_support"):
        return [source for source, kept in zip(sources, step.get_support(), strict=True) if kept]
    if name in REPEATS:
        counts = REPEATS[name](step, len(sources), count)
        return [source for source, times in zip(sources, counts, strict=True) for _ in range(times)]
    if name == "SimpleImputer":
        return _imputed(step, sources)
    if name == "MissingIndicator":
        return [sources[k] for k in step.features_]
    if len(set(sources)) == 1:  # whatever it does, everything comes from one raw column
        return [sources[0]] * count
    msg = f"{name} derives columns from several raw columns at once"
    raise _MixedError(msg)


def _one_hot(step: Any, width: int, count: int) -> list[int]:
    dropped = getattr(step, "drop_idx_", None)
    pooled = getattr(step, "infrequent_categories_", [None] * width)
    counts = []
    for k, levels in enumerate(step.categories_):
        rare = pooled[k]
        kept = len(levels) if rare is None else len(levels) - len(rare) + 1
        counts.append(kept - (dropped is not None and dropped[k] is not None))
    return counts


def _binned(step: Any, width: int, count: int) -> list[int]:
    return [1] * width if step.encode == "ordinal" else [int(bins) for bins in step.n_bins_]


def _evenly(step: Any, width: int, count: int) -> list[int]:
    """Return equal numbers of columns per input (splines; one column per class of a target encoder)."""
    return [count // width] * width


REPEATS: dict[str, Callable[[Any, int, int], list[int]]] = {
    "KBinsDiscretizer": _binned,
    "OneHotEncoder": _one_hot,
    "SplineTransformer": _evenly,
    "TargetEncoder": _evenly,
}


def _imputed(step: Any, sources: list[int]) -> list[int]:
    """Drop columns without any value (unless kept on purpose); indicators of missing values come last."""
    dropped = np.asarray(pd.isna(step.statistics_)) & (not getattr(step, "keep_empty_features", False))
    kept = [source for source, gone in zip(sources, dropped, strict=True) if not gone]
    return kept + ([] if step.indicator_ is None else [sources[k] for k in step.indicator_.features_])


def _column_transformer(step: Any, rows: Any, sources: list[int]) -> list[int]:
    named = isinstance(rows, pd.DataFrame) and hasattr(step, "feature_names_in_")
    labels = [str(c) for c in step.feature_names_in_] if named else [str(k) for k in range(rows.shape[1])]
    # columns that are dropped may be absent from the rows, so positions go through the names
    where = {str(label): k for k, label in enumerate(rows.columns)} if named else {}
    found: list[int] = []
    for name, transformer, flat, fitted_positions in _column_blocks(step, labels):
        block = step.output_indices_[name]
        if block.stop <= block.start:
            continue
        positions = [where[labels[k]] for k in fitted_positions] if named else fitted_positions
        part = _slice(rows, positions, flat=flat)
        found += _step(transformer, part, [sources[k] for k in positions])[1]
    return found


def _column_blocks(step: Any, labels: list[str]) -> list[tuple[str, Any, bool, list[int]]]:
    """Return name, transformer, whether it gets one flat column, and column positions of each part.

    The remainder is what the others leave: its own list warns when scikit-learn 1.5 and 1.6 are asked for it.
    """
    declared = step.transformers_[: len(step.transformers)]
    blocks = [
        (name, transformer, isinstance(columns, str | int), _positions(columns, labels))
        for name, transformer, columns in declared
    ]
    taken = {k for *_, positions in blocks for k in positions}
    rest = [k for k in range(len(labels)) if k not in taken]
    return blocks + [
        (name, transformer, False, rest) for name, transformer, _ in step.transformers_[len(declared) :]
    ]


def _feature_union(step: Any, rows: Any, sources: list[int]) -> list[int]:
    found: list[int] = []
    for _, transformer in step.transformer_list:
        if not _is_word(transformer, "drop"):
            found += _step(transformer, rows, sources)[1]
    return found


def _positions(columns: Any, labels: list[str]) -> list[int]:
    """Return positions of a ColumnTransformer's column specification: names, positions, a slice or a mask."""
    if isinstance(columns, str):
        return [labels.index(columns)]
    if isinstance(columns, int | np.integer):
        return [int(columns)]
    if isinstance(columns, slice):
        ends = [labels.index(end) if isinstance(end, str) else end for end in (columns.start, columns.stop)]
        stop = ends[1] + 1 if isinstance(columns.stop, str) else ends[1]  # a slice of names includes its end
        return list(range(len(labels)))[slice(ends[0], stop, columns.step)]
    listed = list(columns)
    if listed and all(isinstance(entry, bool | np.bool_) for entry in listed):
        return [k for k, chosen in enumerate(listed) if chosen]
    return [labels.index(entry) if isinstance(entry, str) else int(entry) for entry in listed]


def _slice(rows: Any, positions: list[int], *, flat: bool) -> Any:
    """Return columns by position; one column alone where a single name asked for it."""
    if isinstance(rows, pd.DataFrame):
        return rows.iloc[:, positions[0]] if flat else rows.iloc[:, positions]
    return rows[:, positions[0]] if flat else rows[:, positions]


def _is_word(step: Any, word: str) -> bool:
    return isinstance(step, str) and step == word


def _width(derived: Any) -> int:
    shape: tuple[int, ...] = getattr(derived, "shape", (0,))
    return int(shape[1]) if len(shape) == 2 else 1


# --- check on rows


def _contradiction(
    transform: Callable[[pd.DataFrame], Any], sample: pd.DataFrame, *, sources: IntArray
) -> str | None:
    """Return what contradicts the claimed sources on these rows, or None.

    Raw columns are shuffled in 2 log2(width) sets (those with bit b of their position set, and the others):
    a derived column that depends on any second column changes in a set that does not hold its claimed source.
    """
    base = transform(sample)
    shape = (len(sample), len(sources))
    if (len(sample), _width(base)) != shape or base.shape[0] != len(sample):
        return f"the steps make {base.shape} values where {shape} are explained"
    shuffled = sample.iloc[np.random.default_rng(0).permutation(len(sample))].set_axis(sample.index, axis=0)
    for chosen in _bit_sets(sample.shape[1]):
        # column by column this would take minutes on wide frames: blocks are joined, then put in order
        blocks = pd.concat(
            [shuffled.iloc[:, np.flatnonzero(chosen)], sample.iloc[:, np.flatnonzero(~chosen)]], axis=1
        )
        mixed = blocks.iloc[:, np.argsort(np.argsort(~chosen, kind="stable"))]
        moved = _moved(transform(mixed), base)
        stray = moved[~chosen[sources[moved]]]
        if len(stray):
            return f"derived column {stray[0]} depends on more than the raw column it seems to come from"
    return None


def _bit_sets(width: int) -> list[npt.NDArray[np.bool_]]:
    position = np.arange(width)
    bits = [(position >> b) & 1 == 1 for b in range((width - 1).bit_length())]
    return [chosen for bit in bits for chosen in (bit, ~bit)]


def _moved(after: Any, before: Any) -> IntArray:
    """Return positions of the derived columns that differ in any row; missing equals missing."""
    if hasattr(before, "tocsc"):
        differs = (_without_nan(after) != _without_nan(before)).tocsc()
        return np.flatnonzero(np.diff(differs.indptr))
    a, b = (_objects(derived) for derived in (after, before))
    return np.flatnonzero((a != b).any(axis=0))


def _without_nan(matrix: Any) -> Any:
    plain = matrix.tocsr().copy()
    plain.data = np.nan_to_num(plain.data, nan=np.finfo(np.float64).max)
    return plain


def _objects(derived: Any) -> npt.NDArray[Any]:
    """Return values that compare: numbers, or objects with None for missing."""
    array = derived.astype(object).to_numpy() if isinstance(derived, pd.DataFrame) else np.asarray(derived)
    array = array.reshape(len(array), -1)
    if array.dtype == object:
        array = array.copy()
        array[np.asarray(pd.isna(array))] = None
        return array
    return np.nan_to_num(array.astype(np.float64), nan=np.finfo(np.float64).max)
