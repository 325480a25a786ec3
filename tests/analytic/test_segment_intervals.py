"""Do the intervals of segments cover what they promise, and are p-values uniform where nothing differs?"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from segment_kit import linear

from explain_step.artifacts import segment_performance as performance
from explain_step.artifacts import segment_tests, segments
from explain_step.artifacts.proportions import Share, equality, newcombe, share
from explain_step.artifacts.segment_statistics import moments, welch
from explain_step.config import Config
from explain_step.intervals import holm
from explain_step.metrics import METRICS
from explain_step.seeds import Seeds

BY_NAME = {m.name: m for m in METRICS}


@pytest.mark.parametrize("sizes", [(25, 200), (40, 60), (150, 150)])
def test_difference_intervals_cover_for_skewed_attributions(sizes):
    r = np.random.default_rng(0)
    hits = []
    for _ in range(600):
        inside = r.exponential(2.0, size=(sizes[0], 1))
        outside = r.exponential(1.0, size=(sizes[1], 1))
        found = welch(moments(inside), moments(outside))
        hits.append(found.low[0] <= 1.0 <= found.high[0])
    # five standard errors of a simulation of 600 around a coverage of 92 % or more
    assert np.mean(hits) > 0.92 - 5 * np.sqrt(0.92 * 0.08 / 600)
    assert np.mean(hits) < 0.99


def test_p_values_are_nearly_uniform_where_nothing_differs():
    r = np.random.default_rng(1)
    p = []
    for _ in range(800):
        values = np.abs(r.standard_normal((160, 1)))
        p.append(welch(moments(values[:50]), moments(values[50:])).p[0])
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert np.mean(np.array(p) < 0.05) < 0.09


@pytest.mark.parametrize("weighted", [False, True])
def test_false_alarms_among_long_tailed_contributions_are_rare(weighted):
    """Welch's p-values give 16% of such tables a false alarm."""
    r = np.random.default_rng(5)
    alarms = []
    for _ in range(120):
        values, group = r.lognormal(size=(250, 4)), r.integers(0, 5, size=250)
        w = r.uniform(0.5, 2.0, size=250) if weighted else None
        orders = segment_tests.orders_of(len(values), rng=r)  # one for all columns, as in a table
        made = [segment_tests.shuffled_values(values[:, j], w, orders=orders) for j in range(4)]
        p = [segment_tests.by_chance(m, group == g).p for m in made for g in range(5)]
        alarms.append(holm(p).min() < 0.05)
    assert np.mean(alarms) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)


def test_a_clear_difference_has_a_p_value_far_below_what_draws_can_tell():
    r = np.random.default_rng(6)
    values, inside = np.abs(r.standard_normal(300)), np.arange(300) < 60
    p = []
    for factor in (1.0, 2.0, 3.0, 6.0):
        own = np.where(inside, factor * values, values)
        p.append(
            segment_tests.by_chance(
                segment_tests.shuffled_values(own, None, orders=segment_tests.orders_of(len(own), rng=r)),
                inside,
            ).p
        )
    assert p == sorted(p, reverse=True)
    assert p[0] > 0.01
    assert p[3] < 1e-8


def test_weighted_interval_covers():
    r = np.random.default_rng(2)
    hits = []
    for _ in range(500):
        w = r.uniform(0.2, 2.0, size=120)
        x = r.gamma(2.0, size=(120, 1))
        inside, outside = moments(x[:50], w[:50]), moments(x[50:], w[50:])
        found = welch(inside, outside)
        hits.append(found.low[0] <= 0 <= found.high[0])
    assert 0.90 < np.mean(hits) < 0.99


@pytest.mark.parametrize("name", ["roc_auc", "log_loss", "brier", "accuracy", "balanced_accuracy", "f1"])
def test_resampled_metric_equals_the_metric_on_the_resample(name):
    subject, _ = _classifier(np.random.default_rng(3), 80)
    r = np.random.default_rng(4)
    counts = np.stack([np.bincount(r.integers(0, 80, size=80), minlength=80) for _ in range(5)])
    fast = performance.resampled(BY_NAME[name], subject, counts.astype(float))
    for value, count in zip(fast, counts, strict=True):
        rows = np.repeat(np.arange(80), count)
        assert value == pytest.approx(performance.value_on(BY_NAME[name], subject.take(rows)), rel=1e-9)


@pytest.mark.parametrize("name", ["rmse", "mae", "r2"])
def test_resampled_regression_metric_equals_the_metric_on_the_resample(name):
    r = np.random.default_rng(5)
    frame = pd.DataFrame({"x": r.normal(size=60)})
    subject, _ = linear(frame, frame["x"] + r.normal(size=60), task="regression", weights=[1.0])
    counts = np.bincount(r.integers(0, 60, size=60), minlength=60)
    (fast,) = performance.resampled(BY_NAME[name], subject, counts[None].astype(float))
    rows = np.repeat(np.arange(60), counts)
    assert fast == pytest.approx(performance.value_on(BY_NAME[name], subject.take(rows)), rel=1e-9)


def _classifier(r, n):
    frame = pd.DataFrame({"x": np.round(r.normal(size=n), 1)})  # ties on purpose
    y = np.where(frame["x"] + r.logistic(size=n) > 0, "yes", "no")
    return linear(frame, y, weights=[1.0])


