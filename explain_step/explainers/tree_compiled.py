"""The tree engine on compiled kernels: the values of `tree.interventional`, many times faster, where Numba is.

The numbers agree with those of the NumPy engine to rounding. They do not depend on the number of threads or
on blocks of rows: the trees are summed in `CHUNKS` parts, the parts in their order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from explain_step.errors import NotApplicable
from explain_step.explainers import tree_codes
from explain_step.explainers.ensembles import Ensemble, Tree, frozen_tree
from explain_step.explainers.tree_codes import Coding, FlatEnsemble
from explain_step.explainers.tree_quadrature import quadrature
from explain_step.types import FloatArray, IntArray

CHUNKS = 16
"""The trees are summed in this many parts, then the parts in order, whatever the number of threads."""
ROWS_AT_ONCE, VALUES_AT_ONCE = 1 << 16, 1 << 23
"""Rows and attributions held per part of the sum; further rows are done block by block."""
BATCH_ENTRIES = 1 << 22
"""Table entries made together: 32 MiB."""
WHOLE_ROWS = 16
"""Up to so many used columns a table entry has a place for each of them."""
KEPT_ROWS = 1 << 17
"""Background rows whose patterns are kept for every level of a deep tree."""
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
    """A compiled tree; see `tree_programs.compile_tree`.

    ``layout`` says where the groups' tables are, and which ``targets`` their entries go to: columns or pairs of them.
    """

    tree: int
    operations: IntArray
    layout: IntArray
    splits: IntArray
    columns: IntArray
    targets: IntArray
    leaves: IntArray
    tests: IntArray
    levels: int
    entries: int
    deep: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """What is summed: values of columns, or interactions of pairs of columns.

    Attributes
    ----------
    width : int
        Number of sums per row and output.
    row_columns : int
        Places in a table entry, where it has one for every used column; else 0.
    pair_of : ndarray of shape (used columns, used columns)
        Place of each pair of columns, negative where not asked for; without entries: values.
    """

    width: int
    row_columns: int
    pair_of: IntArray


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
    padded = -(-n_used // 8) * 8
    sums = Sums(
        width=padded,
        row_columns=padded if padded <= WHOLE_ROWS else 0,
        pair_of=np.zeros((0, 0), dtype=np.int64),
    )
    for part in _blocks(ensemble, rows, background, places=places, sums=sums, threads=threads):
        yield part[:, :, :n_used]


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
    sums = Sums(width=int(pair_of.max(initial=-1)) + 1, row_columns=0, pair_of=pair_of)
    yield from _blocks(ensemble, rows, background, places=places, sums=sums, threads=threads)


def _blocks(
    ensemble: Ensemble,
    rows: FloatArray,
    background: FloatArray | None,
    *,
    places: IntArray,
    sums: Sums,
    threads: int | None,
) -> Iterator[FloatArray]:
    flat = tree_codes.flatten(ensemble, places=places)
    others = None if background is None else tree_codes.encode(flat, background)
    outputs = len(ensemble.offset)
    programs = [_compile(flat, tree, sums=sums) for tree in range(len(ensemble.trees))]
    parts = tree_codes.chunks(len(programs), parts=CHUNKS)
    block = max(1024, min(ROWS_AT_ONCE, VALUES_AT_ONCE // max(1, sums.width * outputs)))
    with ThreadPoolExecutor(max_workers=threads or processors()) as pool:
        for start in range(0, rows.shape[1], block):
            coding = tree_codes.encode(flat, rows[:, start : start + block])
            shape = (coding.codes.shape[1], outputs, sums.width)
            work = [
                pool.submit(_sum, flat, programs[a:b], coding, others, sums=sums, shape=shape)
                for a, b in parts
            ]
            total = np.zeros(shape)
            for done in work:
                total += done.result()
            yield total


def warm() -> None:
    """Compile every kernel, or load it from Numba's cache on disk, by explaining a tree of two kinds of leaves."""
    deep = _comb(depth=12)
    ensemble = Ensemble(trees=(deep,), offset=np.zeros(1), encode=np.asarray, columns=tuple(range(12)))
    rows = np.random.default_rng(0).normal(size=(12, 8))
    predict(ensemble, rows)
    for n_used in (12, 24):  # tables with and without a place for every column
        for background in (rows, None):
            list(shapley_values(ensemble, rows, background, places=np.arange(12), n_used=n_used, threads=1))
    pair_of = np.arange(144).reshape(12, 12)
    for background in (rows, None):
        list(interactions(ensemble, rows, background, places=np.arange(12), pair_of=pair_of, threads=1))


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
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def predict(ensemble: Ensemble, encoded: FloatArray) -> FloatArray:
    """Return the ensemble's output for encoded rows: array of shape (rows, outputs).

    Raises
    ------
    NotApplicable
        As `shapley_values`.
    """
    from explain_step.explainers import tree_answers

    flat = tree_codes.flatten(ensemble, places=np.arange(len(encoded)))
    coding = tree_codes.encode(flat, encoded)
    out = np.tile(ensemble.offset, (encoded.shape[1], 1)).astype(np.float64)
    for tree in range(len(ensemble.trees)):
        program = _compile(flat, tree, sums=NOTHING)
        nodes, values, width = _nodes(flat, tree), _values(flat, tree), _width(flat, tree)
        answers = tree_answers.fill_answers(program.operations, program.leaves, program.tests, values, width)
        tree_answers.add_answers(
            out, program.operations, program.splits, program.levels, answers, values, _outputs(flat, tree),
            coding.codes, coding.line[nodes], flat.limit[nodes], flat.category[nodes], flat.sides,
        )  # fmt: skip
    return out


