"""The tree engine on compiled kernels: the values of `tree.interventional`, many times faster, where Numba is.

The numbers agree with those of the NumPy engine to rounding. They do not depend on the number of threads or
on blocks of rows: each row's trees are added in their order. Threads share the rows; where trees have deep leaves, whose
work is one for all rows, they share the trees, which are then summed in `CHUNKS` parts, the parts in their order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np

from explain_step.errors import NotApplicable
from explain_step.explainers import tree_batches, tree_codes, tree_tables
from explain_step.explainers.ensembles import Ensemble, Tree, frozen_tree
from explain_step.explainers.tree_batches import Batch, Program, Sums
from explain_step.explainers.tree_codes import Coding, FlatEnsemble
from explain_step.explainers.tree_quadrature import quadrature
from explain_step.types import FloatArray, IntArray

CHUNKS = 16
"""Parts of the sum of trees with deep leaves, whatever the number of threads."""
SHARES = 4
"""Runs of rows per thread: one that is done early takes another."""
ROWS_AT_ONCE, VALUES_AT_ONCE = 1 << 16, 1 << 23
"""Rows and attributions held at once, per part of the sum; further rows are done block by block."""
HELD_ENTRIES = 1 << 24
"""Most table entries that are held for further rows: 128 MiB."""
SMALL_BLOCK = 1 << 14
"""Rows held at once where the tables are held: a block then costs nothing beside its rows."""
KEPT_ROWS = 1 << 17
"""Background rows whose patterns are kept for every level of a deep tree."""
SMALL_WORK = 200_000_000
"""Leaves times rows below which NumPy is used: about two seconds. Kernels take a second or two to load, and half a minute
to compile where they never were. A matter of sizes alone: the same rows get the same bits, whatever is compiled."""
LEAF_ROWS = 1_000
"""A leaf costs NumPy as much as so many rows at it, or more: 0.05 to 0.1 ms, the compiled engine a tenth of that."""


def available() -> bool:
    """Return whether Numba can be imported."""
    return find_spec("numba") is not None


def worthwhile(ensemble: Ensemble, *, rows: int) -> bool:
    """Return whether the kernels are there and the work is worth loading them; a matter of sizes alone."""
    leaves = sum(int((tree.left < 0).sum()) for tree in ensemble.trees)
    return leaves * (rows + LEAF_ROWS) > SMALL_WORK and available()


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An ensemble against a background, ready for any number of rows; see `prepare`."""

    flat: FlatEnsemble
    others: Coding | None
    parts: tuple[tuple[Batch, ...], ...]
    sums: Sums
    outputs: int
    held: bool
    deep: bool


def shapley_values(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray | None,
    *,
    places: IntArray,
    n_used: int,
    threads: int | None = None,
) -> Iterator[FloatArray]:
    """Yield the values of blocks of rows, in order: arrays of shape (block, outputs, n_used).

    Parameters
    ----------
    rows, background : ndarray of shape (columns, n) and (columns, m)
        Encoded rows (`Ensemble.encode`). Without a background the values are path-dependent.
    places : ndarray of shape (columns,)
        Position of each encoded column's raw column among the ``n_used`` that are used.
    threads : int, optional
        Default: the processors that this process may use.

    Raises
    ------
    NotApplicable
        Against a background: a path has more distinct columns than fit a packed pattern.
    """
    prepared = prepare(ensemble, background, places=places, n_used=n_used, hold=False)
    yield from values_of(prepared, rows, threads=threads)


def interactions(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray | None,
    *,
    places: IntArray,
    pair_of: IntArray,
    threads: int | None = None,
) -> Iterator[FloatArray]:
    """Yield the Shapley interactions of blocks of rows, in order: arrays of shape (block, outputs, pairs).

    Parameters
    ----------
    pair_of : ndarray of shape (n_used, n_used)
        Place among the pairs of each two used columns, symmetric; negative: not asked for.

    Others as for `shapley_values`.

    Raises
    ------
    NotApplicable
        A path has more distinct columns than fit a packed pattern or, against a background, a table.
    """
    sums = Sums(width=int(pair_of.max(initial=-1)) + 1, pair_of=pair_of)
    prepared = _prepare(ensemble, background, places=places, sums=sums, hold=False)
    yield from values_of(prepared, rows, threads=threads)


