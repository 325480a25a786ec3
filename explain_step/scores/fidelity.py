"""Masking R squared: how well sums of attributions predict the model under masking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from explain_step import intervals
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import linear_correlation, masking
from explain_step.explainers.masking import BoolArray, Clock
from explain_step.explainers.sampling import spread_rows, stratified_partners
from explain_step.quantity import perturbation
from explain_step.scores import base
from explain_step.scores.base import CONTROL, ROWS_INTERVAL, Scorer
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FloatArray, IntArray, Score, Subject

PREDICTIONS = 50_000
CELLS = 200_000_000
PARTNERS, ALL_PARTNERS = 20, 40
"""Background rows per walk: so many, or all of them where there are not more than the second number."""
SIZES = 8
ROWS = 500
ORDERS = 10
BACKGROUND_ROWS = 5_000
SURE_WALKS, FEWEST_WALKS = 10, 2
"""So many walks are measured whatever the clock says; the second number where the first would take more than the budget."""
FEWEST_BACKGROUND, BACKGROUND_SHARE = 100, 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Masked:
    """Masked outputs of w walks: coalitions that grow along a random order of the columns.

    Attributes
    ----------
    row : ndarray of int of shape (w,)
        Position in the attributions.
    order : ndarray of int of shape (w, d)
    sizes : ndarray of int of shape (t,)
        Coalition sizes.
    first, second : ndarray of shape (w, t, n_outputs)
        Mean output over two independent sets of background rows; both are the whole background where it is
        small.
    planned : int
        Walks planned; fewer are here where the budget cut.
    background : int
        Background rows; fewer than `BACKGROUND_ROWS` where the budget cut.
    """

    row: IntArray
    order: IntArray
    sizes: IntArray
    first: FloatArray
    second: FloatArray
    planned: int
    background: int


def _score(
    scorer: Scorer, subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds
) -> tuple[Score, ...]:
    """Return R squared over rows and proper prefixes S of random orders, and the control's.

    It is ``1 - sum (v(S) - base - sum_S phi)^2 / sum (v(S) - mean v)^2``, where
    ``v(S)`` is the mean output with the columns of S kept and the others replaced by background rows. It is
    measured on two independent sets of background rows, and squares are products of the two, which keeps the
    noise of the drawn background rows out of numerator and denominator. Mean over outputs. Of correlation-dependent
    values ``v(S)`` is the output that is expected from the columns of S, as they define it.
    """
    if len(attributions.feature_names) < 2:
        msg = "a single column has no proper subset to mask"
        raise NotApplicable(msg)
    game = perturbation(attributions)
    if game == "interventional":
        masked = measure(subject, attributions, config=config, seeds=seeds)
        hidden = {"background_rows_per_walk": _per_walk(len(subject.background))}
    else:
        masked = expect(subject, attributions, seeds=seeds)
        hidden = {"background_rows": masked.background}
    rows = np.unique(masked.row)
    rng = seeds.rng("scores", scorer.name, "bootstrap")
    weights = np.ones(len(rows)) if subject.weights is None else subject.weights[attributions.rows[rows]]
    # paired: the explanation and its control are compared on the same resamples
    resamples = intervals.resampled_counts(len(rows), size=base.RESAMPLES, rng=rng) * weights
    allowed = min(len(subject.background), BACKGROUND_ROWS)
    cut = None
    if len(masked.row) < masked.planned or masked.background < allowed:
        walks = f"{len(masked.row)} of {masked.planned} walks"
        cut = (
            f"{config.budget:.3g} s reached {walks} and {masked.background:,} of {allowed:,} background rows"
        )
    scores = []
    for variant, values in (
        (game, attributions.values),
        (CONTROL, base.random_attributions(attributions, seeds=seeds)),
    ):
        sums = row_sums(masked, values, attributions.base_values, rows=rows)
        value = float(base.over_outputs(r_squared(sums, weights[None]))[0])
        scores.append(
            scorer.result(
                variant,
                value,
                interval=base.percentiles(base.over_outputs(r_squared(sums, resamples)))
                if len(rows) > 1
                else None,
                n=len(rows),
                seeds=seeds,
                params={
                    "rows": len(rows),
                    "walks": len(masked.row),
                    "coalition_sizes": [int(t) for t in masked.sizes],
                    **hidden,
                    "outputs": "mean over outputs",
                    "cap": "values above 1, which only chance can give, are shown as 1",
                    "interval": ROWS_INTERVAL,
                },
                budget=cut,
                reason="the model's output does not change when columns are replaced by background values"
                if not np.isfinite(value)
                else "an interval needs two rows",
            )
        )
    return tuple(scores)


def measure(subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds) -> Masked:
    """Predict the masked rows, ``PREDICTIONS`` at most; ``config.budget`` seconds cut, by walks."""
    d = len(attributions.feature_names)
    rng = seeds.rng("scores", "masking_r2", "background")
    keep = np.arange(len(subject.background))
    size = _background_rows(subject, config=config)
    if len(keep) > size:
        keep = np.sort(rng.choice(keep, size=size, replace=False))
    background = subject.background.iloc[keep]
    sizes = _sizes(d)
    per_walk = len(sizes) * _per_walk(len(background))
    walks = max(2, min(PREDICTIONS // per_walk, CELLS // (per_walk * d)))
    output = subject.response.output[attributions.rows]
    rows = spread_rows(output, min(ROWS, walks), rng=seeds.rng("scores", "masking_r2", "rows"))
    turn = seeds.rng("scores", "masking_r2", "turn").permutation(rows)
    row = np.tile(turn, min(ORDERS, max(1, walks // len(rows))))
    identity = np.broadcast_to(np.arange(d), (len(row), d))
    order = seeds.rng("scores", "masking_r2", "orders").permuted(identity, axis=1)
    partners = _partners(subject, background, walks=len(row), seeds=seeds)
    return _predict(
        subject,
        attributions,
        background,
        row=row,
        order=order,
        partners=partners,
        sizes=sizes,
        budget=config.budget,
    )


def expect(subject: Subject, attributions: Attributions, *, seeds: Seeds) -> Masked:
    """Return the outputs that are expected from the known columns of some rows, one walk each; nothing is predicted."""
    model, d = subject.model, len(attributions.feature_names)
    sizes = _sizes(d)
    output = subject.response.output[attributions.rows]
    row = spread_rows(output, ROWS, rng=seeds.rng("scores", "masking_r2", "rows"))
    identity = np.broadcast_to(np.arange(d), (len(row), d))
    order = seeds.rng("scores", "masking_r2", "orders").permuted(identity, axis=1)
    members = np.argsort(order, axis=1)[:, None] < sizes[:, None]
    known = linear_correlation.regression(model, subject.background)
    X = subject.X.iloc[attributions.rows[row]]
    v = np.stack(
        [linear_correlation.expected(known, model, X, members=members[:, t]) for t in range(len(sizes))],
        axis=1,
    )
    return Masked(
        row=row,
        order=order,
        sizes=sizes,
        first=v,
        second=v,
        planned=len(row),
        background=len(subject.background),
    )


def _sizes(d: int) -> IntArray:
    """Return the sizes of the coalitions along a walk."""
    return np.unique(np.linspace(1, d - 1, min(SIZES, d - 1)).round().astype(np.int64))


def _background_rows(subject: Subject, *, config: Config) -> int:
    """Return how many background rows are used: fewer for a model that is slow."""
    size = min(len(subject.background), BACKGROUND_ROWS)
    if size <= FEWEST_BACKGROUND:
        return size
    seconds = BACKGROUND_SHARE * config.budget
    fits = masking.affordable(subject.model, subject.background, rows=size, seconds=seconds)
    return min(size, max(fits, FEWEST_BACKGROUND))


def _per_walk(background: int) -> int:
    """Return how many of the background rows a walk is measured with."""
    return background if background <= ALL_PARTNERS else PARTNERS


def _partners(subject: Subject, background: pd.DataFrame, *, walks: int, seeds: Seeds) -> IntArray:
    """Return background rows per walk (walks, p): all, or two independent stratified halves side by side."""
    m = len(background)
    if _per_walk(m) == m:
        return np.broadcast_to(np.arange(m, dtype=np.int64), (walks, m))
    start = masking.predict(subject.model, background)
    halves = [
        stratified_partners(
            start, rows=walks, draws=PARTNERS // 2, rng=seeds.rng("scores", "masking_r2", half)
        )
        for half in ("first", "second")
    ]
    return np.concatenate(halves, axis=1)


def _predict(
    subject: Subject,
    attributions: Attributions,
    background: pd.DataFrame,
    *,
    row: IntArray,
    order: IntArray,
    partners: IntArray,
    sizes: IntArray,
    budget: float,
) -> Masked:
    pool = masking.with_derived(masking.pool(subject.model, subject.X.iloc[attributions.rows], background))
    rank = np.argsort(order, axis=1)
    per_walk, p = len(sizes) * partners.shape[1], partners.shape[1]

    def masks(part: slice) -> BoolArray:
        e = np.arange(part.start, part.stop)
        size = sizes[(e % per_walk) // p]
        return np.asarray(rank[e // per_walk] < size[:, None])

    sure = min(SURE_WALKS, len(row))
    fits = masking.affordable(subject.model, background, rows=sure * per_walk, seconds=budget)
    sure = max(min(sure, fits // per_walk), min(FEWEST_WALKS, len(row)))
    output = masking.evaluate(
        pool,
        rows=np.repeat(row, per_walk),
        partners=np.repeat(partners, len(sizes), axis=0).reshape(len(row), len(sizes), p).reshape(-1),
        masks=masks,
        clock=Clock(budget),
        at_least=sure * per_walk,
    )
    done = len(output) // per_walk
    v = output[: done * per_walk].reshape(done, len(sizes), p, -1)
    whole = _per_walk(len(background)) == len(background)
    half = slice(None) if whole else slice(0, p // 2)
    other = slice(None) if whole else slice(p // 2, p)
    return Masked(
        row=row[:done],
        order=order[:done],
        sizes=sizes,
        first=v[:, :, half].mean(axis=2),
        second=v[:, :, other].mean(axis=2),
        planned=len(row),
        background=len(background),
    )


def row_sums(masked: Masked, values: FloatArray, base_values: FloatArray, *, rows: IntArray) -> FloatArray:
    """Return per row the sums over its coalitions that R squared needs: (rows, 4, n_outputs).

    Product of the two prediction errors, product of the two outputs, mean output, number of coalitions.
    """
    ordered = np.take_along_axis(values[masked.row], masked.order[:, :, None], axis=1)
    said = base_values[masked.row][:, None] + ordered.cumsum(axis=1)[:, masked.sizes - 1]
    wrong = (masked.first - said) * (masked.second - said)
    mean = (masked.first + masked.second) / 2
    parts = np.stack([wrong, masked.first * masked.second, mean, np.ones_like(mean)], axis=2).sum(axis=1)
    sums = np.zeros((len(rows), *parts.shape[1:]))
    np.add.at(sums, np.searchsorted(rows, masked.row), parts)
    return sums


def r_squared(sums: FloatArray, weights: FloatArray) -> FloatArray:
    """Return R squared, at most 1, (r, n_outputs) of rows weighted in r ways; NaN where v(S) never varies."""
    wrong, square, mean, count = np.moveaxis(np.einsum("ri,iqk->rqk", weights.astype(np.float64), sums), 1, 0)
    spread = square - np.divide(mean**2, count, out=np.zeros_like(mean), where=count > 0)
    defined = spread > 1e-12 * np.maximum(square, 1e-300)
    ratio = np.divide(wrong, spread, out=np.full(wrong.shape, np.nan), where=defined)
    return np.asarray(np.minimum(1.0 - ratio, 1.0))


FIDELITY = Scorer(
    name="masking_r2",
    direction="higher",
    source="infidelity under masking: Yeh et al. 2019, arXiv:1901.09392; Covert, Lundberg and Lee 2021, "
    "arXiv:2011.14878",
    score=_score,
)
