"""Exact interventional Shapley values of tree ensembles, against all background rows, on raw columns.

Cost grows with rows plus background rows, not with their product: the background enters once, as a
histogram of patterns per leaf (`tree_tables`), and a row then costs one look-up per group of leaves and
column (`tree_groups`). All derived columns that come from one raw column switch together, so that the game
is the one over raw columns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import (
    ensembles,
    tree_codes,
    tree_compiled,
    tree_effort,
    tree_groups,
    tree_path_dependent,
    tree_pilot,
    tree_tables,
)
from explain_step.explainers.base import Prepared
from explain_step.explainers.ensembles import Ensemble, Tree
from explain_step.explainers.tree_groups import Group, Indices, Leaf
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FittedModel, FloatArray, IntArray, MethodSpec, Subject

METHOD, VERSION = "tree_interventional", "1"
TABLE_COLUMNS, MOST_TABLE_COLUMNS = 10, 15
"""Leaves of up to so many columns always, of more never, have tables of all patterns; see `_fits`."""
TABLE_ENTRIES_AT_ONCE = 1 << 17
ROWS_AT_ONCE, VALUES_AT_ONCE = 1 << 15, 1 << 23
"""Rows and attributions held per part of the sum; further rows are done block by block."""
AGREEMENT = 1e-5
"""Largest difference between the read trees and the model's own answer, relative to the largest answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeExplainer:
    """Exact explainer of `FittedModel` of family "tree" whose output is a linear function of its trees."""

    name: str = "tree"

    def why_not(self, subject: Subject) -> str | None:
        """Return why the subject's model cannot be explained here, in words for readers; None when it can."""
        if subject.model.family != "tree":
            return "the model is not a tree ensemble"
        return ensembles.why_not(subject.model)

    def rows_within(self, subject: Subject, *, budget: float) -> int:
        """Return how many of the subject's rows ``budget`` seconds afford, of deep trees; see `tree_effort`."""
        model = subject.model
        try:
            ensemble = ensembles.parse(model)
            return _affordable(model, ensemble, subject, rows=len(subject.X), budget=budget)[0]
        except NotApplicable:  # `explain` says so
            return len(subject.X)

    def explain(self, subject: Subject, *, config: Config, seeds: Seeds) -> Attributions:
        """Return the exact values of all rows, against the whole background unless the budget does not reach for it.

        Raises
        ------
        NotApplicable
            The model is not of this kind, or the trees that were read disagree with the model's own answer.
        """
        model = subject.model
        ensemble = ensembles.parse(model)
        given = len(subject.background)
        most = _affordable(model, ensemble, subject, rows=len(subject.X), budget=config.budget)[1]
        if most < given:
            chosen = np.sort(seeds.rng("tree", "background").choice(given, most, replace=False))
            subject = replace(subject, background=subject.background.iloc[chosen].reset_index(drop=True))
        rows = ensemble.encode(inputs(model, subject.X))
        if subject.background is subject.X:  # none was given
            background, answer = rows, subject.response.output
        else:
            background = ensemble.encode(inputs(model, subject.background))
            answer = model.predict(subject.background)
        base = _checked(ensemble, background, answer, rows=rows.shape[1]).mean(axis=0)
        sources, n_features = raw_sources(model, ensemble), len(model.feature_names)
        found = values(ensemble, rows, background, sources=sources, n_features=n_features)
        return Attributions(
            values=found,
            base_values=np.tile(base, (len(subject.X), 1)),
            feature_names=model.feature_names,
            output_names=model.output_names,
            output_space=model.output_space,
            method=_method(ensemble, background_rows=background.shape[1], given=given),
            rows=np.arange(len(subject.X)),
        )

    def prepare(self, subject: Subject, *, rows: int, budget: float) -> Prepared:
        """Return the trees against the background: tables are made once, where they are small enough to be held.

        Raises
        ------
        NotApplicable
            As `explain`, of the background; or ``budget`` seconds do not reach for ``rows`` rows.
        """
        model = subject.model
        ensemble = ensembles.parse(model)
        whole = (rows, len(subject.background))
        if _affordable(model, ensemble, subject, rows=rows, budget=budget, held=True) != whole:
            msg = f"exact values of {rows:,} rows take longer than the budget with trees this deep"
            raise NotApplicable(msg)
        background = ensemble.encode(inputs(model, subject.background))
        base = _checked(ensemble, background, model.predict(subject.background), rows=rows).mean(axis=0)
        used, places = np.unique(raw_sources(model, ensemble), return_inverse=True)
        values = _blockwise(ensemble, background, places, len(used), rows=rows)

        def explained(X: pd.DataFrame) -> FloatArray:
            found = np.zeros((len(X), len(model.feature_names), len(ensemble.offset)))
            start = 0
            for part in values(ensemble.encode(inputs(model, X))):
                found[start : start + len(part), used] = part.transpose(0, 2, 1)
                start += len(part)
            return found

        method = _method(ensemble, background_rows=background.shape[1], given=whole[1])
        return Prepared(values=explained, base=base, method=method)