def prepare(
    ensemble: Ensemble, background: FloatArray | None, *, places: IntArray, n_used: int, hold: bool = True
) -> Prepared:
    """Return what does not depend on the rows: codes of the background, programs and, with ``hold``, tables.

    Tables of more than `HELD_ENTRIES` entries are not held, and made anew for every block of rows.

    Raises
    ------
    NotApplicable
        As `shapley_values`.
    """
    sums = Sums(width=n_used, pair_of=np.zeros((0, 0), dtype=np.int64))
    return _prepare(ensemble, background, places=places, sums=sums, hold=hold)


def _prepare(
    ensemble: Ensemble,
    background: FloatArray | None,
    *,
    places: IntArray,
    sums: Sums,
    hold: bool,
) -> Prepared:
    flat = tree_codes.flatten(ensemble, places=places)
    others = None if background is None else tree_codes.encode(flat, background)
    programs = [
        tree_batches.compile_program(flat, tree, sums=sums, path_dependent=background is None)
        for tree in range(len(ensemble.trees))
    ]
    held = hold and sum(p.entries for p in programs) <= HELD_ENTRIES

    def batch(some: list[Program]) -> Batch:
        return tree_batches.joined(flat, some, others=others, sums=sums, held=held)

    deep = any(p.deep for p in programs)
    parts = tree_codes.chunks(len(programs), parts=CHUNKS if deep else 1)
    with ThreadPoolExecutor(max_workers=processors()) as pool:
        made = [[pool.submit(batch, some) for some in tree_batches.batches(programs[a:b])] for a, b in parts]
        done = tuple(tuple(one.result() for one in part) for part in made)
    return Prepared(
        flat=flat, others=others, parts=done, sums=sums, outputs=len(ensemble.offset), held=held, deep=deep
    )


def parted(ensemble: Ensemble, *, places: IntArray) -> tuple[Ensemble, Ensemble]:
    """Return an ensemble's trees whose paths fit a packed pattern, and the others, each as an ensemble."""
    flat = tree_codes.flatten(ensemble, places=places)
    fit, others = list[Tree](), list[Tree]()
    for number, tree in enumerate(ensemble.trees):
        try:
            tree_batches.compile_program(flat, number, sums=tree_batches.NOTHING, path_dependent=False)
        except NotApplicable:
            others.append(tree)
        else:
            fit.append(tree)
    return replace(ensemble, trees=tuple(fit)), replace(ensemble, trees=tuple(others))


