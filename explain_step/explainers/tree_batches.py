"""The trees of an ensemble as programs, and the tables of runs of them: what the compiled engine sums over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from explain_step.errors import NotApplicable
from explain_step.explainers.tree_codes import Coding, FlatEnsemble
from explain_step.explainers.tree_quadrature import MOST_TABLE, quadrature
from explain_step.types import FloatArray, IntArray

BATCH_ENTRIES = 1 << 18
"""Table entries made together: 2 MiB, which stay in the second-level cache while the rows go through them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """A compiled tree; see `tree_programs.compile_tree`.

    ``layout`` says where the groups' tables are, and which ``targets`` their entries go to: columns or pairs of them.
    ``deep`` leaves are done for all rows at once. A tree that is ``walked`` is, too, and has neither operations nor tables.
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
    walked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """What is summed: values of columns, interactions of pairs of columns, or what the model answers.

    Attributes
    ----------
    width : int
        Number of sums per row and output.
    pair_of : ndarray of shape (used columns, used columns)
        Place of each pair of columns, negative where not asked for; without entries: values.
    answers : bool
        What the model answers: a single sum per row and output.
    """

    width: int
    pair_of: IntArray
    answers: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Trees that rows go through together, joined; see `tree_kernels.add_batch`.

    ``tables`` are None where they are made anew for every block of rows. ``nodes`` are the trees' among all.
    """

    programs: tuple[Program, ...]
    starts: IntArray
    nodes: slice
    operations: IntArray
    splits: IntArray
    targets: IntArray
    levels: IntArray
    outputs: IntArray
    tables: FloatArray | None


NOTHING = Sums(width=0, pair_of=np.zeros((0, 0), dtype=np.int64))
ANSWERS = Sums(width=1, pair_of=np.zeros((0, 0), dtype=np.int64), answers=True)


def compile_program(flat: FlatEnsemble, tree: int, *, sums: Sums, path_dependent: bool) -> Program:
    """Return a tree's program.

    Answers are walked where a leaf is too deep for a table.
    Path-dependent values are walked where most leaves are deep, or a path has more columns than a table holds: that costs
    less, and has no limit.

    Raises
    ------
    NotApplicable
        A path has more distinct columns than fit a packed pattern.
    """
    from explain_step.explainers import tree_programs

    nodes = nodes_of(flat, tree)
    operations, splits, columns, leaves, tests, levels = tree_programs.compile_tree(
        flat.left[nodes], flat.right[nodes], flat.place[nodes]
    )
    kind = operations[:, tree_programs.KIND]
    deep = int((kind == tree_programs.DEEP).sum())
    if sums.answers:
        if levels < 0 or deep:
            return _walked(tree)
    elif path_dependent and not len(sums.pair_of):
        longest = operations[:, tree_programs.PATH].max()
        if levels < 0 or longest > MOST_TABLE or 2 * deep > (flat.left[nodes] < 0).sum():
            return _walked(tree)
    if levels < 0:
        most = tree_programs.MOST_PATH
        msg = f"a tree path depends on more than {most} columns, which the compiled tables do not hold"
        raise NotApplicable(msg)
    layout, targets = operations, columns
    if len(sums.pair_of):
        layout, targets = tree_programs.pair_program(operations, columns, sums.pair_of)
    elif sums.answers:
        group = np.flatnonzero(kind == tree_programs.GROUP)
        layout, targets = operations.copy(), np.zeros(len(group), np.int64)
        layout[group, tree_programs.COLUMNS] = 1
        layout[group, tree_programs.FIRST_COLUMN] = np.arange(len(group))
    entries = int(tree_programs.place_tables(layout, width_of(flat, tree)))
    return Program(
        tree=tree, operations=operations, layout=layout, splits=splits, columns=columns, targets=targets,
        leaves=leaves, tests=tests, levels=int(levels), entries=entries, deep=deep > 0, walked=False,
    )  # fmt: skip


def _walked(tree: int) -> Program:
    none, nothing = np.zeros(0, np.int64), np.zeros((0, 13), np.int64)
    return Program(
        tree=tree, operations=nothing, layout=nothing, splits=none, columns=none, targets=none,
        leaves=np.zeros((0, 2), np.int64), tests=np.zeros((0, 8, 3), np.int64), levels=1, entries=0, deep=True, walked=True,
    )  # fmt: skip


def aligned(shape: tuple[int, ...]) -> FloatArray:
    """Return zeros that begin where a line of the cache does: vectors of eight then never lie across two."""
    size = int(np.prod(shape))
    room = np.zeros(size + 8)
    first = -room.ctypes.data % 64 // 8
    return room[first : first + size].reshape(shape)


