"""A tree ensemble as flat arrays, and rows as small integers: what the compiled kernels read.

Trees compare a value with a threshold, so that only the value's place among the thresholds of its column
matters. A numeric value becomes the number of thresholds below it, plus one; *left* is then ``code <= limit``
on integers of 16 bits, four times as many at once as doubles. A missing value is 0 where it goes left and the
largest code where it goes right. A category becomes the entry of a table of sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from explain_step.explainers.ensembles import CategorySplit, Ensemble, Tree
from explain_step.types import FloatArray, IntArray

Codes = npt.NDArray[np.unsignedinteger[Any]]
MOST_SHORT = np.iinfo(np.uint16).max - 2
"""More thresholds in one column than this need codes of 32 bits."""
MOST_COUNTED = 512
"""Up to so many thresholds are compared one by one, eight rows at once, which is quicker than a search for each row."""
MISSING_CATEGORY, OTHER_CATEGORY, FIRST_CATEGORY = 0, 1, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class FlatEnsemble:
    """All trees in one array per field; the nodes of tree t are ``start[t]:start[t + 1]``.

    Attributes
    ----------
    start : ndarray of shape (trees + 1,)
    left, right : ndarray of shape (nodes,)
        Children within the tree; -1 at leaves.
    key : ndarray of shape (nodes,)
        Row of `Coding` that the node compares: twice the column, plus one where missing values go left.
    limit : ndarray of shape (nodes,)
        Left if code <= limit; at splits on categories, where the node's table of sides begins.
    category : ndarray of shape (nodes,)
        The split is on a category.
    sides : ndarray
        Tables of sides of all splits on categories, one entry per code.
    place : ndarray of shape (nodes,)
        Position of the split's raw column among those used.
    cover : ndarray of shape (nodes,)
    values : ndarray
        Leaf values, ``values[value_start[t] + node * width + i]`` for the tree's i-th output.
    value_start : ndarray of shape (trees,)
    outputs : ndarray
        Outputs of all trees; those of tree t are ``output_start[t]:output_start[t + 1]``.
    output_start : ndarray of shape (trees + 1,)
    thresholds : tuple of ndarray
        Sorted thresholds of each column.
    most_category : ndarray of shape (columns,)
        Number of categories that a column's tables of sides tell apart.
    """

    start: IntArray
    left: IntArray
    right: IntArray
    key: IntArray
    limit: IntArray
    category: npt.NDArray[np.bool_]
    sides: npt.NDArray[np.uint8]
    place: IntArray
    cover: FloatArray
    values: FloatArray
    value_start: IntArray
    outputs: IntArray
    output_start: IntArray
    thresholds: tuple[FloatArray, ...]
    most_category: IntArray


def flatten(ensemble: Ensemble, *, places: IntArray) -> FlatEnsemble:
    """Return the ensemble as flat arrays; ``places`` maps its columns to positions of raw columns."""
    trees = ensemble.trees
    column, split = _joined(trees, "column"), _joined(trees, "left") >= 0
    threshold, missing_left = _joined(trees, "threshold"), _joined(trees, "missing_left")
    start = _starts([len(tree.left) for tree in trees])
    on_category = {
        int(first) + node: rule
        for first, tree in zip(start, trees, strict=False)
        for node, rule in tree.categories.items()
    }
    category = np.zeros(len(split), dtype=np.bool_)
    category[list(on_category)] = True
    thresholds, limit = _limits(column, threshold, split & ~category, columns=len(places))
    most, sides = _category_tables(on_category, column, missing_left, limit, columns=len(places))
    return FlatEnsemble(
        start=start,
        left=_joined(trees, "left"),
        right=_joined(trees, "right"),
        key=np.where(split, 2 * column + missing_left, -1),
        limit=limit,
        category=category,
        sides=sides,
        place=np.where(split, np.append(places, -1)[column], -1),
        cover=_joined(trees, "cover").astype(np.float64),
        values=np.concatenate([np.zeros(0), *(tree.values.ravel() for tree in trees)]),
        value_start=_starts([tree.values.size for tree in trees])[:-1],
        outputs=np.array([output for tree in trees for output in tree.outputs], dtype=np.int64),
        output_start=_starts([len(tree.outputs) for tree in trees]),
        thresholds=thresholds,
        most_category=most,
    )


def _joined(trees: tuple[Tree, ...], name: str) -> npt.NDArray[Any]:
    return np.concatenate([getattr(tree, name) for tree in trees])


def _starts(sizes: list[int]) -> IntArray:
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, dtype=np.int64))])


def _limits(
    column: IntArray, threshold: FloatArray, numeric: npt.NDArray[np.bool_], *, columns: int
) -> tuple[tuple[FloatArray, ...], IntArray]:
    """Return each column's thresholds and every split's limit; 0 for thresholds that no value is below."""
    limit = np.zeros(len(column), dtype=np.int64)
    found = []
    for c in range(columns):
        nodes = np.flatnonzero(numeric & (column == c) & ~np.isnan(threshold))
        sorted_values, rank = np.unique(threshold[nodes], return_inverse=True)
        limit[nodes] = rank + 1
        found.append(sorted_values)
    return tuple(found), limit


def _category_tables(
    on_category: dict[int, CategorySplit],
    column: IntArray,
    missing_left: npt.NDArray[np.bool_],
    limit: IntArray,
    *,
    columns: int,
) -> tuple[IntArray, npt.NDArray[np.uint8]]:
    """Return how many categories each column needs, and the tables of sides; ``limit`` gets their places."""
    most = np.zeros(columns, dtype=np.int64)
    for node, rule in on_category.items():
        most[column[node]] = max(most[column[node]], len(rule.left))
    tables: list[npt.NDArray[np.uint8]] = [np.zeros(0, dtype=np.uint8)]
    end = 0
    for node, rule in on_category.items():
        table = np.full(FIRST_CATEGORY + most[column[node]], rule.other_left, dtype=np.uint8)
        table[FIRST_CATEGORY : FIRST_CATEGORY + len(rule.left)] = rule.left
        table[MISSING_CATEGORY] = missing_left[node]
        limit[node] = end
        end += len(table)
        tables.append(table)
    return most, np.concatenate(tables)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coding:
    """Rows as codes.

    Attributes
    ----------
    codes : ndarray of shape (lines, rows)
        Unsigned integers.
    line : ndarray of shape (nodes,)
        For each node of the ensemble, the line of ``codes`` that it compares; -1 at leaves.
    """

    codes: Codes
    line: IntArray


def encode(flat: FlatEnsemble, encoded: FloatArray) -> Coding:
    """Return the codes of encoded rows (`Ensemble.encode`), of shape (columns, rows)."""
    wide = (
        max((len(t) for t in flat.thresholds), default=0) > MOST_SHORT
        or flat.most_category.max(initial=0) + FIRST_CATEGORY > MOST_SHORT
    )
    dtype = np.uint32 if wide else np.uint16
    lines: list[Codes] = []
    line_of = np.full((3, max(1, len(encoded))), -1, dtype=np.int64)
    inner = flat.key >= 0
    kind = np.where(flat.category, 2, flat.key & 1)
    column = flat.key >> 1
    for c, values in enumerate(encoded):
        kinds = np.unique(kind[inner & (column == c)])
        missing = np.isnan(values)
        if 2 in kinds:
            line_of[2, c] = len(lines)
            lines.append(_category_codes(values, int(flat.most_category[c])).astype(dtype))
        if len(kinds) == 0 or kinds[0] == 2:
            continue
        codes = _number_codes(values, flat.thresholds[c], dtype=dtype)
        if not missing.any():
            line_of[:2, c] = len(lines)
            lines.append(codes)
            continue
        for side, code in ((0, np.iinfo(dtype).max), (1, 0)):
            line_of[side, c] = len(lines)
            lines.append(np.where(missing, dtype(code), codes))
    table = np.stack(lines) if lines else np.zeros((0, encoded.shape[1]), dtype=dtype)
    return Coding(codes=table, line=np.where(inner, line_of[kind, column], -1))


def _number_codes(values: FloatArray, thresholds: FloatArray, *, dtype: type) -> Codes:
    """Return the number of thresholds below each value, plus one; what missing values get is replaced."""
    if len(thresholds) > MOST_COUNTED:
        return (np.searchsorted(thresholds, values) + 1).astype(dtype)
    from explain_step.explainers import tree_patterns

    codes: Codes = np.empty(len(values), dtype)
    padded = np.append(thresholds, np.full(-len(thresholds) % 4, np.inf))
    tree_patterns.write_codes(codes, np.ascontiguousarray(values, dtype=np.float64), padded)
    return codes


def _category_codes(values: FloatArray, most: int) -> IntArray:
    # False for NaN; codes are truncated towards zero, which is no known one where sets are empty.
    known = (values > -1) & (values < most) & (most > 0)
    codes = np.where(known, np.where(known, values, 0).astype(np.int64) + FIRST_CATEGORY, OTHER_CATEGORY)
    return np.where(np.isnan(values), MISSING_CATEGORY, codes)


def chunks(trees: int, *, parts: int) -> list[tuple[int, int]]:
    """Return at most ``parts`` ranges of trees, in order.

    Examples
    --------
    >>> chunks(5, parts=2)
    [(0, 2), (2, 5)]
    """
    bounds = np.linspace(0, trees, min(parts, trees) + 1).astype(int)
    return [(int(a), int(b)) for a, b in pairwise(bounds)]