def block_rows(values: int, *, held: bool) -> int:
    """Return how many rows of so many values are explained together: what does not depend on rows is done for each block."""
    return max(1024, min(SMALL_BLOCK if held else ROWS_AT_ONCE, VALUES_AT_ONCE // max(1, values)))


def values_of(prepared: Prepared, rows: FloatArray, *, threads: int | None = None) -> Iterator[FloatArray]:
    """Yield the values of blocks of encoded rows (columns, n), in order, as `shapley_values` does."""
    block = block_rows(prepared.sums.width * prepared.outputs, held=prepared.held)
    workers = threads or processors()
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for start in range(0, rows.shape[1], block):
            coding = tree_codes.encode(prepared.flat, rows[:, start : start + block])
            size = coding.codes.shape[1]
            # each column begins where a line of the cache does
            total = tree_batches.aligned((prepared.outputs, prepared.sums.width, -(-size // 8) * 8))
            if prepared.deep:
                _add_parts(total, prepared, coding, pool)
            else:
                _add_rows(total, prepared, coding, pool, workers=workers)
            yield total[:, :, :size].transpose(2, 0, 1)


def _add_rows(
    total: FloatArray, prepared: Prepared, coding: Coding, pool: ThreadPoolExecutor, *, workers: int
) -> None:
    """Add all trees; threads share the making of tables, a batch each, and then the rows."""
    from explain_step.explainers.tree_patterns import ROWS

    size = coding.codes.shape[1]
    shares = tree_codes.chunks(-(-size // ROWS), parts=SHARES * workers)
    batches = [batch for part in prepared.parts for batch in part]
    most = max(len(batches), 1) if prepared.held else workers
    for first in range(0, len(batches), most):
        some = batches[first : first + most]
        tables = list(pool.map(lambda batch: _tables(prepared, batch), some))
        ready = list(zip(some, tables, strict=True))

        def add(share: tuple[int, int], ready: list[tuple[Batch, FloatArray]] = ready) -> None:
            rows = (share[0] * ROWS, min(share[1] * ROWS, size))
            for batch, made in ready:
                _add_groups(total, prepared, batch, made, coding, rows=rows)

        list(pool.map(add, shares))


def warm() -> None:
    """Compile every kernel, or load it from Numba's cache on disk, by explaining trees of every kind of leaves."""
    from explain_step.explainers import tree_masks  # which imports this module

    ensemble, long = (
        Ensemble(trees=(_comb(depth=d),), offset=np.zeros(1), encode=np.asarray, columns=tuple(range(d)))
        for d in (12, 20)
    )
    every_row = np.random.default_rng(0).normal(size=(20, 8))
    rows = every_row[:12]
    for trees in (ensemble, replace(ensemble, trees=(_comb(depth=6),))):  # walked, and by tables
        predict(trees, rows)
    for background in (rows, None):
        list(shapley_values(ensemble, rows, background, places=np.arange(12), n_used=12, threads=1))
    list(shapley_values(long, every_row, None, places=np.arange(20), n_used=20, threads=1))  # is walked
    pair_of = np.arange(144).reshape(12, 12)
    for background in (rows, None):
        list(interactions(ensemble, rows, background, places=np.arange(12), pair_of=pair_of, threads=1))
    forest, every = tree_masks.blocks(ensemble, places=np.arange(12)), np.arange(8)
    coding = tree_codes.encode(forest.flat, rows)
    queries = tree_masks.Queries(row=every, column=every, value=every)
    tree_masks.exchanged(forest, coding, coding, queries, columns=12)
    order = np.tile(np.arange(12, dtype=np.int32), (8, 1))
    tree_masks.walked(forest, coding, coding, order, used=12, row=every, partner=every)


def _comb(*, depth: int) -> Tree:
    """Return a tree with one split, on a column of its own, per level."""
    inner = np.arange(0, 2 * depth, 2)
    left, right, column = (np.full(2 * depth + 1, -1) for _ in range(3))
    left[inner], right[inner], column[inner] = inner + 1, inner + 2, np.arange(depth)
    none = np.zeros(2 * depth + 1)
    return frozen_tree(
        left=left, right=right, column=column, threshold=none, missing_left=none,
        values=np.arange(2 * depth + 1.0)[:, None], cover=np.arange(2 * depth + 1, 0, -1.0), outputs=(0,),
    )  # fmt: skip


def processors() -> int:
    """Return the number of processors that this process may use, at most ``OMP_NUM_THREADS``.

    Spark sets that variable for its Python workers, of which there is one per task.
    """
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = os.environ.get("OMP_NUM_THREADS", "")
    return min(here, int(most)) if most.isdigit() and int(most) else here


def predict(ensemble: Ensemble, encoded: FloatArray) -> FloatArray:
    """Return the ensemble's output for encoded rows: array of shape (rows, outputs).

    The trees are added in their order, whatever shares the rows.
    """
    size, workers = encoded.shape[1], processors()
    places = np.arange(len(encoded))
    prepared = _prepare(ensemble, None, places=places, sums=tree_batches.ANSWERS, hold=False)
    coding = tree_codes.encode(prepared.flat, encoded)
    total = tree_batches.aligned((prepared.outputs, 1, -(-size // 8) * 8))
    total += ensemble.offset[:, None, None]
    with ThreadPoolExecutor(max_workers=workers) as pool:
        if prepared.deep:
            shares = tree_codes.chunks(size, parts=SHARES * workers)
            list(pool.map(lambda share: _add_answers(total, prepared.flat, coding, rows=share), shares))
        else:
            _add_rows(total, prepared, coding, pool, workers=workers)
    return np.ascontiguousarray(total[:, 0, :size].T)


def _add_answers(total: FloatArray, flat: FlatEnsemble, coding: Coding, *, rows: tuple[int, int]) -> None:
    from explain_step.explainers import tree_answers

    some = slice(*rows)
    for tree in range(len(flat.start) - 1):
        nodes = tree_batches.nodes_of(flat, tree)
        tree_answers.add_answers(
            total[:, 0, some], flat.left[nodes], flat.right[nodes],
            tree_batches.leaf_values(flat, tree), tree_batches.outputs_of(flat, tree),
            coding.codes[:, some], coding.line[nodes], flat.limit[nodes], flat.category[nodes], flat.sides,
        )  # fmt: skip


def _add_parts(total: FloatArray, prepared: Prepared, coding: Coding, pool: ThreadPoolExecutor) -> None:
    """Add all trees; threads share the parts, which have sums of their own until they are added in order."""

    def summed(part: tuple[Batch, ...]) -> FloatArray:
        own = tree_batches.aligned(total.shape)
        for batch in part:
            _add_groups(
                own, prepared, batch, _tables(prepared, batch), coding, rows=(0, coding.codes.shape[1])
            )
            for program in batch.programs:
                if program.walked:
                    _add_walked(own, prepared.flat, program.tree, coding)
                elif program.deep:
                    _add_deep(own, prepared.flat, program, coding, prepared.others, sums=prepared.sums)
        return own

    work = [pool.submit(summed, part) for part in prepared.parts]
    while work:  # what is added is let go: its memory serves the next part
        total += work.pop(0).result()


def _tables(prepared: Prepared, batch: Batch) -> FloatArray:
    if batch.tables is not None:
        return batch.tables
    return tree_batches.tables_of(
        prepared.flat, batch.programs, batch.starts, others=prepared.others, sums=prepared.sums
    )


def _add_groups(
    total: FloatArray,
    prepared: Prepared,
    batch: Batch,
    tables: FloatArray,
    coding: Coding,
    *,
    rows: tuple[int, int],
) -> None:
    from explain_step.explainers import tree_kernels

    flat, nodes = prepared.flat, batch.nodes
    tree_kernels.add_batch(
        total, batch.starts, batch.operations, batch.splits, batch.targets, tables, batch.outputs, batch.levels,
        flat.limit[nodes], flat.category[nodes], flat.sides, coding.codes, coding.line[nodes], *rows,
    )  # fmt: skip


def _add_walked(total: FloatArray, flat: FlatEnsemble, tree: int, coding: Coding) -> None:
    from explain_step.explainers import tree_paths

    nodes = tree_batches.nodes_of(flat, tree)
    *edges, longest = tree_paths.edges_of(
        flat.left[nodes], flat.right[nodes], flat.place[nodes], flat.cover[nodes]
    )
    x, weights = tree_tables.subset_nodes(int(longest)).T
    tree_paths.add_paths(
        total, *edges, np.ascontiguousarray(x), np.ascontiguousarray(weights), flat.left[nodes], flat.place[nodes],
        tree_batches.leaf_values(flat, tree), tree_batches.outputs_of(flat, tree),
        coding.codes, coding.line[nodes], flat.limit[nodes], flat.category[nodes], flat.sides,
    )  # fmt: skip


def _add_deep(
    total: FloatArray,
    flat: FlatEnsemble,
    program: Program,
    coding: Coding,
    others: Coding | None,
    *,
    sums: Sums,
) -> None:
    from explain_step.explainers import tree_deep, tree_units

    nodes = tree_batches.nodes_of(flat, program.tree)
    against = coding if others is None else others
    done = tree_deep.add_deep(
        total, program.operations, program.levels, tree_batches.leaf_values(flat, program.tree),
        tree_batches.outputs_of(flat, program.tree), flat.left[nodes],
        tree_units.parents(flat.left[nodes], flat.right[nodes]),
        flat.place[nodes], flat.cover[nodes], flat.limit[nodes], flat.category[nodes], flat.sides,
        coding.codes, coding.line[nodes], against.codes, against.line[nodes], others is None, sums.pair_of,
        KEPT_ROWS, quadrature(),
    )  # fmt: skip
    if not done:
        msg = f"a tree path depends on more than {tree_units.MOST_TABLE} columns, too many for tables of interactions"
        raise NotApplicable(msg)
