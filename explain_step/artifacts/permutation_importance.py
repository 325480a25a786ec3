"""Permutation importance: how much worse the model scores when one raw column is shuffled among the rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from explain_step.artifacts import predicting
from explain_step.artifacts.segment_performance import resampled, value_on
from explain_step.config import Config
from explain_step.errors import NotApplicable, PredictionFailed
from explain_step.explainers import masking
from explain_step.explainers.lending import Lending
from explain_step.intervals import LEVEL
from explain_step.metrics import Metric, choose_metrics
from explain_step.quantity import no_labels
from explain_step.seeds import Seeds
from explain_step.types import Caveat, FloatArray, IntArray, Response, Subject

MAX_ROWS = 2_000
MAX_FEATURES = 50
REPEATS = 5
GROUPS = 20
FEWEST_ROWS = 10
ENOUGH_ROWS, FEWEST_SHUFFLED = 200, 50
"""A slow model is asked about fewer rows, down to the first number; below the second there is no importance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Permutation:
    """Permutation importance per feature (shape (d,), NaN where not computed) and how it was made."""

    value: FloatArray
    low: FloatArray
    high: FloatArray
    metric: str | None
    baseline: float | None
    rows: int
    reason: str | None = None
    caveats: tuple[Caveat, ...] = ()

    def meta(self) -> dict[str, Any]:
        """Return the strict-JSON description."""
        if self.reason is not None:
            return {"reason": self.reason, "metric": self.metric}
        return {
            "metric": self.metric,
            "baseline": self.baseline,
            "rows": self.rows,
            "repeats": REPEATS,
            "features": int(np.isfinite(self.value).sum()),
            "method": "mean over repeats of the loss of performance (positive: the model scores worse "
            "without it)",
            "interval": f"95% Student interval: delete-a-group jackknife variance over {GROUPS} groups of "
            "rows plus "
            "the variance over repeats divided by their number; covers which rows were drawn and how they "
            "were shuffled",
        }


def permutation_importance(subject: Subject, *, config: Config, seeds: Seeds, order: IntArray) -> Permutation:
    """Return the loss of performance when a column is shuffled (Breiman 2001, doi:10.1023/A:1010933404324).

    Rows are a seeded sample of at most `MAX_ROWS`; `REPEATS` shuffles, the same for every column, so that a
    column's number does not depend on the others. All shuffles of a column are one prediction call. Columns
    are taken in ``order``, at most `MAX_FEATURES`. Where ``config.budget`` seconds are not enough, there are fewer
    rows, down to `ENOUGH_ROWS`, then fewer columns.

    Parameters
    ----------
    order : ndarray of int of shape (d,)
        Feature positions, the most important first.
    """
    d = len(subject.model.feature_names)
    if subject.y is None:
        return _none(d, f"{no_labels(subject)}, so performance cannot be measured")
    rng = seeds.rng("permutation_importance")
    n = len(subject.X)
    rows = np.sort(rng.choice(n, MAX_ROWS, replace=False)) if n > MAX_ROWS else np.arange(n)
    wanted = [int(j) for j in order[:MAX_FEATURES]]
    planned, watch = len(rows), predicting.Stopwatch(config.budget)
    sample = subject.take(rows.astype(np.int64))
    metric, baseline = _metric(sample, config=config)
    if metric is None:
        return _none(d, "no chosen metric is defined on these labels (too few rows or one class only)")
    shuffles, asked = _shuffled(sample, wanted, rng=rng)
    sample, known = _from_trees(sample, asked, metric=metric)
    size = planned if known else _rows_in_time(subject, planned, features=len(wanted), budget=config.budget)
    if size < min(FEWEST_SHUFFLED, planned):
        cut = _cut((0, len(wanted)), (0, planned), budget=config.budget)
        return _none(d, "the budget is not enough to ask the model about shuffled rows", caveats=cut)
    if size < planned:
        rows = np.sort(seeds.rng("permutation_importance", "fewer").choice(rows, size, replace=False))
        sample = subject.take(rows.astype(np.int64))
        shuffles, asked = _shuffled(sample, wanted, rng=rng)
        metric, baseline = _metric(sample, config=config)
        if metric is None:
            return _none(d, "no chosen metric is defined on the labels of the rows that the budget reaches")
    groups = np.arange(len(rows)) % min(GROUPS, len(rows))
    judge = _Judge(sample, metric=metric, groups=rng.permutation(groups), shuffles=shuffles)
    out = np.full((3, d), np.nan)
    reached = 0
    for j in wanted if known else watch.in_time(wanted):  # the budget is for asking the model
        try:
            response = _response(sample, asked[j], metric=metric, known=known.get(j))
        except PredictionFailed as error:
            return _none(d, f"the model fails on rows with a shuffled column: {error}", metric=metric.name)
        out[:, j] = judge.loss(response)
        reached += 1
    return Permutation(
        value=out[0],
        low=out[1],
        high=out[2],
        metric=metric.name,
        baseline=baseline,
        rows=len(rows),
        caveats=_cut((reached, len(wanted)), (len(rows), planned), budget=config.budget),
    )


