"""Eight doubles at a time: the vector operations of the compiled tree engine.

Written in the compiler's own terms, since a loop is not turned into vectors where arrays could overlap. Bounds are
not checked.

This module imports Numba and is itself imported late, by `tree_compiled`.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

EIGHT, TWO = ir.VectorType(ir.DoubleType(), 8), ir.VectorType(ir.DoubleType(), 2)


def _place(context, builder, kind, array, at):
    """Return the address of eight doubles that begin at a position of an array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), EIGHT.as_pointer())


@intrinsic
def add_eight(_typing, out, to, source, at):
    """Add eight neighbouring doubles of ``source`` to those of ``out``."""

    def generate(context, builder, signature, arguments):
        to_, at_ = (
            _place(context, builder, signature.args[i], arguments[i], arguments[i + 1]) for i in (0, 2)
        )
        total = builder.fadd(builder.load(to_, align=8), builder.load(at_, align=8))
        builder.store(total, to_, align=8)
        return context.get_dummy_value()

    return types.void(out, to, source, at), generate


@intrinsic
def add_columns(_typing, out, first, count, row, tables, begin, entry, index):
    """Add to ``count`` columns of ``out``, for eight rows each, the rows' entries of a table.

    Column j of ``out`` begins at ``first[j]``, and the entry of row r is ``begin + index[r] * entry``. Two columns of an
    entry are loaded together and then brought in the order of the rows, which costs less than gathering single numbers.
    """

    def generate(context, builder, signature, arguments):
        data = [
            context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (0, 1, 4, 7)
        ]
        out_, first_, tables_, index_ = data
        count_, row_, begin_, entry_ = (arguments[i] for i in (2, 3, 5, 6))
        one = ir.Constant(row_.type, 1)
        entries = []
        for r in range(8):
            at = builder.add(row_, ir.Constant(row_.type, r))
            state = builder.zext(builder.load(builder.gep(index_, [at])), row_.type)
            entries.append(builder.gep(tables_, [builder.add(begin_, builder.mul(state, entry_))]))

        def add(column, values):
            start = builder.load(builder.gep(first_, [column]))
            to_ = builder.bitcast(builder.gep(out_, [builder.add(start, row_)]), EIGHT.as_pointer())
            builder.store(builder.fadd(builder.load(to_, align=8), values), to_, align=8)

        with cgutils.for_range(builder, builder.lshr(builder.add(count_, one), one)) as loop:
            column = builder.shl(loop.index, one)
            pairs = [builder.bitcast(builder.gep(e, [column]), TWO.as_pointer()) for e in entries]
            loaded = [builder.load(p, align=8) for p in pairs]
            even, odd = _joined(builder, loaded[::2]), _joined(builder, loaded[1::2])
            add(column, builder.shuffle_vector(even, odd, _lanes([0, 8, 2, 10, 4, 12, 6, 14])))
            column = builder.add(column, one)
            with builder.if_then(builder.icmp_signed("<", column, count_), likely=True):
                add(column, builder.shuffle_vector(even, odd, _lanes([1, 9, 3, 11, 5, 13, 7, 15])))
        return context.get_dummy_value()

    return types.void(out, first, count, row, tables, begin, entry, index), generate


def _lanes(which):
    return ir.Constant(ir.VectorType(ir.IntType(32), len(which)), which)


def _joined(builder, parts):
    """Return vectors of equal length, a power of two of them, as one."""
    while len(parts) > 1:
        lanes = _lanes(list(range(2 * parts[0].type.count)))
        parts = [builder.shuffle_vector(a, b, lanes) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


@intrinsic
def scale_eight(_typing, out, to, source, at, factor):
    """Write eight neighbouring doubles of ``source`` times ``factor`` to ``out``."""

    def generate(context, builder, signature, arguments):
        to_, at_ = (
            _place(context, builder, signature.args[i], arguments[i], arguments[i + 1]) for i in (0, 2)
        )
        many = ir.Constant(EIGHT, ir.Undefined)
        for lane in range(8):
            many = builder.insert_element(many, arguments[4], ir.Constant(ir.IntType(32), lane))
        builder.store(builder.fmul(builder.load(at_, align=8), many), to_, align=8)
        return context.get_dummy_value()

    return types.void(out, to, source, at, types.float64), generate


@intrinsic
def multiply_eight(_typing, out, to, source, at, other, there):
    """Write the products of eight neighbouring doubles of ``source`` and ``other`` to ``out``."""

    def generate(context, builder, signature, arguments):
        to_, at_, there_ = (
            _place(context, builder, signature.args[i], arguments[i], arguments[i + 1]) for i in (0, 2, 4)
        )
        product = builder.fmul(builder.load(at_, align=8), builder.load(there_, align=8))
        builder.store(product, to_, align=8)
        return context.get_dummy_value()

    return types.void(out, to, source, at, other, there), generate


@intrinsic
def dot_eight(_typing, one, at, other, there):
    """Return the sum of the products of eight neighbouring doubles, in a fixed order."""

    def generate(context, builder, signature, arguments):
        a, b = (_place(context, builder, signature.args[i], arguments[i], arguments[i + 1]) for i in (0, 2))
        part = builder.fmul(builder.load(a, align=8), builder.load(b, align=8))
        for width in (4, 2, 1):
            low, high = (
                ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(first, first + width)))
                for first in (0, width)
            )
            nothing = ir.Constant(part.type, ir.Undefined)
            part = builder.fadd(
                builder.shuffle_vector(part, nothing, low), builder.shuffle_vector(part, nothing, high)
            )
        return builder.extract_element(part, ir.Constant(ir.IntType(32), 0))

    return types.float64(one, at, other, there), generate


