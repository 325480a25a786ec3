"""Tree ensembles in one form, whatever library grew them: splits, leaf values and a constant.

The parsers (`ensembles_xgboost`, `ensembles_lightgbm`, `ensembles_catboost`, `ensembles_sklearn`) read each library's
own format and turn every split into one rule on float64 values: *left if value <= threshold*, or *left if the category
is in a set*, with a stated side for missing values. What a library does before it compares (rounding to
float32, category codes, zeros that mean missing) happens in `Ensemble.encode`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.errors import NotApplicable
from explain_step.types import FittedModel, FloatArray, IntArray, frozen_array

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class CategorySplit:
    """A split on a category code.

    Attributes
    ----------
    left : ndarray of bool
        For the codes 0, 1, ...: does the category go left?
    other_left : bool
        Side of codes outside that range.
    """

    left: BoolArray
    other_left: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """One tree; node 0 is the root.

    Attributes
    ----------
    left, right : ndarray of shape (nodes,)
        Children; -1 at leaves.
    column : ndarray of shape (nodes,)
        Row of the encoded matrix that the node splits on; -1 at leaves.
    threshold : ndarray of shape (nodes,)
        Left if value <= threshold. NaN: never.
    missing_left : ndarray of shape (nodes,)
        Side of missing values.
    values : ndarray of shape (nodes, len(outputs))
        Leaf values as they enter the sum: learning rate, weights and averaging included.
    cover : ndarray of shape (nodes,)
        Training weight that reached the node (path-dependent values only).
    outputs : tuple of int
        The outputs that the tree adds to.
    categories : mapping of int to CategorySplit
        Nodes that split on categories.
    split : ndarray of shape (nodes,)
        Row of the node in the decision matrix; made here.
    """

    left: IntArray
    right: IntArray
    column: IntArray
    threshold: FloatArray
    missing_left: BoolArray
    values: FloatArray
    cover: FloatArray
    outputs: tuple[int, ...]
    categories: Mapping[int, CategorySplit] = field(default_factory=dict)
    split: IntArray = field(init=False)

    def __post_init__(self) -> None:
        inner = self.left >= 0
        object.__setattr__(self, "split", np.where(inner, np.cumsum(inner) - 1, -1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Ensemble:
    """A sum of trees and a constant.

    Attributes
    ----------
    trees : tuple of Tree
    offset : ndarray of shape (outputs,)
        What is added to the trees' sum.
    encode : callable
        What the estimator is given, for n rows, to the float64 matrix of shape (columns, n) that the trees
        compare; NaN is missing.
    columns : tuple of int
        For each encoded column, its position among the estimator's input columns.
    """

    trees: tuple[Tree, ...]
    offset: FloatArray
    encode: Callable[[Any], FloatArray]
    columns: tuple[int, ...]


def decide(tree: Tree, encoded: FloatArray, *, nodes: IntArray | None = None) -> BoolArray:
    """Return which rows go left at which split, all or those of ``nodes``: array of shape (splits, rows)."""
    inner = np.flatnonzero(tree.left >= 0) if nodes is None else nodes
    out = np.empty((len(inner), encoded.shape[1]), dtype=np.bool_)
    missing: dict[int, BoolArray | None] = {}
    for row, node in enumerate(inner):
        column = int(tree.column[node])
        values = encoded[column]
        if node in tree.categories:
            out[row] = _in_set(tree.categories[int(node)], values)
        else:
            np.less_equal(values, tree.threshold[node], out=out[row])
        if column not in missing:
            absent = np.isnan(values)
            missing[column] = absent if absent.any() else None
        absent_rows = missing[column]
        if absent_rows is not None:
            out[row, absent_rows] = tree.missing_left[node]
    return out


def _in_set(split: CategorySplit, values: FloatArray) -> BoolArray:
    known = (values > -1) & (values < len(split.left))  # false for NaN; codes are truncated towards zero
    codes = np.where(known, values, 0).astype(np.int64)
    if len(split.left) == 0:
        return np.full(len(values), split.other_left)
    return np.where(known, split.left[codes], split.other_left)


def predict(ensemble: Ensemble, encoded: FloatArray) -> FloatArray:
    """Return the ensemble's output for encoded rows: array of shape (rows, outputs)."""
    n = encoded.shape[1]
    total = np.tile(ensemble.offset, (n, 1))
    for tree in ensemble.trees:
        total[:, list(tree.outputs)] += tree.values[leaf_of(tree, decide(tree, encoded))]
    return total