def _shuffled(
    sample: Subject, wanted: list[int], *, rng: np.random.Generator
) -> tuple[IntArray, dict[int, Shuffled]]:
    """Return orders that shuffle the rows, and what is asked of each column."""
    shuffles = np.stack([rng.permutation(len(sample.X)) for _ in range(REPEATS)])
    names = sample.model.feature_names
    return shuffles, {j: _shuffles_of(sample, names[j], shuffles=shuffles) for j in wanted}


def _rows_in_time(subject: Subject, rows: int, *, features: int, budget: float) -> int:
    """Return how many rows can be shuffled for all features within the budget, or for one with the fewest rows."""
    whole = REPEATS * rows * features
    fits = masking.affordable(subject.model, subject.X, rows=whole, seconds=budget)
    return (
        rows
        if fits >= whole
        else min(rows, max(fits // (REPEATS * features), min(ENOUGH_ROWS, fits // REPEATS)))
    )


def _none(d: int, reason: str, *, metric: str | None = None, caveats: tuple[Caveat, ...] = ()) -> Permutation:
    blank = np.full(d, np.nan)
    text = f"Permutation importance is missing: {reason}."
    caveat = Caveat(code="no_permutation_importance", section="importance", message=text)
    return Permutation(
        value=blank,
        low=blank,
        high=blank,
        metric=metric,
        baseline=None,
        rows=0,
        reason=reason,
        caveats=(caveat, *caveats),
    )


def _cut(features: tuple[int, int], rows: tuple[int, int], *, budget: float) -> tuple[Caveat, ...]:
    """Return what the budget cut: (reached, planned) features and rows."""
    if features[0] == features[1] and rows[0] == rows[1]:
        return ()
    text = (
        f"Permutation importance has {features[0]} of {features[1]} features, from {rows[0]:,} of {rows[1]:,} rows: "
        f"{budget:.3g} s of the budget were not enough. Raise the option budget for the rest."
    )
    return (Caveat(code="permutation_budget", section="importance", message=text, degrades=True),)


def _metric(sample: Subject, *, config: Config) -> tuple[Metric | None, float | None]:
    """Return the first of the chosen metrics that is defined on these rows, and its value."""
    assert sample.y is not None
    for metric in choose_metrics(config.metrics, sample.model, sample.response):
        try:
            value = metric.score(sample.y, sample.response, sample.model, sample.weights)
        except NotApplicable:
            continue
        if np.isfinite(value):
            return metric, float(value)
    return None, None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shuffled:
    """What the shuffles of a column ask the model about.

    Attributes
    ----------
    asked : Lending
        Rows that are lent a value that is not their own, each once: of a column of few values little is left to predict.
    answer : ndarray of int
        For the stacked shuffles, where each row's answer is among those to the rows as they are and ``asked``.
    """

    asked: Lending
    answer: IntArray


def _shuffles_of(sample: Subject, feature: str, *, shuffles: npt.NDArray[np.intp]) -> Shuffled:
    n, series = len(sample.X), sample.X[feature]
    codes = masking.value_codes(series)
    lent = codes[shuffles]
    changed = np.flatnonzero(lent != codes)  # positions in the stacked shuffles
    row, value = changed % n, lent.ravel()[changed]
    _, first, again = np.unique(row * (codes.max() + 1) + value, return_index=True, return_inverse=True)
    answer = np.tile(np.arange(n), len(shuffles))
    answer[changed] = n + again
    held = series.iloc[np.unique(codes, return_index=True)[1]].array  # codes begin at 0 and leave none out
    asked = Lending(base=sample.X, feature=feature, values=held, row=row[first], value=value[first])
    return Shuffled(asked=asked, answer=answer)


def _from_trees(
    sample: Subject, asked: dict[int, Shuffled], *, metric: Metric
) -> tuple[Subject, dict[int, Response]]:
    """Return the sample with its trees' own answers, and theirs to each column's shuffles; as it is where they cannot tell.

    Trees sum in double precision, where a model may not: answers of both kinds side by side would not be tied where they
    should be.
    """
    row = np.arange(len(sample.X))
    first = next(iter(asked.values())).asked
    codes = masking.value_codes(sample.X[first.feature])
    own = Lending(base=sample.X, feature=first.feature, values=first.values, row=row, value=codes)
    scores = sample.response.probability is None and metric.reads == "probability"  # of an own objective, say
    found = predicting.from_trees(
        sample.model,
        [own, *(one.asked for one in asked.values())],
        reads="output" if scores else metric.reads,
    )
    if found is None:
        return sample, {}
    if scores:  # the model gives none: what the logistic function makes of its scores is not its answer
        found = [replace(one, probability=None) for one in found]
    return replace(sample, response=found[0]), dict(zip(asked, found[1:], strict=True))


def _response(
    sample: Subject, shuffled: Shuffled, *, metric: Metric, known: Response | None = None
) -> Response:
    """Return the answers to the shuffled rows, one shuffle after the other."""
    if not len(shuffled.asked.row):
        return sample.response.take(shuffled.answer)
    lower = sample.model.respond_for(shuffled.asked.frame(), reads=metric.reads) if known is None else known
    return _stacked(sample.response, lower).take(shuffled.answer)


def _stacked(upper: Response, lower: Response) -> Response:
    """Return the rows of both, with what ``lower`` holds."""

    def both(one: npt.NDArray[Any] | None, other: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
        return None if one is None or other is None else np.concatenate([one, other])

    return Response(
        output=np.concatenate([upper.output[:, : lower.output.shape[1]], lower.output]),
        label=both(upper.label, lower.label),
        probability=both(upper.probability, lower.probability),
        prediction=both(upper.prediction, lower.prediction),
    )


class _Judge:
    """Measures how much worse shuffled rows score than the same rows unshuffled."""

    def __init__(
        self, sample: Subject, *, metric: Metric, groups: IntArray, shuffles: npt.NDArray[np.intp]
    ) -> None:
        self._sample, self._metric = sample.without_inputs(), metric
        self._sign = 1.0 if metric.direction == "higher" else -1.0
        # a row takes part as the one that is scored and as the one that lends its value: both roles are
        # deleted; of a few rows nothing would be left, and they get no interval
        every = np.arange(int(groups.max()) + 1 if len(groups) >= FEWEST_ROWS else 0)[:, None]
        weights = np.ones(len(groups)) if sample.weights is None else sample.weights
        self._kept = [((groups != every) & (groups[donors] != every)) * weights for donors in shuffles]
        self._baseline = self._score(sample.response)
        self._baselines = [self._without(sample.response, kept) for kept in self._kept]

    def loss(self, shuffled: Response) -> tuple[float, float, float]:
        """Return the mean loss over repeats and its interval."""
        n, g = len(self._sample.X), len(self._kept[0])
        answers = [shuffled.take(np.arange(r * n, (r + 1) * n)) for r in range(REPEATS)]
        whole = np.array([self._sign * (self._baseline - self._score(a)) for a in answers])
        value = float(whole.mean())
        if not g:
            return value, float("nan"), float("nan")
        pairs = zip(answers, self._kept, self._baselines, strict=True)
        deleted = np.mean([self._sign * (base - self._without(a, kept)) for a, kept, base in pairs], axis=0)
        over_rows = (g - 1) / g * float(((deleted - deleted.mean()) ** 2).sum())
        over_repeats = float(whole.var(ddof=1)) / REPEATS
        half = float(stats.t.ppf(0.5 + LEVEL / 2, g - 1)) * float(np.sqrt(over_rows + over_repeats))
        return value, value - half, value + half

    def _score(self, response: Response) -> float:
        return value_on(self._metric, replace(self._sample, response=response))

    def _without(self, response: Response, kept: FloatArray) -> FloatArray:
        """Return the metric of each weighting of the rows: weights of shape (g, n) to values of shape (g,)."""
        return resampled(self._metric, replace(self._sample, response=response), kept)