@intrinsic
def first_bit(_typing, mask):
    """Return the position of the lowest bit that is set; 64 where none is."""

    def generate(_context, builder, _signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def at_most_eight(_typing, codes, at, most):
    """Return which of eight neighbouring codes are at most ``most``, as the bits of a byte."""

    def generate(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        kind = ir.VectorType(data.type.pointee, 8)
        some = builder.load(
            builder.bitcast(builder.gep(data, [arguments[1]]), kind.as_pointer()),
            align=data.type.pointee.width // 8,
        )
        holds = builder.icmp_unsigned("<=", some, _eight_times(builder, arguments[2]))
        return builder.bitcast(holds, ir.IntType(8))

    return types.uint8(codes, at, codes.dtype), generate


@intrinsic
def multiply_chosen(_typing, products, to, at, count, passed, failed, factors, first, rest):
    """Write ``count`` times eight products, of those before and of the factor for rows that passed, failed, or neither.

    Parameters
    ----------
    passed, failed : uint8
        A bit for each of the eight rows.
    factors : ndarray
        From ``first`` on, two for each of ``count``: of a row that failed, and of one that passed.
    rest : float
        The factor of other rows.
    """

    def generate(context, builder, signature, arguments):
        _, to_, at_, count_, passed_, failed_, _, first_, rest_ = arguments
        choose = _choice(context, builder, signature.args[6], arguments[6], (passed_, failed_, rest_))
        with cgutils.for_range(builder, count_) as loop:
            eight = builder.mul(loop.index, ir.Constant(loop.index.type, 8))
            from_, into = (
                _place(context, builder, signature.args[0], arguments[0], builder.add(begin, eight))
                for begin in (at_, to_)
            )
            factor = choose(builder.add(first_, builder.add(loop.index, loop.index)))
            builder.store(builder.fmul(builder.load(from_, align=8), factor), into, align=8)
        return context.get_dummy_value()

    return types.void(products, to, at, count, passed, failed, factors, first, rest), generate


@intrinsic
def add_chosen(
    _typing, sums, row, below, to, source, at, weight, count, passed, failed, changes, first,
):  # fmt: skip
    """Add ``count`` times eight numbers of ``source``, times ``weight``, to those of ``below``, and their sum to ``sums``.

    In the sum each is multiplied with the change for rows that passed, failed, or neither, which is 0: `multiply_chosen`.
    """

    def generate(context, builder, signature, arguments):
        sums_, row_, below_, to_, source_, at_, weight_, count_, passed_, failed_, _, first_ = arguments
        choose = _choice(
            context,
            builder,
            signature.args[10],
            arguments[10],
            (passed_, failed_, ir.Constant(weight_.type, 0.0)),
        )
        into = _place(context, builder, signature.args[0], sums_, row_)
        total = cgutils.alloca_once_value(builder, builder.load(into, align=8))
        factor = _eight_times(builder, weight_)
        with cgutils.for_range(builder, count_) as loop:
            eight = builder.mul(loop.index, ir.Constant(loop.index.type, 8))
            from_ = _place(context, builder, signature.args[4], source_, builder.add(at_, eight))
            up = _place(context, builder, signature.args[2], below_, builder.add(to_, eight))
            mine = builder.fmul(builder.load(from_, align=8), factor)
            builder.store(builder.fadd(builder.load(up, align=8), mine), up, align=8)
            change = choose(builder.add(first_, builder.add(loop.index, loop.index)))
            builder.store(builder.fadd(builder.load(total), builder.fmul(mine, change)), total)
        builder.store(builder.load(total), into, align=8)
        return context.get_dummy_value()

    given = (sums, row, below, to, source, at, weight, count, passed, failed, changes, first)
    return types.void(*given), generate


def _choice(context, builder, kind, array, states):
    """Return what gives eight rows' factors, of the pair at a position of an array, by their states."""
    data = context.make_array(kind)(context, builder, array).data
    bits = ir.VectorType(ir.IntType(1), 8)
    passed, failed = (builder.bitcast(state, bits) for state in states[:2])
    rest = _eight_times(builder, states[2])

    def choose(at):
        no, yes = (
            _eight_times(builder, builder.load(builder.gep(data, [place])))
            for place in (at, builder.add(at, ir.Constant(at.type, 1)))
        )
        return builder.select(passed, yes, builder.select(failed, no, rest))

    return choose


def _eight_times(builder, value):
    """Return a vector of eight equal numbers."""
    many = ir.Constant(ir.VectorType(value.type, 8), ir.Undefined)
    for lane in range(8):
        many = builder.insert_element(many, value, ir.Constant(ir.IntType(32), lane))
    return many