TREE = TreeExplainer()


def _blockwise(
    ensemble: Ensemble, background: FloatArray, places: IntArray, n_used: int, *, rows: int
) -> Callable[[FloatArray], Iterator[FloatArray]]:
    """Return what gives the values of encoded rows, as `_blocks`."""
    if tree_compiled.worthwhile(ensemble, rows=rows + background.shape[1]):
        with contextlib.suppress(NotApplicable):
            ready = tree_compiled.prepare(ensemble, background, places=places, n_used=n_used)
            return partial(tree_compiled.values_of, ready)
    return lambda encoded: _blocks(ensemble, encoded, background, places, n_used, threads=None)


def inputs(model: FittedModel, X: pd.DataFrame) -> Any:
    """Return what the final estimator is given for raw rows."""
    return X if model.preprocessing is None else model.preprocessing.transform(X)


def raw_sources(model: FittedModel, ensemble: Ensemble) -> IntArray:
    """Return the raw column of each encoded column."""
    columns = np.asarray(ensemble.columns, dtype=np.int64)
    if model.preprocessing is None:
        return columns
    return np.asarray(model.preprocessing.sources, dtype=np.int64)[columns]


def _affordable(
    model: FittedModel,
    ensemble: Ensemble,
    subject: Subject,
    *,
    rows: int,
    budget: float,
    held: bool = False,
) -> tuple[int, int]:
    def sample() -> tuple[FloatArray, FloatArray]:
        few = (X.iloc[tree_pilot.chosen(len(X))] for X in (subject.X, subject.background))
        ours, theirs = (ensemble.encode(inputs(model, X)) for X in few)
        return ours, theirs

    return tree_effort.affordable(
        ensemble,
        sources=raw_sources(model, ensemble),
        rows=rows,
        background=len(subject.background),
        budget=budget,
        sample=sample,
        held=held,
    )


def _method(ensemble: Ensemble, *, background_rows: int, given: int) -> MethodSpec:
    leaves = sum(int((tree.left < 0).sum()) for tree in ensemble.trees)
    params = {"trees": len(ensemble.trees), "leaves": leaves, "background_rows": background_rows}
    params |= {"background_given": given} if given != background_rows else {}
    return MethodSpec(name=METHOD, version=VERSION, params=params, exact=True)


def _checked(ensemble: Ensemble, encoded: FloatArray, answer: FloatArray, *, rows: int) -> FloatArray:
    """Return the trees' output on the background; refuse trees that do not give the model's own: read wrongly.

    That the values of the explained rows sum to the model's answer is checked for every explainer alike. Allowed is
    `AGREEMENT` of the largest answer, and the rounding of a sum of the leaves in single precision. ``rows`` more are
    explained afterwards.
    """
    output = summed(ensemble, encoded, rows=rows)
    gap, allowed = np.abs(output - answer), allowed_gap(ensemble, answer)
    worst = float(gap.max(initial=0.0))
    if not worst <= allowed:
        msg = (
            f"the trees that were read differ from the model's own answer on the background rows by up to "
            f"{worst:.2g} (allowed: {allowed:.2g}), so the exact values would not be the model's"
        )
        raise NotApplicable(msg)
    return output


def allowed_gap(ensemble: Ensemble, answer: FloatArray) -> float:
    """Return how far the read trees may be from the model's own ``answer``: see `_checked`."""
    leaves = sum(np.abs(tree.values).max(initial=0.0) for tree in ensemble.trees)
    rounding = np.finfo(np.float32).eps * (leaves + np.abs(ensemble.offset).max(initial=0.0))
    return float(AGREEMENT * np.abs(answer).max(initial=0.0) + rounding)


def summed(ensemble: Ensemble, encoded: FloatArray, *, rows: int) -> FloatArray:
    """Return the ensemble's output for encoded rows, by the engine that suits the work on these and ``rows`` more."""
    if tree_compiled.worthwhile(ensemble, rows=encoded.shape[1] + rows):
        return tree_compiled.predict(ensemble, encoded)
    return ensembles.predict(ensemble, encoded)


