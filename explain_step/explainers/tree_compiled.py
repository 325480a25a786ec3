"""The tree engine on compiled kernels: the values of `tree.interventional`, many times faster, where Numba is.

The numbers agree with those of the NumPy engine to rounding. They do not depend on the number of threads or
on blocks of rows: the trees are summed in `CHUNKS` parts, the parts in their order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from scipy.special import comb

from explain_step.errors import NotApplicable
from explain_step.explainers import tree_codes
from explain_step.explainers.ensembles import Ensemble, Tree, frozen_tree
from explain_step.explainers.tree_codes import Coding, FlatEnsemble
from explain_step.types import FloatArray, IntArray

CHUNKS = 16
"""The trees are summed in this many parts, then the parts in order, whatever the number of threads."""
ROWS_AT_ONCE, VALUES_AT_ONCE = 1 << 16, 1 << 23
"""Rows and attributions held per part of the sum; further rows are done block by block."""
BATCH_ENTRIES, HELD_ENTRIES = 1 << 22, 1 << 24
"""Table entries made together: 32 MiB; and most of those that are held for further rows: 128 MiB."""
SMALL_BLOCK = 1 << 14
"""Rows held per part of the sum where the tables are held: a block then costs nothing beside its rows."""
WHOLE_ROWS = 16
"""Up to so many used columns a table entry has a place for each of them."""
MOST_COLUMNS = 32
SMALL_WORK = 500_000_000
"""Leaves times rows below which NumPy is used: about ten seconds of a processor. Kernels take a second or two to load,
and half a minute to compile where they never were."""


def available() -> bool:
    """Return whether Numba can be imported."""
    return find_spec("numba") is not None


def worthwhile(ensemble: Ensemble, *, rows: int) -> bool:
    """Return whether the kernels are there and the work is worth loading them; a matter of sizes alone."""
    leaves = sum(int((tree.left < 0).sum()) for tree in ensemble.trees)
    return leaves * rows > SMALL_WORK and available()


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A compiled tree; see `tree_kernels.compile_tree`."""

    tree: int
    operations: IntArray
    splits: IntArray
    columns: IntArray
    leaves: IntArray
    tests: IntArray
    levels: int
    entries: int
    deep: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Trees that rows go through together; ``tables`` are None where they are made anew for every block of rows."""

    programs: tuple[Program, ...]
    starts: IntArray
    tables: FloatArray | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An ensemble against a background, ready for any number of rows; see `prepare`."""

    flat: FlatEnsemble
    others: Coding | None
    parts: tuple[tuple[Batch, ...], ...]
    row_columns: int
    n_used: int
    outputs: int
    held: bool


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
        A path has more distinct columns than fit a packed pattern.
    """
    prepared = prepare(ensemble, background, places=places, n_used=n_used, hold=False)
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
    flat = tree_codes.flatten(ensemble, places=places)
    others = None if background is None else tree_codes.encode(flat, background)
    padded = -(-n_used // 8) * 8
    row_columns = padded if padded <= WHOLE_ROWS else 0
    programs = [_compile(flat, tree, row_columns=row_columns) for tree in range(len(ensemble.trees))]
    held = hold and sum(p.entries for p in programs) <= HELD_ENTRIES

    def batch(some: list[Program]) -> Batch:
        starts = _sizes(flat, some)
        tables = _tables(flat, some, starts, others=others, row_columns=row_columns) if held else None
        return Batch(programs=tuple(some), starts=starts, tables=tables)

    parts = tree_codes.chunks(len(programs), parts=CHUNKS)
    with ThreadPoolExecutor(max_workers=processors()) as pool:
        made = [[pool.submit(batch, some) for some in _batches(programs[a:b])] for a, b in parts]
        done = tuple(tuple(one.result() for one in part) for part in made)
    return Prepared(
        flat=flat, others=others, parts=done, row_columns=row_columns, n_used=n_used,
        outputs=len(ensemble.offset), held=held,
    )  # fmt: skip


def values_of(prepared: Prepared, rows: FloatArray, *, threads: int | None = None) -> Iterator[FloatArray]:
    """Yield the values of blocks of encoded rows (columns, n), in order, as `shapley_values` does."""
    padded, outputs = -(-prepared.n_used // 8) * 8, prepared.outputs
    most = SMALL_BLOCK if prepared.held else ROWS_AT_ONCE
    block = max(1024, min(most, VALUES_AT_ONCE // max(1, padded * outputs)))
    with ThreadPoolExecutor(max_workers=threads or processors()) as pool:
        for start in range(0, rows.shape[1], block):
            coding = tree_codes.encode(prepared.flat, rows[:, start : start + block])
            shape = (coding.codes.shape[1], outputs, padded)
            work = [pool.submit(_sum, prepared, part, coding, shape=shape) for part in prepared.parts]
            total = np.zeros(shape)
            for done in work:
                total += done.result()
            yield total[:, :, : prepared.n_used]


def warm() -> None:
    """Compile every kernel, or load it from Numba's cache on disk, by explaining a tree of two kinds of leaves."""
    deep = _comb(depth=12)
    ensemble = Ensemble(trees=(deep,), offset=np.zeros(1), encode=np.asarray, columns=tuple(range(12)))
    rows = np.random.default_rng(0).normal(size=(12, 8))
    predict(ensemble, rows)
    for n_used in (12, 24):  # tables with and without a place for every column
        for background in (rows, None):
            list(shapley_values(ensemble, rows, background, places=np.arange(12), n_used=n_used, threads=1))


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

    Raises
    ------
    NotApplicable
        As `shapley_values`.
    """
    from explain_step.explainers import tree_kernels

    flat = tree_codes.flatten(ensemble, places=np.arange(len(encoded)))
    coding = tree_codes.encode(flat, encoded)
    out = np.tile(ensemble.offset, (encoded.shape[1], 1)).astype(np.float64)
    for tree in range(len(ensemble.trees)):
        program = _compile(flat, tree, row_columns=0)
        nodes, values, width = _nodes(flat, tree), _values(flat, tree), _width(flat, tree)
        answers = tree_kernels.fill_answers(program.operations, program.leaves, program.tests, values, width)
        tree_kernels.add_answers(
            out, program.operations, program.splits, program.levels, answers, values, _outputs(flat, tree),
            coding.codes, coding.line[nodes], flat.limit[nodes], flat.category[nodes], flat.sides,
        )  # fmt: skip
    return out


def _compile(flat: FlatEnsemble, tree: int, *, row_columns: int) -> Program:
    from explain_step.explainers import tree_kernels

    nodes = _nodes(flat, tree)
    operations, splits, columns, leaves, tests, levels = tree_kernels.compile_tree(
        flat.left[nodes], flat.right[nodes], flat.place[nodes]
    )
    if levels < 0:
        most = tree_kernels.MOST_PATH
        msg = f"a tree path depends on more than {most} columns, which the compiled tables do not hold"
        raise NotApplicable(msg)
    entries = int(tree_kernels.place_tables(operations, _width(flat, tree), row_columns))
    deep = bool((operations[:, tree_kernels.KIND] == tree_kernels.DEEP).any())
    return Program(
        tree=tree, operations=operations, splits=splits, columns=columns, leaves=leaves, tests=tests,
        levels=int(levels), entries=entries, deep=deep,
    )  # fmt: skip


def _sum(
    prepared: Prepared, part: tuple[Batch, ...], coding: Coding, *, shape: tuple[int, int, int]
) -> FloatArray:
    """Return the summed values of some trees."""
    sums = np.zeros(shape)
    for batch in part:
        _add_groups(sums, prepared, batch, coding)
        for program in batch.programs:
            if program.deep:
                _add_deep(
                    sums, prepared.flat, program, coding, prepared.others, row_columns=prepared.row_columns
                )
    return sums


def _batches(programs: list[Program]) -> Iterator[list[Program]]:
    """Yield runs of trees whose tables have about `BATCH_ENTRIES` entries together."""
    batch: list[Program] = []
    for program in programs:
        if batch and sum(p.entries for p in batch) + program.entries > BATCH_ENTRIES:
            yield batch
            batch = []
        batch.append(program)
    if batch:
        yield batch


def _sizes(flat: FlatEnsemble, programs: list[Program]) -> IntArray:
    """Return where each tree's nodes, operations, splits, columns, entries and outputs begin in a batch's arrays."""
    sizes = [
        (
            *(len(flat.left[_nodes(flat, p.tree)]), len(p.operations), len(p.splits), len(p.columns)),
            *(p.entries, _width(flat, p.tree)),
        )
        for p in programs
    ]
    return np.concatenate([np.zeros((1, 6), np.int64), np.cumsum(np.array(sizes, dtype=np.int64), axis=0)])


def _tables(
    flat: FlatEnsemble,
    programs: Iterable[Program],
    starts: IntArray,
    *,
    others: Coding | None,
    row_columns: int,
) -> FloatArray:
    tables = np.zeros(starts[-1, 4])
    for program, begin in zip(programs, starts[:, 4], strict=False):
        _fill(tables[begin : begin + program.entries], flat, program, others=others, row_columns=row_columns)
    return tables


def _add_groups(sums: FloatArray, prepared: Prepared, batch: Batch, coding: Coding) -> None:
    from explain_step.explainers import tree_kernels

    flat, programs, row_columns = prepared.flat, batch.programs, prepared.row_columns
    tables = batch.tables
    if tables is None:
        tables = _tables(flat, programs, batch.starts, others=prepared.others, row_columns=row_columns)
    first, last = programs[0].tree, programs[-1].tree
    nodes = slice(flat.start[first], flat.start[last + 1])
    outputs = slice(flat.output_start[first], flat.output_start[last + 1])
    tree_kernels.add_batch(
        sums, batch.starts,
        np.concatenate([p.operations for p in programs]),
        np.concatenate([p.splits for p in programs]),
        np.concatenate([p.columns for p in programs]),
        tables, flat.outputs[outputs], np.array([p.levels for p in programs]), row_columns,
        flat.limit[nodes], flat.category[nodes], flat.sides, coding.codes, coding.line[nodes],
    )  # fmt: skip


def _nodes(flat: FlatEnsemble, tree: int) -> slice:
    return slice(int(flat.start[tree]), int(flat.start[tree + 1]))


def _outputs(flat: FlatEnsemble, tree: int) -> IntArray:
    return flat.outputs[flat.output_start[tree] : flat.output_start[tree + 1]]


def _width(flat: FlatEnsemble, tree: int) -> int:
    return len(_outputs(flat, tree))


def _values(flat: FlatEnsemble, tree: int) -> FloatArray:
    begin, nodes = flat.value_start[tree], _nodes(flat, tree)
    return flat.values[begin : begin + (nodes.stop - nodes.start) * _width(flat, tree)]


def _fill(
    tables: FloatArray, flat: FlatEnsemble, program: Program, *, others: Coding | None, row_columns: int
) -> None:
    from explain_step.explainers import tree_kernels, tree_units

    nodes = _nodes(flat, program.tree)
    shares = np.zeros((0, 0))
    if others is not None:
        shares = tree_kernels.count_states(
            program.operations, program.splits, program.levels,
            others.codes, others.line[nodes], flat.limit[nodes], flat.category[nodes], flat.sides,
        )  # fmt: skip
    tree_kernels.fill_tables(
        tables, program.operations, program.columns, program.leaves, program.tests,
        _values(flat, program.tree), _width(flat, program.tree), row_columns, shares,
        tree_units.parents(flat.left[nodes], flat.right[nodes]), flat.place[nodes], flat.cover[nodes], quadrature(),
    )  # fmt: skip


def _add_deep(
    sums: FloatArray,
    flat: FlatEnsemble,
    program: Program,
    coding: Coding,
    others: Coding | None,
    *,
    row_columns: int,
) -> None:
    from explain_step.explainers import tree_deep, tree_units

    nodes = _nodes(flat, program.tree)
    against = coding if others is None else others
    tree_deep.add_deep(
        sums, row_columns, program.operations, _values(flat, program.tree), _outputs(flat, program.tree),
        flat.left[nodes], flat.right[nodes], tree_units.parents(flat.left[nodes], flat.right[nodes]),
        flat.place[nodes], flat.cover[nodes], flat.limit[nodes], flat.category[nodes], flat.sides,
        coding.codes, coding.line[nodes], against.codes, against.line[nodes], others is None, quadrature(),
    )  # fmt: skip


@cache
def quadrature() -> tuple[Any, ...]:
    """Return the constants of the values by number of columns k.

    Gauss-Legendre nodes and weights on [0, 1] with ceil(k/2) nodes, exact for degree k-1; for each node the
    weights of `tree_tables.subset_sums` by number of set bits; the numbers of nodes; the weights of pairs by
    the numbers of columns that only one of two rows passes; and the number of set bits of small numbers.
    """
    half = (MOST_COLUMNS + 1) // 2
    nodes, node_weights = np.zeros((MOST_COLUMNS, half)), np.zeros((MOST_COLUMNS, half))
    weights = np.zeros((MOST_COLUMNS, half, 4, MOST_COLUMNS + 1))
    counts = np.array([max(1, (k + 1) // 2) for k in range(MOST_COLUMNS)])
    for k in range(MOST_COLUMNS):
        x, w = np.polynomial.legendre.leggauss(int(counts[k]))
        t, w = (x + 1) / 2, w / 2
        nodes[k, : len(t)], node_weights[k, : len(t)] = t, w
        for size in range(k + 1):
            rest = float(k - size)
            weights[k, : len(t), 0, size] = t**size
            weights[k, : len(t), 1, size] = w * (1 - t) ** (rest - 1)
            weights[k, : len(t), 2, size] = w / t * (1 - t) ** rest
            weights[k, : len(t), 3, size] = w / t * (1 - t) ** (rest - 1)
    a, b = np.meshgrid(np.arange(MOST_COLUMNS), np.arange(MOST_COLUMNS), indexing="ij")
    choose = comb(a + b, a)
    plus = np.divide(1.0, a * choose, out=np.zeros(a.shape), where=a > 0)
    minus = np.divide(1.0, b * choose, out=np.zeros(a.shape), where=b > 0)
    sizes = np.array([number.bit_count() for number in range(1 << 16)])
    return nodes, node_weights, weights, counts, plus, minus, sizes