def leaf_of(tree: Tree, decisions: BoolArray) -> IntArray:
    """Return the leaf that each row falls into: array of shape (rows,)."""
    n = decisions.shape[1]
    node = np.zeros(n, dtype=np.int64)
    inner = tree.left >= 0
    if not inner[0]:
        return node
    own = np.arange(len(inner))
    child = np.stack([np.where(inner, tree.right, own), np.where(inner, tree.left, own)], axis=1).ravel()
    start = np.where(inner, tree.split, 0) * n  # where a split's decisions begin; leaves stay where they are
    flat, rows = decisions.ravel(), np.arange(n)
    while inner[node].any():
        node = child[2 * node + flat[start[node] + rows]]
    return node


def select(ensemble: Ensemble, *, model: FittedModel) -> Ensemble:
    """Return the ensemble of the outputs that ``model`` explains: for two classes, the positive one.

    Raises
    ------
    NotApplicable
        The trees' outputs cannot be matched with the model's.
    """
    native, wanted = len(ensemble.offset), len(model.output_names)
    if model.task == "binary" and native <= 2:
        positive = 1 if model.positive is None else model.positive
        return _keep(ensemble, positive) if native == 2 else _signed(ensemble, 1.0 if positive == 1 else -1.0)
    if native != wanted:
        msg = f"the trees have {native} outputs, the model is explained on {wanted}"
        raise NotApplicable(msg)
    return ensemble


def _keep(ensemble: Ensemble, output: int) -> Ensemble:
    trees = []
    for tree in ensemble.trees:
        if output in tree.outputs:
            values = tree.values[:, [tree.outputs.index(output)]]
            trees.append(replace(tree, values=values, outputs=(0,)))
    return replace(ensemble, trees=tuple(trees), offset=ensemble.offset[[output]])


def _signed(ensemble: Ensemble, sign: float) -> Ensemble:
    if sign == 1.0:
        return ensemble
    trees = tuple(replace(tree, values=-tree.values) for tree in ensemble.trees)
    return replace(ensemble, trees=trees, offset=-ensemble.offset)


def compact(trees: list[Tree]) -> tuple[tuple[Tree, ...], tuple[int, ...]]:
    """Renumber the trees' columns to the ones split on; return the trees and those columns' positions.

    A model on thousands of sparse text columns then needs only the columns it looks at.
    """
    used = np.unique(np.concatenate([np.zeros(0, np.int64), *(t.column[t.left >= 0] for t in trees)]))
    renumbered = []
    for tree in trees:
        column = np.where(tree.left >= 0, np.searchsorted(used, tree.column), -1)
        renumbered.append(replace(tree, column=column))
    return tuple(renumbered), tuple(int(c) for c in used)


def numeric_columns(inputs: Any, columns: tuple[int, ...], *, absent: float = 0.0) -> FloatArray:
    """Return the named columns of an estimator's input as float64, one row per column; missing is NaN.

    Parameters
    ----------
    inputs : DataFrame, ndarray or scipy sparse matrix of n rows
    columns : tuple of int
        Positions of the wanted columns.
    absent : float
        What entries that a sparse matrix does not store mean.

    Raises
    ------
    NotApplicable
        A column is not numeric.
    """
    if isinstance(inputs, pd.DataFrame):
        rows = [numeric(inputs.iloc[:, c], name=str(inputs.columns[c])) for c in columns]
        return np.stack(rows) if rows else np.zeros((0, len(inputs)))
    if hasattr(inputs, "tocsc"):
        part = inputs.tocsc()[:, list(columns)].tocoo()
        dense = np.full((len(columns), inputs.shape[0]), absent)
        dense[part.col, part.row] = part.data
        return dense
    array = np.asarray(inputs)
    return np.ascontiguousarray(array[:, list(columns)].T.astype(np.float64))


def numeric(series: pd.Series[Any], *, name: str) -> FloatArray:
    """Return one column as float64; missing is NaN."""
    try:
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    except (TypeError, ValueError) as error:
        msg = f"column {name!r} is not numeric ({series.dtype}) where the trees compare numbers"
        raise NotApplicable(msg) from error


def category_codes(series: pd.Series[Any], categories: list[Any]) -> FloatArray:
    """Return the codes of a category column by a model's own list of categories; unknown and missing are NaN.

    Examples
    --------
    >>> category_codes(pd.Series(["b", "z", None], dtype="category"), ["a", "b"]).tolist()
    [1.0, nan, nan]
    """
    translation = np.append(pd.Index(categories).get_indexer(series.cat.categories), -1)
    codes = translation[series.cat.codes.to_numpy()]  # a missing value has code -1: the appended entry
    return np.where(codes < 0, np.nan, codes).astype(np.float64)


