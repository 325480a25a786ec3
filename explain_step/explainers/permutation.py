"""Permutation sampling: interventional Shapley values of any model, with a standard error per value.

For a random order of the columns, a column's contribution is the change of the output when its value is
switched from a background row's to the explained row's, after the columns before it were switched. The mean
over all orders and background rows is the interventional Shapley value (Castro, Gomez and Tejada 2009,
doi:10.1016/j.cor.2008.04.004; Strumbelj and Kononenko 2014, doi:10.1007/s10115-013-0679-x). Here

* each order is walked forwards and backwards (antithetic pair: Mitchell, Cooper, Frank and Holmes 2022,
  arXiv:2104.12199), each pair of each row with its own order and its own background row (`walks`);
* the background rows of a row are stratified by the model's output over the whole background;
* rows, or pairs per row, are added as long as the leading intervals are wider than asked for, or the values too
  noisy to be read (`growing`);
* what the drawn background rows differ from the whole background is taken out, first by each column's own
  values (`adjusting`), then by regression on the output (`settling`), which makes the values sum exactly to
  output minus base value;
* where the output is a link of a sum that is known term by term (boosted trees and logistic regression in
  probability), walks cost no predictions and are compared with the exact values of the sum (`walk_scores`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import growing, masking, planning, walk_scores
from explain_step.explainers.adjusting import adjust
from explain_step.explainers.growing import Plan, Width
from explain_step.explainers.masking import BoolArray, Clock, Pool
from explain_step.explainers.sampling import spread_rows
from explain_step.explainers.settling import Settled, settle
from explain_step.explainers.walk_scores import Scores
from explain_step.explainers.walks import (
    MIN_PAIRS,
    SURE_ROWS,
    Sample,
    by_row,
    draw_walks,
    walk,
    with_pairs,
    with_rows,
)
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FloatArray, IntArray, MethodSpec, Subject

VERSION = "4"
ALONG_WALKS = (
    "the model's own terms, summed and put through its link, compared with its predictions; the exact values of the sum "
    "are a control variate"
)
FIRST_ROWS = 200
"""With a precision asked for, so many rows are looked at first."""
EXTENSION = 8
"""Estimates that are too noisy to be read get up to so many times the planned predictions, if the budget allows."""
MOST_EVALUATIONS = 40_000_000
"""Mixed rows predicted at most where a precision is asked for."""
KEPT = 20_000_000
"""Contributions held in memory (160 MB, and a few copies)."""
PRECISION_OF = "half the 95% interval of the mean |value| of each of the first top_features columns, over the largest mean"
BACKGROUND_ROWS = 20_000
FEWEST_BACKGROUND, BACKGROUND_SHARE = 100, 0.2
"""Where predicting the background would take more than this part of the budget, a sample of it is used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What every batch of walks needs."""

    subject: Subject
    config: Config
    seeds: Seeds
    clock: Clock
    store: Pool
    start: FloatArray
    sizes: Mapping[str, int]
    """What a walk costs: columns that differ on average, all columns, outputs."""
    scores: Scores | None

    @property
    def end(self) -> FloatArray:
        """Outputs on the explained rows."""
        return self.subject.response.output

    def most(self, planned: Plan) -> tuple[Plan, int]:
        """Return the most rows and pairs that a sample may grow to, and the most pairs of all rows together."""
        asked = self.config.precision is not None
        evaluations = MOST_EVALUATIONS if asked else planning.EVALUATIONS * EXTENSION
        columns, d, outputs = (self.sizes[name] for name in ("columns", "width", "outputs"))
        work = min(evaluations // (2 * max(columns - 1, 1)), KEPT // (d * outputs))
        if self.scores is not None:
            work = min(self.scores.pairs * (evaluations // planning.EVALUATIONS), KEPT // (2 * d * outputs))
        rows = min(len(self.end), self.config.max_rows or len(self.end)) if asked else planned.rows
        return Plan(rows=rows, pairs=planning.MAX_PAIRS), work


@dataclass(frozen=True, slots=True)
class Permutation:
    """The explainer for everything that can predict."""

    name: str = "permutation"

    def why_not(self, subject: Subject) -> str | None:
        """Return None: every model that predicts can be explained."""
        return None

    def explain(self, subject: Subject, *, config: Config, seeds: Seeds) -> Attributions:
        """Return estimated attributions with standard errors; see the module's text for the method.

        Rows are a seeded sample where the plan does not reach all; ``method.params`` has every count, and
        ``method.budget`` says what was cut when ``config.budget`` seconds were not enough.
        """
        background = _some_background(subject, seeds, budget=config.budget)
        store = masking.pool(subject.model, subject.X, background)
        outputs = subject.response.output.shape[1]
        sizes = {"columns": store.switched(), "width": len(store.names), "outputs": outputs}
        least = planning.GAIN * planning.predicted_pairs(**sizes)
        scores = walk_scores.of(
            subject.model, subject.X, background, evaluations=planning.EVALUATIONS, least=least
        )
        if scores is None:
            store = masking.with_derived(store)
        task = Task(
            subject=subject,
            config=config,
            seeds=seeds,
            clock=Clock(
                config.budget
            ),  # begins here: reading trees, and compiling what walks on them, is no estimate
            start=masking.of_background(store),
            store=store,
            sizes=sizes,
            scores=scores,
        )
        try:
            found = _grown(task, _planned(task))
        except NotApplicable:  # what was put together is not what the model answers: it is asked
            task = replace(task, scores=None)
            found = _grown(task, _planned(task))
        return Attributions(
            values=found.settled.values,
            base_values=np.tile(task.start.mean(axis=0), (found.reached.rows, 1)),
            standard_error=found.settled.error,
            parts=found.settled.parts,
            feature_names=subject.model.feature_names,
            output_names=subject.model.output_names,
            output_space=subject.model.output_space,
            rows=found.sample.rows,
            method=_method(task, found),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A sample, its values, and how it came about.

    Attributes
    ----------
    wanted : Plan
        What was aimed at last; more than ``reached`` where the clock cut.
    predicted : int
        Mixed rows.
    width : Width
    """

    sample: Sample
    settled: Settled
    wanted: Plan
    predicted: int
    width: Width

    @property
    def reached(self) -> Plan:
        """What was done."""
        return Plan(rows=len(self.sample.rows), pairs=self.sample.partner.shape[1])


