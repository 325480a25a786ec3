from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from effect_kit import (
    additive_case,
    attributions_of,
    layout_faults,
    model_of,
    normal_frame,
    subject_of,
)
from plot_kit import FIVE, LONG, drawn, stored

from explain_step import plots
from explain_step.artifacts import dependence, interactions
from explain_step.config import Config
from explain_step.plots import dependence as figures
from explain_step.plots import interactions as joint
from explain_step.plots import style
from explain_step.seeds import Seeds
from explain_step.types import Artifact


def build(subject, attributions, **options):
    config = Config.parse(options)
    parts = [
        make(subject, attributions, config=config, seeds=Seeds(0))
        for make in (dependence.build, interactions.build)
    ]
    return {a.name: a for part in parts for a in part.artifacts}


def mixed_case(n=300):
    X = normal_frame(n, 2).rename(columns={"x0": LONG})
    X.loc[::10, "x1"] = np.nan
    X["few"] = np.arange(n) % 4
    X["day"] = pd.date_range("2020-01-01", periods=n, freq="D")
    levels = ["a level with a long name, longer than one line", "b", "🚀", "$d$", "e", "f", "g"]
    X["kind"] = pd.Categorical([levels[i % 7] for i in range(n)])
    X["flag"] = np.arange(n) % 3 == 0

    def respond(f):
        day = (f["day"] - pd.Timestamp("2020-01-01")) / pd.Timedelta(days=100)
        kind = f["kind"].astype(str).str.len()
        return f[LONG] * (1 + f["flag"].astype(float)) + f["x1"].fillna(0) + f["few"] + day + kind / 10

    subject = subject_of(model_of(respond, X), X)
    phi = np.stack([X[LONG], X["x1"].fillna(0), X["few"], X[LONG] / 2, X[LONG] / 3, X["flag"] * 1.0], axis=1)
    return subject, attributions_of(subject, phi)


@pytest.fixture(scope="module")
def mixed():
    return build(*mixed_case())


@pytest.fixture(scope="module")
def several():
    X = normal_frame(120, 2).assign(kind=["u", "v", "w"] * 40)
    X.loc[::6, "x1"] = np.nan

    def respond(f):
        term = f["x0"] * f["x1"].fillna(0)
        return np.stack([(k + 1) * 0.01 * term + 0.1 * k for k in range(5)], axis=1)

    model = model_of(respond, X, outputs=FIVE, task="multiclass", output_space="probability")
    subject = subject_of(model, X)
    phi = np.stack(
        [np.stack([X["x0"], X["x1"].fillna(0), X["x0"] / 5], axis=1) * (k + 1) for k in range(5)], axis=2
    )
    return build(subject, attributions_of(subject, phi))


@pytest.fixture(scope="module")
def one(mixed):
    return drawn(figures, mixed, labels={"x1": "Readable"})


@pytest.fixture(scope="module")
def many(several):
    return drawn(figures, several)


def place(mixed, feature):
    return list(dict.fromkeys(mixed["dependence"].table["feature"])).index(feature)


def test_one_figure_per_feature_then_pairs_then_the_joint_effect(one, mixed):
    features = list(dict.fromkeys(mixed["dependence"].table["feature"]))
    slugs = [f.slug for f in one.figures]
    assert slugs[: len(features)] == [style.slug(f) for f in features]
    assert slugs[-2].startswith("interactions")
    assert slugs[-1].startswith("joint")
    assert one.figures[place(mixed, "x1")].title == "How the prediction depends on Readable"
    assert LONG in one.figures[-1].alt


def test_nothing_is_cut_and_no_labels_overlap(one, many):
    faults = {c.get_suptitle(): layout_faults(c) for c in (*one.canvases, *many.canvases)}
    assert {title: found for title, found in faults.items() if found} == {}


def test_the_alt_text_tells_the_curve_and_the_levels(one, mixed):
    alts = {f.slug: f.alt for f in one.figures}
    assert "2020-" in alts[style.slug("day")]
    assert "a level with a long name, longer than one line" in alts[style.slug("kind")]
    assert alts[style.slug(LONG)].count("at ") >= 5


def test_predictions_of_every_output_are_inside_their_shared_axis(many, several):
    table = several["dependence"].table
    shown = list(dict.fromkeys(table["output"]))[:4]
    pdp = table[(table["feature"] == "x0") & (table["curve"] == "pdp") & table["output"].isin(shown)]
    low, high = many.canvases[place(several, "x0")].axes[4].get_ylim()
    assert low <= pdp["value"].min()
    assert high >= pdp["value"].max()


def test_targets_with_units_of_their_own_have_axes_of_their_own():
    X = normal_frame(120, 2)
    model = model_of(lambda f: np.stack([f["x0"], 1000 * f["x0"]], axis=1), X, outputs=("small", "large"))
    subject = subject_of(model, X)
    phi = np.stack([np.stack([X["x0"] * k, 0 * X["x1"]], axis=1) for k in (1, 1000)], axis=2)
    canvas = drawn(figures, build(subject, attributions_of(subject, phi))).canvases[0]
    small, large = canvas.axes[0].get_ylim(), canvas.axes[1].get_ylim()
    assert np.ptp(large) > 100 * np.ptp(small)
    assert np.ptp(canvas.axes[3].get_ylim()) > 100 * np.ptp(canvas.axes[2].get_ylim())
    assert layout_faults(canvas) == []