def as_float32(values: FloatArray) -> FloatArray:
    """Return float64 values rounded to float32, as libraries that compare in single precision see them."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32).astype(np.float64)


def frozen_tree(
    *,
    outputs: tuple[int, ...],
    categories: Mapping[int, CategorySplit] | None = None,
    **fields: npt.ArrayLike,
) -> Tree:
    """Return a `Tree` from plain sequences, with the right dtypes, read-only."""
    kinds: dict[str, Any] = {
        "left": np.int64,
        "right": np.int64,
        "column": np.int64,
        "missing_left": np.bool_,
    }
    arrays = {name: frozen_array(value, dtype=kinds.get(name, np.float64)) for name, value in fields.items()}
    return Tree(outputs=outputs, categories=categories or {}, **arrays)


def root_of(native: Any) -> tuple[str, frozenset[str]]:
    """Return the library of an estimator and the names of its classes (its own and its bases').

    Examples
    --------
    >>> root_of(1.5)
    ('', frozenset())
    """
    for library in ("xgboost", "lightgbm", "catboost", "sklearn"):
        names = {c.__name__ for c in type(native).__mro__ if c.__module__.split(".")[0] == library}
        if names:
            return library, frozenset(names)
    return "", frozenset()


def why_not(model: FittedModel) -> str | None:
    """Return why the model is not a sum of trees in its output space, for readers; None when it is."""
    library, names = root_of(model.native)
    if library == "xgboost":
        from explain_step.explainers import ensembles_xgboost

        return ensembles_xgboost.why_not(model)
    if library == "lightgbm":
        from explain_step.explainers import ensembles_lightgbm

        return ensembles_lightgbm.why_not(model)
    if library == "catboost":
        from explain_step.explainers import ensembles_catboost

        return ensembles_catboost.why_not(model)
    if library == "sklearn":
        from explain_step.explainers import ensembles_sklearn

        return ensembles_sklearn.why_not(model, names=names)
    return f"the trees of {type(model.native).__name__} are not read by the exact explainer"


def parse(model: FittedModel) -> Ensemble:
    """Return the ensemble of the outputs that ``model`` explains.

    Raises
    ------
    NotApplicable
        `why_not` has a reason, or the model's format has something that is not known here.
    """
    found, linked = scores(model)
    if linked:
        raise NotApplicable(BOOSTED_PROBABILITY)
    return found


def scores(model: FittedModel) -> tuple[Ensemble, bool]:
    """Return the trees behind the explained output, and whether that is a class probability made of their sums.

    Raises
    ------
    NotApplicable
        As `parse`, but not for the probability of boosted models: theirs is the ensemble of the margin.
    """
    found: tuple[Ensemble, bool] = _scores(model) if model.trees is None else model.trees()
    return found


def remembering(model: FittedModel) -> FittedModel:
    """Return the model with trees that are read once, when they are first needed."""
    return replace(model, trees=_ReadOnce(model))


class _ReadOnce:
    """The trees of a model. Another process, which the model is sent to, reads them anew."""

    def __init__(self, model: FittedModel) -> None:
        self._model = model
        self._found: tuple[Ensemble, bool] | None = None

    def __call__(self) -> tuple[Ensemble, bool]:
        if self._found is None:
            self._found = _scores(self._model)
        return self._found

    def __reduce__(self) -> tuple[type[_ReadOnce], tuple[FittedModel]]:
        return _ReadOnce, (self._model,)


def _scores(model: FittedModel) -> tuple[Ensemble, bool]:
    reason = why_not(model)
    if reason == BOOSTED_PROBABILITY:
        return _scores(replace(model, output_space="margin"))[0], True
    if reason is not None:
        raise NotApplicable(reason)
    return _read(model), False


def _read(model: FittedModel) -> Ensemble:
    library, names = root_of(model.native)
    if library == "xgboost":
        from explain_step.explainers import ensembles_xgboost

        return select(ensembles_xgboost.parse(model.native), model=model)
    if library == "lightgbm":
        from explain_step.explainers import ensembles_lightgbm

        return select(ensembles_lightgbm.parse(model.native, space=model.output_space), model=model)
    if library == "catboost":
        from explain_step.explainers import ensembles_catboost

        return select(ensembles_catboost.parse(model.native), model=model)
    from explain_step.explainers import ensembles_sklearn

    return select(ensembles_sklearn.parse(model.native, names=names), model=model)


BOOSTED_PROBABILITY = (
    "the probability of a boosted model is not a sum over its trees, so it is estimated; "
    "output='margin' is exact"
)
"""Reason given for boosted classifiers in probability space."""


def log_link(objective: str) -> str:
    """Return the reason for models that predict through a link function."""
    return (
        f"the prediction of objective {objective!r} is not a sum over the trees but a function of it, "
        "so it is estimated; output='margin' is exact"
    )