def interventional(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray,
    *,
    sources: Sequence[int] | IntArray,
    n_features: int,
    threads: int | None = None,
) -> tuple[FloatArray, FloatArray]:
    """Return exact interventional Shapley values and the base values.

    Parameters
    ----------
    rows, background : ndarray of shape (columns, n) and (columns, m)
        Encoded rows (`Ensemble.encode`).
    sources : sequence of int
        Raw column of each encoded column.
    n_features : int
        Number of raw columns.
    threads : int, optional
        Default: the processors that this process may use. The numbers do not depend on it.

    Returns
    -------
    values : ndarray of shape (n, n_features, outputs)
        In the unit of the ensemble's output.
    base : ndarray of shape (outputs,)
        Mean output over the background.

    Examples
    --------
    >>> stump = ensembles.frozen_tree(
    ...     left=[1, -1, -1], right=[2, -1, -1], column=[0, -1, -1], threshold=[0, 0, 0], outputs=(0,),
    ...     missing_left=[0, 0, 0], values=[[0], [2], [6]], cover=[2, 1, 1])
    >>> ensemble = Ensemble(trees=(stump,), offset=np.zeros(1), encode=np.asarray, columns=(0,))
    >>> row, background = np.array([[1.0]]), np.array([[-1.0, 1.0]])
    >>> values, base = interventional(ensemble, row, background, sources=[0], n_features=1)
    >>> values.ravel().tolist(), base.tolist()
    ([2.0], [4.0])
    """
    found = values(ensemble, rows, background, sources=sources, n_features=n_features, threads=threads)
    return found, summed(ensemble, background, rows=rows.shape[1]).mean(axis=0)


def values(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray | None,
    *,
    sources: Sequence[int] | IntArray,
    n_features: int,
    threads: int | None = None,
) -> FloatArray:
    """Return the values of `interventional`; without a background, path-dependent ones."""
    used, places = np.unique(np.asarray(sources, dtype=np.int64), return_inverse=True)
    out = np.zeros((rows.shape[1], n_features, len(ensemble.offset)))
    start = 0
    for part in _blocks(ensemble, rows, background, places, len(used), threads=threads):
        out[start : start + len(part), used] = part.transpose(0, 2, 1)
        start += len(part)
    return out