def test_few_values_are_dots_and_many_are_curves(one, mixed):
    few = one.canvases[place(mixed, "few")]
    assert len(few.axes) == 2
    assert few.axes[0].get_yticklabels()[0].get_text().startswith("0")
    assert len(one.canvases[place(mixed, "x1")].axes) == 4


def test_rows_without_a_value_are_marked_off_the_curve(one, mixed):
    canvas = one.canvases[place(mixed, "x1")]
    at = max(float(line.get_xdata()[0]) for line in canvas.axes[0].lines if line.get_marker() == "D")
    curve = mixed["dependence"].table.query("feature == 'x1' and curve == 'pdp'")
    assert at > curve["x"].max()
    assert "30 rows without a value" in canvas.get_supxlabel().replace("\n", " ")


def test_pairs_are_filled_where_the_interval_excludes_zero(one, mixed):
    pairs = next(c for c in one.canvases if c.get_suptitle() == "Which columns act together")
    table = mixed["interactions"].table.head(10)
    filled = [
        tuple(colour[:3]) != (1.0, 1.0, 1.0) for colour in pairs.axes[0].collections[-1].get_facecolors()
    ]
    assert filled == (table["ci_low"] > 0).tolist()
    assert sum(filled) == 1


@pytest.fixture(scope="module")
def strict():
    X = normal_frame(300, 2)
    subject, attributions = additive_case(X, {"x0": np.exp, "x1": lambda s: s})
    return build(subject, attributions, privacy="strict")


def test_strict_tables_redrawn_from_parquet_give_the_same_bytes(strict):
    first = drawn(figures, strict)
    assert len(first.figures) == 3
    assert "single rows" not in first.canvases[0].get_supxlabel()
    assert [f.png for f in plots.render(stored(strict), labels={})] == [f.png for f in first.figures]


def test_the_joint_effect_along_dates_is_written_in_dates_and_says_what_it_is(mixed):
    surface = mixed["interaction_surface"]
    lines = pd.concat([surface.table.assign(x_b=float(k), level_b=None) for k in range(7)])
    days = {"feature_a": "day", "x_a": lines["x_a"].rank(method="dense") * 30 + 18_000, "level_a": None}
    meta = dict(surface.meta) | {"dates": ["day"]}
    changed = Artifact(name="interaction_surface", kind="dependence", table=lines.assign(**days), meta=meta)
    made = drawn(figures, {"interaction_surface": changed})
    (canvas,) = made.canvases
    ticks = [t.get_text() for t in canvas.axes[0].get_xticklabels()]
    assert ticks
    assert not any("18" in t and "," in t for t in ticks)
    assert len(canvas.axes[0].get_legend().get_texts()) == 4
    small = " ".join(t.get_text() for t in canvas.texts).replace("\n", " ")
    assert "background rows" in small
    assert "4 of 7 lines are drawn" in small
    assert "95% intervals over these rows" in small


def test_pairs_say_whether_they_are_exact(mixed):
    for exact, word in ((True, "; exact."), (False, "; estimated.")):
        pairs = mixed["interactions"]
        pairs = Artifact(
            name=pairs.name, kind=pairs.kind, table=pairs.table, meta=dict(pairs.meta) | {"exact": exact}
        )
        made = drawn(figures, {"interactions": pairs})
        assert word in " ".join(t.get_text() for t in made.canvases[0].texts).replace("\n", " ")


@pytest.mark.parametrize("lines", [[], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
def test_lines_of_single_rows_have_gaps_between_them(lines):
    count = len(lines)
    ice = pd.DataFrame({"line": lines, "x": np.arange(count) * 1.0, "value": np.arange(count) * 10.0})
    x, y = figures._lines(ice.astype(float))
    known = {0: [], 1: [0.0, 1.0, 2.0], 2: [0.0, 2.0, np.nan, 1.0]}[len(set(lines))]
    np.testing.assert_array_equal(x, known)
    np.testing.assert_array_equal(y, np.multiply(known, 10.0))


def test_years_are_written_as_years_and_apart():
    """The legend of an interaction had 2,010 twice, for 2011 and 2012."""
    years = [pd.DataFrame({"level_b": [None], "x_b": [year]}) for year in (2011.0, 2012.0)]
    assert joint._values(years, date=False) == ["2011", "2012"]
    near = [pd.DataFrame({"level_b": [None], "x_b": [x]}) for x in (34.051, 34.052)]
    assert joint._values(near, date=False) == ["34.051", "34.052"]
    assert figures._level_name(pd.Series({"level": None, "x": 2011.0})) == "2011"