def _grown(task: Task, planned: Plan) -> Found:
    """Return the planned sample, enlarged as long as `growing.next_plan` asks for it and the clock allows it."""
    precision = task.config.precision
    wanted = planned if precision is None else _first_look(planned, len(task.start))
    rows = _more_rows(task, wanted.rows, batch=0)
    sample, predicted = _walked(task, rows, wanted.pairs, batch=0, first=MIN_PAIRS)
    found = _judged(task, sample, wanted=wanted, predicted=predicted)
    most, work = task.most(planned)
    batch = 0
    while found.reached == found.wanted:
        noise = growing.noise(found.settled.values, found.settled.error)
        more = growing.next_plan(
            found.reached, most=most, work=work, width=found.width, noise=noise, precision=precision
        )
        if more is None:
            break
        batch += 1
        sample, predicted = _enlarged(task, found.sample, more, batch=batch)
        found = _judged(task, sample, wanted=more, predicted=found.predicted + predicted)
    return found


def _first_look(planned: Plan, m: int) -> Plan:
    """Return the sample after which precision is looked at first: a part of the planned one."""
    pairs = min(planned.pairs, planning.GOOD_PAIRS)
    if planned.pairs >= m:
        pairs = max(pairs - pairs % m, m)
    return Plan(rows=min(planned.rows, max(FIRST_ROWS, planned.rows // 4)), pairs=pairs)


def _more_rows(task: Task, size: int, *, batch: int, taken: IntArray | None = None) -> IntArray:
    """Return ``size`` positions of rows that are not ``taken``, spread over segments and outputs."""
    left = np.arange(len(task.end)) if taken is None else np.setdiff1d(np.arange(len(task.end)), taken)
    strata = task.subject.strata
    name = () if batch == 0 else (str(batch),)
    drawn = spread_rows(
        task.end[left],
        size,
        rng=task.seeds.rng("permutation", "rows", *name),
        strata=None if strata is None else strata[left],
    )
    return np.asarray(left[drawn], dtype=np.int64)


def _walked(
    task: Task, rows: IntArray, pairs: int, *, batch: int, first: int, sure: int = SURE_ROWS
) -> tuple[Sample, int]:
    """Return the pairs that the clock allowed, and the number of predicted rows."""
    columns = len(task.store.names)
    walks = draw_walks(
        rows, task.start, pairs=pairs, columns=columns, seeds=task.seeds, batch=batch, first=first
    )
    start, end, clock = task.start, task.end, task.clock
    if task.scores is None:
        contributions, predicted = walk(task.store, walks, start=start, end=end, clock=clock, sure=sure)
    else:
        contributions, predicted = walk_scores.walk(
            task.scores, walks, start=start, end=end, clock=clock, sure=sure
        )
    return by_row(contributions, walks, rows=len(rows), pairs=pairs), predicted


def _enlarged(task: Task, sample: Sample, more: Plan, *, batch: int) -> tuple[Sample, int]:
    """Return the sample with more rows of as many pairs, or with more pairs of the same rows."""
    pairs = sample.partner.shape[1]
    if more.rows > len(sample.rows):
        rows = _more_rows(task, more.rows - len(sample.rows), batch=batch, taken=sample.rows)
        new, predicted = _walked(task, rows, pairs, batch=batch, first=pairs, sure=0)
        return with_rows(sample, new), predicted
    new, predicted = _walked(task, sample.rows, more.pairs - pairs, batch=batch, first=1, sure=0)
    return (with_pairs(sample, new) if len(new.rows) == len(sample.rows) else sample), predicted


def _judged(task: Task, sample: Sample, *, wanted: Plan, predicted: int) -> Found:
    """Return the sample's values, and how wide the leading intervals are."""
    active, given, start = _active(task.store, sample.rows), sample, task.start
    if task.scores is not None:
        given, start = walk_scores.controlled(sample, scores=task.scores, start=start, active=active)
    adjusted, left = adjust(given, pool=task.store, start=start, active=active)
    settled = settle(adjusted, start=left, end=task.end, active=active)
    weights = task.subject.weights
    width = growing.width(
        settled.values,
        settled.error,
        top=task.config.top_features,
        weights=None if weights is None else weights[sample.rows],
    )
    return Found(sample=sample, settled=settled, wanted=wanted, predicted=predicted, width=width)


def _planned(task: Task) -> Plan:
    return planning.plan(
        n=len(task.end),
        m=len(task.start),
        **task.sizes,
        max_rows=task.config.max_rows,
        walked=None if task.scores is None else task.scores.pairs,
    )


def _active(pool: Pool, rows: IntArray) -> BoolArray:
    """Return whether each row differs from any background row in each column: (n, d)."""
    background = pool.codes[pool.n :]
    constant = (background == background[:1]).all(axis=0)
    return np.asarray(~constant | (pool.codes[rows] != background[0]))


def _some_background(subject: Subject, seeds: Seeds, *, budget: float) -> pd.DataFrame:
    m = len(subject.background)
    size = min(m, BACKGROUND_ROWS)
    if size > FEWEST_BACKGROUND:
        fits = masking.affordable(
            subject.model, subject.background, rows=size, seconds=BACKGROUND_SHARE * budget
        )
        size = min(size, max(fits, FEWEST_BACKGROUND))
    if m <= size:
        return subject.background
    keep = seeds.rng("permutation", "background").choice(m, size=size, replace=False)
    return subject.background.iloc[np.sort(keep)]


def _method(task: Task, found: Found) -> MethodSpec:
    config, reached, wanted = task.config, found.reached, found.wanted
    cut = (
        f"{config.budget:.3g} s reached {reached.rows:,} of {wanted.rows:,} rows, "
        f"with {reached.pairs} of {wanted.pairs} pairs of permutations each"
    )
    allowed = min(len(task.subject.background), BACKGROUND_ROWS)
    part = f"{config.budget:.3g} s allowed {len(task.start):,} of {allowed:,} background rows"
    cuts = [cut] if reached != wanted else []
    cuts += [part] if len(task.start) < allowed else []
    asked = {} if config.precision is None else {"precision": config.precision, "precision_of": PRECISION_OF}
    controlled = {} if task.scores is None else {"answers_along_walks": ALONG_WALKS}
    return MethodSpec(
        name=PERMUTATION.name,
        version=VERSION,
        exact=False,
        seed=config.seed,
        budget="; ".join(cuts) or None,
        params={
            "rows": reached.rows,
            "rows_planned": wanted.rows,
            "pairs": reached.pairs,
            "pairs_planned": wanted.pairs,
            "predicted_rows": found.predicted + len(task.start),
            "background_rows": len(task.start),
            "background_given": len(task.subject.background),
            **asked,
            **controlled,
            "ended_by": _ended_by(task, found),
            "precision_reached": _rounded(found.width.whole),
            "precision_of_rows": _rounded(found.width.of_rows),
            "estimator": "antithetic permutation pairs, own background row each, stratified by output",
            "background_effects": "control variates: mean contribution per bin of a column's background values",
            "efficiency": "regression on the background row's output; a remainder in proportion to variance",
        },
    )


def _ended_by(task: Task, found: Found) -> str:
    """Return what ended the growth: the plan, the precision that was asked for, or what stood in its way."""
    precision = task.config.precision
    if found.reached != found.wanted:
        return "budget"
    if precision is None:
        return "plan"
    if found.width.whole <= precision:
        return "precision"
    rows = min(len(task.end), task.config.max_rows or len(task.end))
    return "rows" if found.reached.rows == rows else "predictions"


def _rounded(part: float) -> float | None:
    """Return a part for the record; None where it is not known."""
    return round(part, 6) if np.isfinite(part) else None


PERMUTATION = Permutation()
