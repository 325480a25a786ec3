from __future__ import annotations

import numpy as np
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
from explain_step.artifacts import importance
from explain_step.config import Config
from explain_step.plots import importance as figures
from explain_step.plots import style
from explain_step.seeds import Seeds


def build(subject, attributions, **options):
    section = importance.build(subject, attributions, config=Config.parse(options), seeds=Seeds(0))
    return {a.name: a for a in section.artifacts}


@pytest.fixture(scope="module")
def single():
    X = normal_frame(200, 27).rename(columns={"x0": LONG, "x1": "🚀 rocket\nname", "x2": "日本語"})
    X["kind"] = ["a", "b"] * 100
    parts = {name: (lambda s, j=j: s / (1 + j)) for j, name in enumerate(X.columns[:26])}
    subject, _ = additive_case(X, parts | {"kind": lambda s: s == "a"})
    return build(*additive_case(X, parts | {"kind": lambda s: s == "a"}, y=subject.response.output[:, 0]))


@pytest.fixture(scope="module")
def several():
    X = normal_frame(120, 5)
    model = model_of(
        lambda f: np.zeros((len(f), 5)), X, outputs=FIVE, task="multiclass", output_space="probability"
    )
    phi = np.stack([X.to_numpy() * (k + 1) ** np.arange(5) / 50 for k in range(5)], axis=2)
    subject = subject_of(model, X)
    return build(subject, attributions_of(subject, phi))


@pytest.fixture(scope="module")
def one(single):
    return drawn(figures, single)


@pytest.fixture(scope="module")
def many(several):
    return drawn(figures, several)


def test_bars_and_a_beeswarm_for_one_output(one):
    assert [f.slug.split("-")[0] for f in one.figures] == ["bars", "beeswarm"]
    assert all(f.kind == "importance" and f.width == 835 for f in one.figures)
    assert "8 further columns together" in one.figures[0].alt
    assert "higher values push up" in one.figures[1].alt


def test_the_alt_text_has_full_names_and_numbers(one, single):
    alt = one.figures[0].alt
    top = single["importance"].table.iloc[0]
    assert LONG in alt
    assert style.number(top["mean_abs_shap"]) in alt
    assert "rank 1)" in alt
    assert "permutation importance" in alt


def test_nothing_is_cut_and_no_labels_overlap(one, many):
    found = [layout_faults(c) for c in (*one.canvases, *many.canvases)]
    assert found == [[]] * (2 + 2 + 4)


def test_several_outputs_have_a_mean_and_at_most_four_of_their_own(many):
    assert [f.slug for f in many.figures][:2] == ["bars-mean", "bars-by-output"]
    assert sum(f.slug.startswith("beeswarm") for f in many.figures) == 4
    assert "first 4 of 5 outputs" in many.figures[1].alt
    assert "One of 5 outputs" in many.figures[2].alt


def test_bars_of_every_output_stay_inside_a_shared_axis(many, several):
    widest = several["importance"].table.query("output == 'delta'")["ci_high"].max()
    assert all(axes.get_xlim()[1] >= widest for axes in many.canvases[1].axes)


def small_case():
    X = normal_frame(200, 3)
    phi = np.stack([np.full(200, 5.0), X["x1"], X["x1"].to_numpy()[::-1]], axis=1) + 0.01 * X.to_numpy()
    subject = subject_of(model_of(lambda f: np.zeros(len(f)), X), X)
    return build(subject, attributions_of(subject, phi))


@pytest.fixture(scope="module")
def small():
    return drawn(figures, small_case(), labels={"x0": "Readable"})


def test_labels_replace_names(small):
    assert small.canvases[0].axes[0].get_yticklabels()[0].get_text() == "Readable"
    assert "Readable" in small.figures[0].alt
    assert "x0" not in small.figures[0].alt


def test_brackets_join_exactly_the_columns_that_share_a_rank(small):
    axes = small.canvases[0].axes[0]
    brackets = [line for line in axes.lines if len(line.get_xdata()) == 4]
    assert [[round(v, 1) for v in line.get_ydata()] for line in brackets] == [[0.7, 0.7, 2.3, 2.3]]
    assert [t.get_text() for t in axes.texts] == ["1", "2\u20133", "2\u20133"]


def test_without_labels_of_rows_there_is_no_permutation_panel(small):
    assert len(small.canvases[0].axes) == 1


def test_redrawn_from_parquet_the_bytes_are_the_same(small):
    redrawn = plots.render(stored(small_case()), labels={"x0": "Readable"})
    assert [f.png for f in redrawn] == [f.png for f in small.figures]


def test_dots_of_a_bin_are_counted_from_its_first():
    lanes, low = [0, 0, 0, 1, 1, 1], [0.1, 0.1, 0.2, 0.2, 0.2, 0.2]
    place, of, first = figures._stacked(np.array([lanes, low]))
    assert place.tolist() == [0, 1, 0, 0, 1, 2]
    assert of.tolist() == [2, 2, 1, 3, 3, 3]
    assert first.tolist() == [0, 0, 2, 3, 3, 3]
