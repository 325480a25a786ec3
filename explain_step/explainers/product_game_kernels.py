"""Compiled kernel of `product_games`.

This module imports Numba and is itself imported late, by `product_games`.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES, MOST = 8, 1024
"""Background rows in a vector; and for which the factors of a point are held, in the second cache."""
NOTHING = 1e-24
"""Products that nowhere exceed this are left out: a point so far away adds less than what rounding takes."""
EIGHT = ir.VectorType(ir.DoubleType(), LANES)


@njit(cache=True, nogil=True)
def add_values(out, shown, others, points, weights, sources, nodes, node_weights):
    """Add the Shapley values of the products, summed over points, on average over the background rows.

    Parameters
    ----------
    out : ndarray of shape (rows, features, outputs)
    shown, others, points : ndarray of shape (rows, derived), (background rows, derived) and (points, derived)
        Scaled, so that a factor is ``exp`` of minus the sum of squared differences over the columns of a feature.
    weights : ndarray of shape (outputs, points)
    sources : ndarray of int of shape (derived,)
        The feature of each derived column.
    nodes, node_weights : ndarray of shape (nodes,)
        Of the quadrature on [0, 1].
    """
    features, outputs, size = out.shape[1], out.shape[2], min(MOST, len(others))
    blocks = -(-size // LANES)
    theirs, mine, share = np.zeros((blocks, features, LANES)), np.empty(features), np.empty((blocks, LANES))
    before, total = np.empty((features, LANES)), np.empty((features, LANES))
    values = np.empty((features, LANES))
    for start in range(0, len(others), MOST):
        size = min(MOST, len(others) - start)
        blocks = -(-size // LANES)
        for b in range(blocks * LANES):
            share[b // LANES, b % LANES] = 1.0 / len(others) if b < size else 0.0
        for i in range(len(points)):
            for b in range(size):
                _factors(mine, others[start + b], points[i], sources)
                for j in range(features):
                    theirs[b // LANES, j, b % LANES] = mine[j]
            for r in range(len(shown)):
                _factors(mine, shown[r], points[i], sources)
                values[:] = 0.0
                for block in range(blocks):
                    add_eight_games(
                        values, total, before, mine, theirs[block], share[block], nodes, node_weights
                    )
                for j in range(features):
                    value = 0.0
                    for b in range(LANES):
                        value += values[j, b]
                    for k in range(outputs):
                        out[r, j, k] += weights[k, i] * value


@njit(cache=True, nogil=True)
def _factors(out, row, point, sources):
    out[:] = 0.0
    for c in range(len(sources)):
        away = row[c] - point[c]
        out[sources[c]] -= away * away
    for j in range(len(out)):
        out[j] = np.exp(out[j])


@intrinsic
def add_eight_games(_typing, values, total, before, mine, theirs, share, nodes, weights):
    """Add to each feature's ``values`` what it changes in eight products, by quadrature over the others' chance.

    ``total`` and ``before`` are room for as many numbers. A loop is not turned into vectors where arrays could overlap,
    so this is written in the compiler's own terms; bounds are not checked.
    """

    def generate(context, builder, signature, arguments):
        arrays = [
            context.make_array(k)(context, builder, a) for k, a in zip(signature.args, arguments, strict=True)
        ]
        values_, total_, before_, mine_, theirs_, share_, nodes_, weights_ = (a.data for a in arrays)
        features, count = (builder.extract_value(arrays[k].shape, 0) for k in (3, 6))
        product = cgutils.alloca_once(builder, EIGHT)
        zero, one = (ir.Constant(EIGHT, [number] * LANES) for number in (0.0, 1.0))

        def at(data, j):
            place = builder.gep(data, [builder.mul(j, ir.Constant(j.type, LANES))])
            return builder.bitcast(place, EIGHT.as_pointer())

        def read(data, j):
            return builder.load(at(data, j), align=8)

        def write(value, data, j):
            builder.store(value, at(data, j), align=8)

        def everywhere(data, j):
            number = builder.load(builder.gep(data, [j]))
            first = builder.insert_element(
                ir.Constant(EIGHT, ir.Undefined), number, ir.Constant(ir.IntType(32), 0)
            )
            return builder.shuffle_vector(
                first, first, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
            )

        def away(j):
            return builder.fsub(everywhere(mine_, j), read(theirs_, j))

        def multiply(j, node):
            factor = builder.fadd(read(theirs_, j), builder.fmul(node, away(j)))
            builder.store(builder.fmul(builder.load(product), factor), product)

        none = ir.Constant(features.type, 0)
        builder.store(one, product)  # of the larger factors, which no coalition exceeds
        with cgutils.for_range(builder, features) as each:
            mine_j, theirs_j = everywhere(mine_, each.index), read(theirs_, each.index)
            larger = builder.select(builder.fcmp_ordered(">", mine_j, theirs_j), mine_j, theirs_j)
            builder.store(builder.fmul(builder.load(product), larger), product)
        counts = builder.fcmp_ordered(">", builder.load(product), ir.Constant(EIGHT, [NOTHING] * LANES))
        some = builder.icmp_unsigned(
            "!=", builder.bitcast(counts, ir.IntType(LANES)), ir.Constant(ir.IntType(LANES), 0)
        )
        with builder.if_then(some):
            with cgutils.for_range(builder, features) as each:
                write(zero, total_, each.index)
            with cgutils.for_range(builder, count) as step:
                node = everywhere(nodes_, step.index)
                builder.store(builder.fmul(everywhere(weights_, step.index), read(share_, none)), product)
                with cgutils.for_range(builder, features) as each:
                    write(builder.load(product), before_, each.index)
                    multiply(each.index, node)
                builder.store(one, product)
                with cgutils.for_range(builder, features) as each:
                    j = builder.sub(builder.sub(features, ir.Constant(features.type, 1)), each.index)
                    found = builder.fmul(read(before_, j), builder.load(product))
                    write(builder.fadd(read(total_, j), found), total_, j)
                    multiply(j, node)
            with cgutils.for_range(builder, features) as each:
                found = builder.fmul(away(each.index), read(total_, each.index))
                write(builder.fadd(read(values_, each.index), found), values_, each.index)
        return context.get_dummy_value()

    return types.void(values, total, before, mine, theirs, share, nodes, weights), generate