def _blocks(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray | None,
    places: IntArray,
    n_used: int,
    *,
    threads: int | None,
) -> Iterator[FloatArray]:
    """Yield the values of blocks of rows, of shape (rows, outputs, used columns)."""
    n = rows.shape[1]
    if tree_compiled.worthwhile(ensemble, rows=n + (0 if background is None else background.shape[1])):
        with contextlib.suppress(NotApplicable):
            yield from tree_compiled.shapley_values(
                ensemble, rows, background, places=places, n_used=n_used, threads=threads
            )
            return
        fit, others = tree_compiled.parted(ensemble, places=places)
        if fit.trees and others.trees:  # a tree of too long a path does not cost the others
            few = [
                np.concatenate(list(_blocks(some, rows, background, places, n_used, threads=threads)))
                for some in (fit, others)
            ]
            yield few[0] + few[1]
            return
    if background is None:
        found, _ = tree_path_dependent.path_dependent(ensemble, rows, sources=places, n_features=n_used)
        yield found.transpose(0, 2, 1)
        return
    block = max(1024, min(ROWS_AT_ONCE, VALUES_AT_ONCE // max(1, n_used * len(ensemble.offset))))
    for start in range(0, n, block):
        part = rows[:, start : start + block]
        total = _sum_over_trees(ensemble, part, background, places, n_used, threads=threads)
        yield total.transpose(2, 0, 1)


def _sum_over_trees(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray,
    sources: IntArray,
    n_features: int,
    *,
    threads: int | None,
) -> FloatArray:
    """Return the summed values of shape (outputs, n_features, rows): parts in parallel, added in order."""
    shape = (len(ensemble.offset), n_features, rows.shape[1])

    def part(trees: Sequence[Tree]) -> FloatArray:
        out = np.zeros(shape)
        for tree in trees:
            add_tree(out, tree, rows, background, sources=sources)
        return out

    total = np.zeros(shape)
    chunks = [
        ensemble.trees[a:b] for a, b in tree_codes.chunks(len(ensemble.trees), parts=tree_compiled.CHUNKS)
    ]
    with ThreadPoolExecutor(max_workers=threads or tree_compiled.processors()) as pool:
        for partial in pool.map(part, chunks):
            total += partial
    return total


def add_tree(
    out: FloatArray, tree: Tree, rows: FloatArray, background: FloatArray, *, sources: IntArray
) -> None:
    """Add one tree's values for all rows to ``out`` of shape (outputs, n_features, rows)."""
    if tree.left[0] < 0:
        return  # a single leaf: a constant
    plan = tree_groups.arrange(tree, sources=sources)
    places = list(tree_groups.groups(plan))
    ours = list(tree_groups.row_indices(plan, ensembles.decide(tree, rows)))
    theirs = list(tree_groups.row_indices(plan, ensembles.decide(tree, background)))
    merged = [number for number, group in enumerate(places) if group.splits]
    for number, table in _merged_tables(merged, places, tree, theirs).items():
        values = np.take(table, ours[number].astype(np.intp), axis=2)
        for output, part in zip(tree.outputs, values, strict=True):
            _add(out[output], part, columns=places[number].columns)
    single = (number for number, group in enumerate(places) if not group.splits)
    by_size = sorted(single, key=lambda number: places[number].path)
    for k, numbers in groupby(by_size, key=lambda number: places[number].path):
        leaf_values = _table_values if _fits(k, background.shape[1]) else _pair_values
        for number, unit in leaf_values(list(numbers), ours, theirs, k=k):
            group = places[number]
            for output, weight in zip(tree.outputs, tree.values[group.leaves[0].node], strict=True):
                _add(out[output], weight * unit, columns=group.columns)


def _fits(k: int, background_rows: int) -> bool:
    """Return whether a full table over k columns costs less than pairs of observed patterns."""
    return k <= TABLE_COLUMNS or (k <= MOST_TABLE_COLUMNS and 1 << k <= 4 * background_rows)


def _add(out: FloatArray, values: FloatArray, *, columns: tuple[int, ...]) -> None:
    for column, row in zip(columns, values, strict=True):
        out[column] += row


def _merged_tables(
    numbers: Sequence[int], places: Sequence[Group], tree: Tree, theirs: Sequence[Indices]
) -> dict[int, FloatArray]:
    """Return, per group of several leaves, the table of shape (outputs, columns, 2^bits)."""
    games: list[tuple[int, Leaf, IntArray, FloatArray]] = []
    tables: dict[int, FloatArray] = {}
    for number in numbers:
        group = places[number]
        states = np.arange(1 << group.bits, dtype=theirs[number].dtype)
        share = _shares(theirs[number], bits=group.bits)
        tables[number] = np.zeros((len(tree.outputs), len(group.columns), len(states)))
        for leaf in group.leaves:
            patterns = tree_groups.leaf_patterns(leaf, states).astype(np.int64)
            histogram = np.bincount(patterns, weights=share, minlength=1 << len(leaf.rows))
            games.append((number, leaf, patterns, histogram.astype(np.float64)))
    games.sort(key=lambda game: len(game[1].rows))
    for k, same in groupby(games, key=lambda game: len(game[1].rows)):
        alike = list(same)
        sums = tree_tables.subset_sums(np.stack([game[3] for game in alike]), k=k)
        for (number, leaf, patterns, _), unit in zip(alike, tree_tables.dense_tables(sums, k=k), strict=True):
            weights = tree.values[leaf.node][:, None, None]
            tables[number][:, list(leaf.rows)] += weights * np.take(unit, patterns, axis=1)
    return tables


def _shares(index: Indices, *, bits: int) -> FloatArray:
    """Return the share of rows with each of the 2^bits indices."""
    return np.bincount(index.astype(np.intp), minlength=1 << bits) / len(index)


def _table_values(
    numbers: Sequence[int], ours: Sequence[Indices], theirs: Sequence[Indices], *, k: int
) -> Iterator[tuple[int, FloatArray]]:
    """Yield the values (k, rows) of leaves of k columns, from tables made a cacheful at a time."""
    step = max(1, TABLE_ENTRIES_AT_ONCE // (k << k))
    for start in range(0, len(numbers), step):
        batch = numbers[start : start + step]
        sums = tree_tables.subset_sums(np.stack([_shares(theirs[number], bits=k) for number in batch]), k=k)
        full = len(ours[0]) >= 1 << k
        tables = tree_tables.dense_tables(sums, k=k) if full else None
        for game, number in enumerate(batch):
            index = ours[number].astype(np.intp)
            if tables is None:
                yield number, tree_tables.values_at(sums, index, game=game, k=k)
            else:
                yield number, np.take(tables[game], index, axis=1)


def _pair_values(
    numbers: Sequence[int], ours: Sequence[Indices], theirs: Sequence[Indices], *, k: int
) -> Iterator[tuple[int, FloatArray]]:
    """Yield the values (k, rows) of leaves that are too deep for a table."""
    for number in numbers:
        patterns, where = np.unique(ours[number], return_inverse=True)
        background, counts = np.unique(theirs[number], return_counts=True)
        shares = counts / len(theirs[number])
        yield number, np.take(tree_tables.paired_tables(patterns, background, shares, k=k), where, axis=1)
