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

EIGHT = ir.VectorType(ir.DoubleType(), 8)


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
def add_entries(_typing, out, to, tables, first, index, row, stride, count, entry):
    """Add to eight neighbouring doubles of ``out`` those of several tables, one after the other.

    Table g begins at ``first[g]``, and the entry is ``index[g * stride + row]``, of ``entry`` doubles each. What is added
    stays in a register.
    """

    def generate(context, builder, signature, arguments):
        to_ = _place(context, builder, signature.args[0], arguments[0], arguments[1])
        data = [context.make_array(signature.args[i])(context, builder, arguments[i]).data for i in (2, 3, 4)]
        tables_, first_, index_ = data
        row_, stride_, count_, entry_ = arguments[5:9]
        total = cgutils.alloca_once_value(builder, builder.load(to_, align=8))
        with cgutils.for_range(builder, count_) as loop:
            at = builder.add(builder.mul(loop.index, stride_), row_)
            state = builder.zext(builder.load(builder.gep(index_, [at])), ir.IntType(64))
            begin = builder.load(builder.gep(first_, [loop.index]))
            where = builder.add(begin, builder.mul(state, entry_))
            own = builder.bitcast(builder.gep(tables_, [where]), EIGHT.as_pointer())
            builder.store(builder.fadd(builder.load(total), builder.load(own, align=8)), total)
        builder.store(builder.load(total), to_, align=8)
        return context.get_dummy_value()

    return types.void(out, to, tables, first, index, row, stride, count, entry), generate


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