def batches(programs: list[Program]) -> Iterator[list[Program]]:
    """Yield runs of trees whose tables have about `BATCH_ENTRIES` entries together."""
    batch: list[Program] = []
    for program in programs:
        if batch and sum(p.entries for p in batch) + program.entries > BATCH_ENTRIES:
            yield batch
            batch = []
        batch.append(program)
    if batch:
        yield batch


def joined(
    flat: FlatEnsemble, programs: list[Program], *, others: Coding | None, sums: Sums, held: bool
) -> Batch:
    """Return trees as a batch, with their tables where they are ``held``."""
    starts = sizes_of(flat, programs)
    first, last = programs[0].tree, programs[-1].tree
    return Batch(
        programs=tuple(programs),
        starts=starts,
        nodes=slice(int(flat.start[first]), int(flat.start[last + 1])),
        operations=np.concatenate([p.layout for p in programs]),
        splits=np.concatenate([p.splits for p in programs]),
        targets=np.concatenate([p.targets for p in programs]),
        levels=np.array([p.levels for p in programs]),
        outputs=flat.outputs[flat.output_start[first] : flat.output_start[last + 1]],
        tables=tables_of(flat, programs, starts, others=others, sums=sums) if held else None,
    )


def nodes_of(flat: FlatEnsemble, tree: int) -> slice:
    """Return which nodes of all are the tree's."""
    return slice(int(flat.start[tree]), int(flat.start[tree + 1]))


def outputs_of(flat: FlatEnsemble, tree: int) -> IntArray:
    """Return the outputs that the tree adds to."""
    return flat.outputs[flat.output_start[tree] : flat.output_start[tree + 1]]


def width_of(flat: FlatEnsemble, tree: int) -> int:
    """Return the number of outputs that the tree adds to."""
    return len(outputs_of(flat, tree))


def leaf_values(flat: FlatEnsemble, tree: int) -> FloatArray:
    """Return the values of the tree's nodes, flat."""
    begin, nodes = flat.value_start[tree], nodes_of(flat, tree)
    return flat.values[begin : begin + (nodes.stop - nodes.start) * width_of(flat, tree)]


def sizes_of(flat: FlatEnsemble, programs: list[Program]) -> IntArray:
    """Return where each tree's nodes, operations, splits, targets, entries and outputs begin in a batch's arrays."""
    sizes = [
        (
            *(len(flat.left[nodes_of(flat, p.tree)]), len(p.layout), len(p.splits), len(p.targets)),
            *(p.entries, width_of(flat, p.tree)),
        )
        for p in programs
    ]
    return np.concatenate([np.zeros((1, 6), np.int64), np.cumsum(np.array(sizes, dtype=np.int64), axis=0)])


def tables_of(
    flat: FlatEnsemble, programs: Iterable[Program], starts: IntArray, *, others: Coding | None, sums: Sums
) -> FloatArray:
    """Return the tables of several trees, one after the other; without a background path-dependent ones."""
    tables = aligned((int(starts[-1, 4]),))
    for program, begin in zip(programs, starts[:, 4], strict=False):
        _fill(tables[begin : begin + program.entries], flat, program, others=others, sums=sums)
    return tables


def _fill(
    tables: FloatArray, flat: FlatEnsemble, program: Program, *, others: Coding | None, sums: Sums
) -> None:
    from explain_step.explainers import tree_answers, tree_kernels, tree_units

    if sums.answers:
        tree_answers.fill_answers(
            tables, program.operations, program.layout, program.leaves, program.tests,
            leaf_values(flat, program.tree), width_of(flat, program.tree),
        )  # fmt: skip
        return
    nodes = nodes_of(flat, program.tree)
    shares = np.zeros((0, 0))
    if others is not None:
        shares = tree_kernels.count_states(
            program.operations, program.splits, program.levels,
            others.codes, others.line[nodes], flat.limit[nodes], flat.category[nodes], flat.sides,
        )  # fmt: skip
    *_, weights, sizes = quadrature()
    tree_kernels.fill_tables(
        tables, program.operations, program.layout, program.columns, program.leaves, program.tests,
        leaf_values(flat, program.tree), width_of(flat, program.tree), sums.pair_of, shares,
        tree_units.parents(flat.left[nodes], flat.right[nodes]), flat.place[nodes], flat.cover[nodes], weights, sizes,
    )  # fmt: skip