def test_metric_difference_covers_zero_where_nothing_differs():
    r = np.random.default_rng(6)
    hits = []
    for i in range(150):
        subject, _ = _classifier(r, 200)
        rng = np.random.default_rng(i)
        inside = performance.draws(BY_NAME["roc_auc"], subject, np.arange(60), rng=rng)
        rest = performance.draws(BY_NAME["roc_auc"], subject, np.arange(60, 200), rng=rng)
        found = performance.difference(inside, rest)
        hits.append(found.low <= 0 <= found.high)
    assert np.mean(hits) > 0.88


@pytest.mark.parametrize(
    ("name", "errors", "truth"),
    [
        ("rmse", "standard_normal", 1.0),
        ("mae", "standard_exponential", 1.0),
        ("mae", "standard_normal", 0.798),
    ],
)
def test_means_over_few_rows_are_covered(name, errors, truth):
    """Percentiles of resamples of 25 rows hold the truth in 86 to 91% of samples."""
    r, hits = np.random.default_rng(8), []
    for i in range(300):
        x = r.normal(size=25)
        subject, _ = linear(
            pd.DataFrame({"x": x}), x + getattr(r, errors)(25), task="regression", weights=[1.0]
        )
        drawn = performance.draws(BY_NAME[name], subject, np.arange(25), rng=np.random.default_rng(i))
        found = performance.interval(drawn)
        hits.append(found.low <= truth <= found.high)
    assert np.mean(hits) > 0.91


def test_perfect_scores_claim_no_certainty():
    frame = pd.DataFrame({"x": np.r_[np.full(30, -2.0), np.full(30, 2.0)]})
    subject, _ = linear(frame, np.where(frame["x"] > 0, "yes", "no"), weights=[1.0])
    rng = np.random.default_rng(0)
    drawn = performance.draws(BY_NAME["roc_auc"], subject, np.arange(60), rng=rng)
    assert drawn.value == 1.0
    known = performance.interval(drawn)
    assert 0.85 < known.low < 0.97
    assert known.high == 1.0
    right = performance.interval(performance.draws(BY_NAME["accuracy"], subject, np.arange(60), rng=rng))
    assert right.value == 1.0
    assert 0.9 < right.low < 1.0


def test_newcombe_covers_and_score_test_is_calibrated():
    r = np.random.default_rng(7)
    hits, p = [], []
    for _ in range(600):
        a, b = share(r.random(30) < 0.1, None), share(r.random(150) < 0.1, None)
        low, high = newcombe(a, b)
        hits.append(low <= 0 <= high)
        p.append(equality(a, b))
    assert np.mean(hits) > 0.92
    assert np.mean(np.array(p) < 0.05) < 0.09
    for a, b in ((7, 10), (0, 25), (30, 30)):
        counts = np.array([[a, 40 - a], [b, 60 - b]])
        given = [Share(value=h / (h + m), size=h + m, n=h + m) for h, m in counts]
        expected = stats.chi2_contingency(counts, correction=False).pvalue
        assert equality(*given) == pytest.approx(expected)


def test_the_scale_of_weights_changes_no_share():
    r = np.random.default_rng(8)
    hits, weights = r.random(50) < 0.3, r.random(50)
    for scale in (1e-6, 1e6):
        one, other = share(hits, weights), share(hits, scale * weights)
        assert (other.value, other.size) == pytest.approx((one.value, one.size))
        assert other.interval() == pytest.approx(one.interval())


def test_columns_without_variation_are_equal_or_not():
    same = welch(moments(np.full((30, 2), 0.1)), moments(np.full((50, 2), [0.1, 0.2])))
    assert same.p.tolist() == [1.0, 0.0]
    assert (same.low == same.high).all()


def test_holm_keeps_false_alarms_of_a_whole_table_rare():
    alarms = 0
    for seed in range(40):
        r = np.random.default_rng(seed)
        frame = pd.DataFrame(
            {f"x{i}": r.normal(size=240) for i in range(3)} | {"g": r.choice(list("abc"), 240)}
        )
        y = frame["x0"].to_numpy() + r.normal(size=240)
        subject, attributions = linear(
            frame, y, task="regression", features=["x0", "x1", "x2"], weights=[1.0, 1.0, 1.0]
        )
        config = Config.parse({"segments": ["g"]})
        table = segments.build(subject, attributions, config=config, seeds=Seeds(seed)).artifacts[0].table
        alarms += bool((table["p_adjusted"] < 0.05).any())
    assert alarms <= 8  # at most 5 % are wanted; 8 of 40 has probability 0.0007 then


def test_segment_interval_covers_the_true_mean():
    hits = []
    for seed in range(150):
        r = np.random.default_rng(seed)
        frame = pd.DataFrame({"x": r.normal(size=120), "g": ["a", "b", "b"] * 40})
        subject, attributions = linear(frame, frame["x"], task="regression", features=["x"], weights=[1.0])
        config = Config.parse({"segments": ["g"]})
        table = segments.build(subject, attributions, config=config, seeds=Seeds(seed)).artifacts[0].table
        row = table[table["level"] == "a"].iloc[0]
        hits.append(row["ci_low"] <= np.sqrt(2 / np.pi) <= row["ci_high"])
    assert np.mean(hits) > 0.88
