"""Exact Shapley interaction values of tree ensembles, by the engine that suits the amount of work.

Of two columns: what both together add to the output beyond the sum of what each adds alone, averaged over the
coalitions of the other columns as Shapley's values weigh them (Grabisch and Roubens 1999, doi:10.1007/s001820050125).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np

from explain_step.errors import NotApplicable
from explain_step.explainers import ensembles, tree, tree_compiled, tree_effort, tree_pairs
from explain_step.explainers.ensembles import Ensemble
from explain_step.types import FloatArray, IntArray, Subject

COST = 20
"""How many times the work of values interactions are, in `tree_compiled.worthwhile`."""
MOST_PAIR_ENTRIES = 40_000_000_000
"""Entries of deep leaves' tables, for each pair of columns, above which nothing is begun: about ten processor seconds."""
MOST_WORK, MOST_WORK_WITHOUT_NUMBA = 6_000_000_000, 50_000_000
"""Leaves times rows above which nothing is begun: about a minute of a processor, and about 20 seconds on NumPy."""
ROUNDING = 1e-12
"""Interactions below this share of the largest output are the rounding of sums."""


def of_pairs(subject: Subject, pairs: Sequence[tuple[int, int]]) -> FloatArray:
    """Return the interactions of pairs of raw columns for the subject's rows, against its whole background.

    Parameters
    ----------
    pairs : sequence of (int, int)
        Positions among the model's columns.

    Returns
    -------
    ndarray of shape (pairs, n, outputs)
        In the unit of the explained output. What no path has both columns of is exactly zero.

    Raises
    ------
    NotApplicable
        The model is not a sum of trees that are read, a path has too many columns, or the work is too much.
    """
    model = subject.model
    ensemble = ensembles.parse(model)
    sources = tree.raw_sources(model, ensemble)
    _bound(ensemble, sources=sources, rows=len(subject.X) + len(subject.background))
    rows, background = (ensemble.encode(tree.inputs(model, X)) for X in (subject.X, subject.background))
    values = _sums(ensemble, rows, background, sources=sources, pairs=pairs)
    floor = ROUNDING * float(np.abs(subject.response.output).max(initial=0.0))
    return np.where(np.abs(values) <= floor, 0.0, values).transpose(2, 0, 1)


def interaction_values(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray | None,
    *,
    sources: Sequence[int] | IntArray,
    n_features: int,
    threads: int | None = None,
) -> FloatArray:
    """Return the matrix of interactions of every row, as shap has it: its rows sum to the values.

    An entry off the diagonal is half of the two columns' interaction; on it is what is left of the column's value.

    Parameters
    ----------
    rows, background : ndarray of shape (columns, n) and (columns, m)
        Encoded rows (`Ensemble.encode`). Without a background the values are path-dependent.
    sources : sequence of int
        Raw column of each encoded column.
    n_features : int
        Number of raw columns.

    Returns
    -------
    ndarray of shape (n, n_features, n_features, outputs)

    Raises
    ------
    NotApplicable
        A path has too many columns.

    Examples
    --------
    >>> both = ensembles.frozen_tree(
    ...     left=[1, -1, 3, -1, -1], right=[2, -1, 4, -1, -1], column=[0, -1, 1, -1, -1], threshold=[0] * 5,
    ...     missing_left=[0] * 5, values=[[0], [0], [0], [0], [8]], cover=[4, 2, 2, 1, 1], outputs=(0,))
    >>> ensemble = Ensemble(trees=(both,), offset=np.zeros(1), encode=np.asarray, columns=(0, 1))
    >>> row, background = np.ones((2, 1)), np.zeros((2, 1))
    >>> interaction_values(ensemble, row, background, sources=[0, 1], n_features=2)[0, :, :, 0].tolist()
    [[0.0, 4.0], [4.0, 0.0]]
    """
    used = [int(c) for c in np.unique(np.asarray(sources, dtype=np.int64))]
    pairs = list(combinations(used, 2))
    sums = _sums(ensemble, rows, background, sources=sources, pairs=pairs, threads=threads)
    n, outputs = rows.shape[1], len(ensemble.offset)
    matrix = np.zeros((n, n_features, n_features, outputs))
    for (a, b), half in zip(pairs, 0.5 * sums.transpose(2, 0, 1), strict=True):
        matrix[:, a, b] = matrix[:, b, a] = half
    values = tree.values(ensemble, rows, background, sources=sources, n_features=n_features, threads=threads)
    own = np.arange(n_features)
    matrix[:, own, own] = values - matrix.sum(axis=2)
    return matrix


def _bound(ensemble: Ensemble, *, sources: IntArray, rows: int) -> None:
    work = rows * sum(int((one.left < 0).sum()) for one in ensemble.trees)
    most = MOST_WORK if tree_compiled.available() else MOST_WORK_WITHOUT_NUMBA
    if work > most:
        msg = f"exact interactions of {work:,} leaves times rows take too long (at most {most:,})"
        raise NotApplicable(msg)
    entries = tree_effort.pair_entries(ensemble, sources=sources)
    if entries > MOST_PAIR_ENTRIES:
        msg = (
            f"exact interactions of trees this deep take too long (tables of {entries:,.0f} entries, at most "
            f"{MOST_PAIR_ENTRIES:,})"
        )
        raise NotApplicable(msg)


def _sums(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray | None,
    *,
    sources: Sequence[int] | IntArray,
    pairs: Iterable[tuple[int, int]],
    threads: int | None = None,
) -> FloatArray:
    """Return the interactions of pairs of raw columns: array of shape (rows, outputs, pairs)."""
    used, places = np.unique(np.asarray(sources, dtype=np.int64), return_inverse=True)
    position = {int(column): place for place, column in enumerate(used)}
    asked = list(pairs)
    pair_of = np.full((len(used), len(used)), -1, dtype=np.int64)
    known = [k for k, (a, b) in enumerate(asked) if a in position and b in position]
    for place, k in enumerate(known):
        a, b = (position[column] for column in asked[k])
        pair_of[a, b] = pair_of[b, a] = place
    out = np.zeros((rows.shape[1], len(ensemble.offset), len(asked)))
    if known:
        out[:, :, known] = _known(ensemble, rows, background, places=places, pair_of=pair_of, threads=threads)
    return out


def _known(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray | None,
    *,
    places: IntArray,
    pair_of: IntArray,
    threads: int | None,
) -> FloatArray:
    size = rows.shape[1] + (0 if background is None else background.shape[1])
    if tree_compiled.worthwhile(ensemble, rows=COST * size):
        with contextlib.suppress(NotApplicable):
            parts = tree_compiled.interactions(
                ensemble, rows, background, places=places, pair_of=pair_of, threads=threads
            )
            return np.concatenate(list(parts))
    return tree_pairs.interactions(ensemble, rows, background, places=places, pair_of=pair_of)
