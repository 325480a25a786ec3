"""Answers along walks without a prediction, for models whose probability is a link of a sum that is known term by term.

The probability of boosted trees and of logistic regression is the logistic function (of several classes: softmax) of a
sum over leaves or columns. Along a walk each switched column changes some terms, so that the sums after all its
steps cost about as much as a few predictions, and exact Shapley values of the sum itself are at hand. They are how a walk's
contributions are made less noisy: what a walk's sum does differs from its known mean, and the probability mostly
moves with it (a control variate, Owen 2013, "Monte Carlo theory, methods and examples", chapter 8).

Trees are asked through masks of leaves (`tree_masks`). What comes out is compared with the model's own answers at both ends
of every walk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.errors import NotApplicable
from explain_step.explainers import ensembles, linear, masking, tree, tree_codes, tree_compiled, tree_masks
from explain_step.explainers.lending import probability
from explain_step.explainers.masking import BoolArray, Clock
from explain_step.explainers.walks import Sample, Walks
from explain_step.types import FittedModel, FloatArray, IntArray

logger = logging.getLogger("explain_step.explainers")
Orders = npt.NDArray[np.int32]
WORDS = 20_000_000
"""Blocks of leaves that all pairs of walks together look at, where no more is asked for: two seconds of one core at most."""
TERMS = 200_000
"""Pairs of walks where the sum has one term per column."""
AT_ONCE = 256
"""Cells that a pair is taken to have at least, when walks are split into calls: those look at the clock."""
MOST_TERMS = 20_000_000
LINEAR_GAP = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """The sums behind a model's probability.

    Attributes
    ----------
    along : callable
        From orders (u, d), explained rows (u,) and background rows (u,), as positions, to the sums on the way of the forward
        and the backward walk: (u, 2, d + 1, k).
    exact : callable
        From positions of explained rows to the Shapley values of their sums: (n, d, k).
    start : ndarray of shape (m, k)
        The sums of the background rows.
    pairs : int
        Pairs of walks worth their time where no more is asked for.
    allowed : float
        Largest difference from the model's own probability.
    """

    along: Callable[[Orders, IntArray, IntArray], FloatArray]
    exact: Callable[[IntArray], FloatArray]
    start: FloatArray
    pairs: int
    allowed: float


def of(
    model: FittedModel, X: pd.DataFrame, background: pd.DataFrame, *, evaluations: int, least: int = 1
) -> Scores | None:
    """Return the sums behind the probability of the rows of ``X``; None where only predictions can be had.

    Parameters
    ----------
    evaluations : int
        Predictions that the walks would cost: trees are only read where that is worth it.
    least : int
        Fewer pairs of walks are not worth the sums.
    """
    if model.output_space != "probability":
        return None
    try:
        if model.family == "tree":
            return _of_trees(model, X, background, evaluations=evaluations, least=least)
        return _of_terms(model, X, background) if model.family == "linear" and least <= TERMS else None
    except Exception as error:  # noqa: BLE001 - what libraries raise here costs nothing: the model is asked
        logger.debug("explain_step: the sums behind the probability were not read: %s", type(error).__name__)
        return None


def _of_trees(
    model: FittedModel, X: pd.DataFrame, background: pd.DataFrame, *, evaluations: int, least: int
) -> Scores | None:
    ensemble, linked = ensembles.scores(model)
    if not linked or not tree_compiled.worthwhile(ensemble, rows=evaluations):
        return None
    sources = tree.raw_sources(model, ensemble)
    used, places = np.unique(sources, return_inverse=True)
    forest = tree_masks.blocks(ensemble, places=places)
    pairs = WORDS // len(forest.ends)
    if pairs < least:
        return None
    place = np.full(len(model.feature_names), len(used), dtype=np.int32)
    place[used] = np.arange(len(used))
    shown, others = (ensemble.encode(tree.inputs(model, frame)) for frame in (X, background))
    rows, partners = tree_codes.encode(forest.flat, shown), tree_codes.encode(forest.flat, others)

    def along(order: Orders, row: IntArray, partner: IntArray) -> FloatArray:
        sums = tree_masks.walked(
            forest, rows, partners, place[order], used=len(used), row=row, partner=partner
        )
        return sums + ensemble.offset

    def exact(positions: IntArray) -> FloatArray:
        columns = len(model.feature_names)
        return tree.values(ensemble, shown[:, positions], others, sources=sources, n_features=columns)

    first = np.zeros(1, dtype=np.int64)
    along(np.arange(len(place), dtype=np.int32)[None], first, first)  # compiles
    return Scores(
        along=along,
        exact=exact,
        start=tree.summed(ensemble, others, rows=evaluations),
        pairs=pairs,
        allowed=tree.allowed_gap(ensemble, np.ones(1)),
    )


def _of_terms(model: FittedModel, X: pd.DataFrame, background: pd.DataFrame) -> Scores | None:
    if (len(X) + len(background)) * len(model.feature_names) * len(model.output_names) > MOST_TERMS:
        return None
    found = linear.terms(model, X, background)
    if found is None:
        return None
    shown, others, intercept = found

    def along(order: Orders, row: IntArray, partner: IntArray) -> FloatArray:
        change = np.take_along_axis(shown[row] - others[partner], order[:, :, None], axis=1)
        both = np.stack([change, change[:, ::-1]], axis=1)
        start = (others[partner].sum(axis=1) + intercept)[:, None, None]
        return np.concatenate([np.repeat(start, 2, axis=1), start + np.cumsum(both, axis=2)], axis=2)

    def exact(positions: IntArray) -> FloatArray:
        return np.asarray(shown[positions] - others.mean(axis=0))

    begin = others.sum(axis=1) + intercept
    return Scores(along=along, exact=exact, start=begin, pairs=TERMS, allowed=LINEAR_GAP)


def walk(
    scores: Scores, walks: Walks, *, start: FloatArray, end: FloatArray, clock: Clock, sure: int
) -> tuple[FloatArray, int]:
    """Return the contributions of the finished pairs (u, d, 2 k), to the probability and to the sum, and 0 predictions.

    Parameters
    ----------
    scores : Scores
    walks : Walks
    start, end : ndarray of shape (m, k) and (n, k)
        The model's own outputs on the background and on the explained rows.
    clock : Clock
    sure : int
        The first pairs of so many rows are walked whatever the clock says.

    Raises
    ------
    NotApplicable
        The sums give another probability than the model.
    """
    total, d = walks.order.shape
    width = 2 * start.shape[1]
    contributions = np.empty((total, d, width))
    done, at_least = 0, min(sure * walks.first, total)
    cells = max(AT_ONCE, 2 * (d + 1) * width)
    for part in masking.calls(total, cells, stop=at_least):
        size = part.stop - part.start
        if done >= at_least and not clock.allows(size):
            break
        # the first call may compile what the next ones use, and tells nothing about their speed
        with clock.counting(size) if done else nullcontext():
            order, row, partner = walks.order[part], walks.row[part], walks.partner[part]
            raw = scores.along(order, row, partner)
            answers = probability(raw.reshape(-1, raw.shape[-1])).reshape(raw.shape)
            _compare(answers, start=start[partner], end=end[row], allowed=scores.allowed)
            contributions[part] = _by_column(np.concatenate([answers, raw], axis=-1), order)
        done = part.stop
    return contributions[:done], 0


def _compare(answers: FloatArray, *, start: FloatArray, end: FloatArray, allowed: float) -> None:
    gaps = [
        np.abs(answers[:, way, at] - own).max(initial=0.0)
        for way in (0, 1)
        for at, own in ((0, start), (-1, end))
    ]
    if not max(gaps) <= allowed:
        msg = f"the probability that was put together differs from the model's own by {max(gaps):.2g}"
        raise NotApplicable(msg)


def _by_column(path: FloatArray, order: Orders) -> FloatArray:
    """Return the mean change (u, d, outputs) with each column over the forward and the backward path."""
    change = np.diff(path, axis=2)
    mean = np.empty((len(path), *change.shape[2:]))
    columns = np.broadcast_to(order[:, :, None], mean.shape)
    np.put_along_axis(mean, columns, (change[:, 0] + change[:, 1, ::-1]) / 2, axis=1)
    return mean


def controlled(
    sample: Sample, *, scores: Scores, start: FloatArray, active: BoolArray
) -> tuple[Sample, FloatArray]:
    """Return contributions to the probability alone, less noisy, and the background's outputs that go with them.

    From each contribution a part of what the sum's own contribution differs from its known mean is taken: one slope per
    output, from all walks of all rows. The mean of what is removed is zero, in the contributions and in the outputs.

    Parameters
    ----------
    sample : Sample
        Contributions to the probability and to the sum, from `walk`.
    scores : Scores
    start : ndarray of shape (m, k)
        The model's outputs on the background.
    active : ndarray of bool of shape (n, d)
        Whether the row differs from any background row in the column; where not, zero is exact.
    """
    k = start.shape[1]
    own, sums = sample.contributions[..., :k], sample.contributions[..., k:]
    off = np.where(active[:, None, :, None], sums - scores.exact(sample.rows)[:, None], 0.0)
    moves, drifts = (part - part.mean(axis=1, keepdims=True) for part in (own, off))
    slope = np.zeros(k)
    np.divide(
        (moves * drifts).sum(axis=(0, 1, 2)),
        (drifts**2).sum(axis=(0, 1, 2)),
        out=slope,
        where=drifts.any((0, 1, 2)),
    )
    left = start - slope * (scores.start - scores.start.mean(axis=0))
    return replace(sample, contributions=own - slope * off), left
