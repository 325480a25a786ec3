"""What is known of any number of rows: moments by view, segment and bin; made of blocks, merged, sent as bytes."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from explain_step.errors import InvalidInput
from explain_step.explainers import additive
from explain_step.streaming import measures, moments
from explain_step.streaming.measures import Measures
from explain_step.streaming.moments import Moments
from explain_step.streaming.plan import Plan, curve_codes, segment_codes
from explain_step.types import Attributions, FloatArray, IntArray, Subject

FULL = 1_000
"""Up to so many columns of a view all products of pairs are kept, 8 MB per output; beyond, squares only."""
MOST_ATOMS = 20_000
"""Groups of rows that the segments tell apart together; beyond, they are not kept."""
VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """Aggregates of a set of rows.

    Attributes
    ----------
    rows : int
    broken : int
        Rows whose values do not sum to the model's output.
    error : float
        Largest additivity error, in the unit of the output; infinite where one is not a number.
    views : tuple of Moments
        |SHAP| of each of the plan's views: a group per output, and one for their mean where there are several.
    signed : Moments
        Values of all features and outputs, features slowest, as one group.
    segments : tuple of Moments
        |SHAP| of the plan's pairs, a group per level, and a last one for the rows of none.
    atoms : ndarray of int of shape (m, segments), optional
        Combinations of levels that occur; None where there are more than `MOST_ATOMS`.
    sizes : ndarray of int of shape (m,), optional
        Rows of each combination.
    curves : tuple of Moments
        Values of each curve's feature by output, a group per point, and a last one for the rows off the curve.
    places : tuple of Moments
        The column's own numbers, in the same groups; no column where it has none.
    near, density : tuple of ndarray of int
        Rows nearest to each grid point, and rows per bin of the density.
    measures : tuple of Group, optional
        Sums of performance, where the plan asks for them.
    """

    rows: int
    broken: int
    error: float
    views: tuple[Moments, ...]
    signed: Moments
    segments: tuple[Moments, ...]
    atoms: IntArray | None
    sizes: IntArray | None
    curves: tuple[Moments, ...]
    places: tuple[Moments, ...]
    near: tuple[IntArray, ...]
    density: tuple[IntArray, ...]
    measures: Measures | None = None


def of_block(plan: Plan, subject: Subject, attributions: Attributions | None) -> Totals:
    """Return the totals of a block of rows.

    Parameters
    ----------
    subject : Subject of n rows
        ``X``, ``frame``, ``weights`` and ``response.output`` are read; for performance labels and the whole response.
    attributions : Attributions of the same n rows, in their order, or None
        Exact ones; None where the plan has no view, pair and curve.

    Raises
    ------
    InvalidInput
        The attributions are of other rows, features or outputs than the plan and the block, or are estimated.
    """
    n, weights = len(subject.X), subject.weights if plan.weighted else None
    values, error, wrong = np.empty((n, 0, 0)), np.zeros(n), np.zeros(n, dtype=np.bool_)
    if attributions is not None:
        _check(plan, subject, attributions)
        values = attributions.values
        error, wrong = additive.errors(subject, attributions)
    worst = float(error.max(initial=0.0))
    levels = [segment_codes(s, subject.frame, output=subject.response.output) for s in plan.segments]
    size = np.abs(values)
    pairs = np.stack([size[:, j, k] for k, j in plan.pairs], axis=1) if plan.pairs else np.empty((n, 0))
    atoms, sizes = _atoms(np.stack(levels, axis=1), np.ones(n, dtype=np.int64)) if levels else (None, None)
    curves, places, near, density = _curves(plan, subject, values, weights=weights)
    return Totals(
        rows=n,
        broken=int(wrong.sum()),
        error=worst if np.isfinite(worst) else float("inf"),
        views=tuple(_view(plan, values, members, weights=weights) for _, _, members in plan.views),
        signed=moments.of(values.reshape(n, -1), weights=weights),
        segments=tuple(
            moments.of(pairs, codes, groups=len(s.levels) + 1, weights=weights)
            for s, codes in zip(plan.segments, levels, strict=True)
        ),
        atoms=atoms,
        sizes=sizes,
        curves=curves,
        places=places,
        near=near,
        density=density,
        measures=None if plan.measure is None else measures.of_block(plan, subject, levels),
    )


def _check(plan: Plan, subject: Subject, attributions: Attributions) -> None:
    names = (attributions.feature_names, attributions.output_names) == (plan.features, plan.outputs)
    if not names or not np.array_equal(attributions.rows, np.arange(len(subject.X))):
        msg = "Argument attributions must be of the plan's features and outputs, and of every row of the block in order."
        raise InvalidInput(msg)
    if attributions.standard_error is not None:
        msg = "Argument attributions must be exact; estimated values cannot be added up over blocks."
        raise InvalidInput(msg)
    if plan.weighted and subject.weights is None:
        msg = "Argument subject must have weights, as the plan's sample has."
        raise InvalidInput(msg)


def _view(
    plan: Plan, values: FloatArray, members: tuple[tuple[int, ...], ...], *, weights: FloatArray | None
) -> Moments:
    single = all(len(m) == 1 for m in members)
    chosen = [m[0] for m in members]
    summed = (
        values[:, chosen] if single else np.stack([values[:, list(m)].sum(axis=1) for m in members], axis=1)
    )
    size = np.abs(summed)
    full = len(members) <= FULL
    parts = [moments.of(size[:, :, k], weights=weights, full=full) for k in range(size.shape[2])]
    if size.shape[2] > 1:
        mean = (size / np.asarray(plan.scale)).mean(axis=2)
        parts.append(moments.of(mean, weights=weights, full=full))
    return moments.joined(parts)


def _atoms(codes: IntArray, sizes: IntArray) -> tuple[IntArray | None, IntArray | None]:
    """Return the distinct rows of ``codes`` and the sum of sizes of each."""
    if codes.shape[1] == 0:
        return None, None
    top = codes.max(axis=0, initial=0) + 1
    if float(np.prod(top.astype(np.float64))) < 2**62:  # one number per combination sorts many times faster
        keys = np.ravel_multi_index(list(codes.T), top.tolist())
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        atoms = codes[first]
    else:
        atoms, inverse = np.unique(codes, axis=0, return_inverse=True)
    if len(atoms) > MOST_ATOMS:
        return None, None
    found = np.zeros(len(atoms), dtype=np.int64)
    np.add.at(found, inverse.ravel(), sizes)
    return atoms.astype(np.int64), found


def _curves(plan: Plan, subject: Subject, values: FloatArray, *, weights: FloatArray | None) -> Any:
    """Return the moments of each curve, of its column, and the counts near grid points and per bin of density."""
    curves, places, near, density = [], [], [], []
    for curve in plan.curves:
        codes, numbers = curve_codes(curve, subject.X[curve.feature])
        phi = values[:, plan.features.index(curve.feature)]
        groups = curve.groups + 1
        curves.append(moments.of(phi, codes, groups=groups, weights=weights))
        own = np.empty((len(phi), 0)) if numbers is None else np.nan_to_num(numbers)[:, None]
        places.append(moments.of(own, codes, groups=groups))
        known = np.empty(0) if numbers is None else numbers[~np.isnan(numbers)]
        near.append(_nearest(curve.grid, known))
        density.append(_histogram(curve.density, known))
    return tuple(curves), tuple(places), tuple(near), tuple(density)


def _nearest(grid: tuple[float, ...], known: FloatArray) -> IntArray:
    points = np.asarray(grid, dtype=np.float64)
    if len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    at = np.searchsorted((points[1:] + points[:-1]) / 2, known, side="left")
    return np.asarray(np.bincount(at, minlength=len(points)), dtype=np.int64)


def _histogram(edges: tuple[float, ...], known: FloatArray) -> IntArray:
    if not edges:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(np.histogram(known, bins=np.asarray(edges))[0], dtype=np.int64)


def merge(a: Totals, b: Totals) -> Totals:
    """Return the totals of both sets of rows; in any order the same but for rounding.

    Raises
    ------
    InvalidInput
        They were made by different plans.
    """
    if [v.mean.shape for v in _all(a)] != [v.mean.shape for v in _all(b)]:
        msg = "Totals can be merged only where the same plan made them."
        raise InvalidInput(msg)
    atoms, sizes = _merged_atoms(a, b)
    return Totals(
        rows=a.rows + b.rows,
        broken=a.broken + b.broken,
        error=max(a.error, b.error),
        views=_merged(a.views, b.views),
        signed=moments.merge(a.signed, b.signed),
        segments=_merged(a.segments, b.segments),
        atoms=atoms,
        sizes=sizes,
        curves=_merged(a.curves, b.curves),
        places=_merged(a.places, b.places),
        near=tuple(x + y for x, y in zip(a.near, b.near, strict=True)),
        density=tuple(x + y for x, y in zip(a.density, b.density, strict=True)),
        measures=None if a.measures is None or b.measures is None else measures.merge(a.measures, b.measures),
    )


def _all(totals: Totals) -> tuple[Moments, ...]:
    return (*totals.views, totals.signed, *totals.segments, *totals.curves, *totals.places)


def _merged(a: tuple[Moments, ...], b: tuple[Moments, ...]) -> tuple[Moments, ...]:
    return tuple(moments.merge(x, y) for x, y in zip(a, b, strict=True))


def _merged_atoms(a: Totals, b: Totals) -> tuple[IntArray | None, IntArray | None]:
    """Return the union: more than `MOST_ATOMS` in it or in a part give none, so that the order does not matter."""
    if a.atoms is None or b.atoms is None or a.sizes is None or b.sizes is None:
        return None, None
    return _atoms(np.concatenate([a.atoms, b.atoms]), np.concatenate([a.sizes, b.sizes]))


# --- bytes


def to_bytes(totals: Totals) -> bytes:
    """Return totals as the bytes of an ``npz`` file, which holds numbers only: nothing in it is run when read."""
    arrays: dict[str, Any] = {"version": np.array(VERSION)}
    for field in fields(Totals):
        value = getattr(totals, field.name)
        if field.name == "measures":
            arrays |= {} if value is None else measures.to_arrays(value)
        elif isinstance(value, tuple):
            arrays[field.name] = np.array(len(value))
            for i, part in enumerate(value):
                arrays.update(_flat(f"{field.name}/{i}", part))
        elif value is not None:
            arrays.update(_flat(field.name, value))
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Moments):
        return {f"{name}/{part}": getattr(value, part) for part in Moments.__slots__}
    return {name: np.asarray(value)}


def from_bytes(data: bytes) -> Totals:
    """Return the totals that `to_bytes` wrote.

    Raises
    ------
    InvalidInput
        The bytes are not totals, or of another version.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        if int(arrays["version"]) != VERSION:
            msg = f"Totals must be of version {VERSION}, got {int(arrays['version'])}; make them anew."
            raise InvalidInput(msg)
        return Totals(**{field.name: _read(arrays, field.name) for field in fields(Totals)})
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, InvalidInput):
            raise
        msg = f"The bytes must be totals as to_bytes writes them: {error}."
        raise InvalidInput(msg) from error


TUPLES = ("views", "segments", "curves", "places", "near", "density")


def _read(arrays: dict[str, Any], name: str) -> Any:
    if name == "measures":
        return measures.from_arrays(arrays) or None
    if name in TUPLES:
        return tuple(_read(arrays, f"{name}/{i}") for i in range(int(arrays[name])))
    if f"{name}/n" in arrays:
        return Moments(**{part: arrays[f"{name}/{part}"] for part in Moments.__slots__})
    if name not in arrays:
        return None
    value = arrays[name]
    return value.item() if value.ndim == 0 else value