NOTHING = Sums(width=0, row_columns=0, pair_of=np.zeros((0, 0), dtype=np.int64))


def _compile(flat: FlatEnsemble, tree: int, *, sums: Sums) -> Program:
    from explain_step.explainers import tree_programs

    nodes = _nodes(flat, tree)
    operations, splits, columns, leaves, tests, levels = tree_programs.compile_tree(
        flat.left[nodes], flat.right[nodes], flat.place[nodes]
    )
    if levels < 0:
        most = tree_programs.MOST_PATH
        msg = f"a tree path depends on more than {most} columns, which the compiled tables do not hold"
        raise NotApplicable(msg)
    layout, targets = operations, columns
    if len(sums.pair_of):
        layout, targets = tree_programs.pair_program(operations, columns, sums.pair_of)
    entries = int(tree_programs.place_tables(layout, _width(flat, tree), sums.row_columns))
    deep = bool((operations[:, tree_programs.KIND] == tree_programs.DEEP).any())
    return Program(
        tree=tree, operations=operations, layout=layout, splits=splits, columns=columns, targets=targets,
        leaves=leaves, tests=tests, levels=int(levels), entries=entries, deep=deep,
    )  # fmt: skip


def _sum(
    flat: FlatEnsemble,
    programs: list[Program],
    coding: Coding,
    others: Coding | None,
    *,
    sums: Sums,
    shape: tuple[int, int, int],
) -> FloatArray:
    """Return the summed values of some trees."""
    total = _aligned(shape)
    for batch in _batches(programs):
        _add_groups(total, flat, batch, coding, others, sums=sums)
        for program in batch:
            if program.deep:
                _add_deep(total, flat, program, coding, others, sums=sums)
    return total


def _aligned(shape: tuple[int, ...]) -> FloatArray:
    """Return zeros that begin where a line of the cache does: vectors of eight then never lie across two."""
    size = int(np.prod(shape))
    room = np.zeros(size + 8)
    first = -room.ctypes.data % 64 // 8
    return room[first : first + size].reshape(shape)


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


def _add_groups(
    total: FloatArray,
    flat: FlatEnsemble,
    batch: list[Program],
    coding: Coding,
    others: Coding | None,
    *,
    sums: Sums,
) -> None:
    from explain_step.explainers import tree_kernels

    first = batch[0].tree
    sizes = [
        (
            *(len(flat.left[_nodes(flat, p.tree)]), len(p.layout), len(p.splits), len(p.targets)),
            *(p.entries, _width(flat, p.tree)),
        )
        for p in batch
    ]
    starts = np.concatenate([np.zeros((1, 6), np.int64), np.cumsum(np.array(sizes, dtype=np.int64), axis=0)])
    tables = _aligned((int(starts[-1, 4]),))
    for program, begin in zip(batch, starts[:, 4], strict=False):
        _fill(tables[begin : begin + program.entries], flat, program, others=others, sums=sums)
    nodes = slice(flat.start[first], flat.start[batch[-1].tree + 1])
    outputs = slice(flat.output_start[first], flat.output_start[batch[-1].tree + 1])
    tree_kernels.add_batch(
        total, starts,
        np.concatenate([p.layout for p in batch]),
        np.concatenate([p.splits for p in batch]),
        np.concatenate([p.targets for p in batch]),
        tables, flat.outputs[outputs], np.array([p.levels for p in batch]), sums.row_columns,
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
    tables: FloatArray, flat: FlatEnsemble, program: Program, *, others: Coding | None, sums: Sums
) -> None:
    from explain_step.explainers import tree_kernels, tree_units

    nodes = _nodes(flat, program.tree)
    shares = np.zeros((0, 0))
    if others is not None:
        shares = tree_kernels.count_states(
            program.operations, program.splits, program.levels,
            others.codes, others.line[nodes], flat.limit[nodes], flat.category[nodes], flat.sides,
        )  # fmt: skip
    *_, weights, sizes = quadrature()
    tree_kernels.fill_tables(
        tables, program.operations, program.layout, program.columns, program.leaves, program.tests,
        _values(flat, program.tree), _width(flat, program.tree), sums.row_columns, sums.pair_of, shares,
        tree_units.parents(flat.left[nodes], flat.right[nodes]), flat.place[nodes], flat.cover[nodes], weights, sizes,
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

    nodes = _nodes(flat, program.tree)
    against = coding if others is None else others
    done = tree_deep.add_deep(
        total, sums.row_columns, program.operations, program.levels, _values(flat, program.tree),
        _outputs(flat, program.tree), flat.left[nodes], tree_units.parents(flat.left[nodes], flat.right[nodes]),
        flat.place[nodes], flat.cover[nodes], flat.limit[nodes], flat.category[nodes], flat.sides,
        coding.codes, coding.line[nodes], against.codes, against.line[nodes], others is None, sums.pair_of,
        KEPT_ROWS, quadrature(),
    )  # fmt: skip
    if not done:
        msg = f"a tree path depends on more than {tree_units.MOST_TABLE} columns, too many for tables of interactions"
        raise NotApplicable(msg)
