import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from effect_kit import kept_canvases, layout_faults
from PIL import Image
from segment_kit import linear, loan_frame

from explain_step.artifacts import segments
from explain_step.config import Config
from explain_step.plots import segment_search
from explain_step.plots import segments as plots
from explain_step.seeds import Seeds
from explain_step.types import Artifact

FRAME = loan_frame(300)
Y = np.where(FRAME["income"] + np.random.default_rng(0).normal(0, 8, len(FRAME)) > 20, "yes", "no")


def artifacts(frame=FRAME, y=Y, *, task="binary", **config):
    outputs = 3 if task == "multiclass" else 1
    weights = np.random.default_rng(1).normal(size=(2, outputs)) / 20
    subject, attributions = linear(frame, y, task=task, features=["age", "income"], weights=weights)
    section = segments.build(subject, attributions, config=Config.parse(config), seeds=Seeds(0))
    return {a.name: a for a in section.artifacts}


def edges_are_white(figure):
    picture = np.asarray(Image.open(io.BytesIO(figure.png)).convert("L"))
    return bool((np.r_[picture[0], picture[-1], picture[:, 0], picture[:, -1]] > 250).all())


def test_figures_of_a_classifier():
    figures = plots.draw(artifacts(segments=["purpose", "age < 30"]), labels={"income": "Income (1,000)"})
    assert [f.slug.split("_")[0] for f in figures] == ["performance", "rates", "importance"]
    assert all(f.kind == "segments" and edges_are_white(f) and f.width <= 1000 for f in figures)
    assert "purpose car" in figures[0].alt
    assert "All rows" in figures[0].alt


def test_withheld_levels_are_named_as_withheld():
    frame = FRAME.assign(rare=["x"] * 5 + ["y"] * 100 + ["z"] * 195)
    made = artifacts(frame, segments=["rare"])
    figure = plots.draw(made, labels={})[0]
    assert "rare x: withheld." in figure.alt
    assert "rare y: withheld." in figure.alt
    assert "rare z (195 rows)" in figure.alt


def test_empty_and_undefined_levels():
    y = np.where(FRAME["purpose"] == "car", "no", Y)
    figures = plots.draw(artifacts(y=y, segments=["purpose", "age > 900"]), labels={})
    assert "age > 900 yes: no rows." in figures[0].alt
    assert "purpose car" in figures[0].alt


def test_no_labels_no_performance_figure():
    figures = plots.draw(artifacts(y=None, segments=["purpose"]), labels={})
    assert [f.slug.split("_")[0] for f in figures] == ["rates", "importance"]


def test_one_importance_figure_per_output():
    y = np.random.default_rng(0).choice(["a", "b", "c"], len(FRAME))
    figures = plots.draw(artifacts(y=y, task="multiclass", segments=["purpose"]), labels={})
    assert sum(f.slug.startswith("importance") for f in figures) == 3
    assert len({f.slug for f in figures}) == len(figures)


def test_many_segments_go_on_several_figures():
    r = np.random.default_rng(0)
    frame = FRAME.assign(**{f"g{i}": r.choice(list("abcdef"), len(FRAME)) for i in range(7)})
    made = artifacts(
        frame, y=frame["income"].to_numpy(), task="regression", segments=[f"g{i}" for i in range(7)]
    )
    figures = plots.draw(made, labels={})
    assert len(figures) == 4
    assert len({f.slug for f in figures}) == 4


def test_hostile_names_stay_inside():
    names = {"purpose": "<b>" + "x" * 300, "home owner": "$\\frac$\n\U0001f600"}
    frame = FRAME.rename(columns=names).assign(
        **{names["purpose"]: FRAME["purpose"].map({"car": "y" * 200, "boat": "a\nb", "house": "$x$"})}
    )
    figures = plots.draw(artifacts(frame, segments=list(names.values())), labels={})
    assert all(edges_are_white(f) for f in figures)


def test_same_tables_same_bytes_and_tables_unchanged():
    made = artifacts(segments=["purpose"])
    before = {name: a.table.copy() for name, a in made.items()}
    one, two = (plots.draw(made, labels={}) for _ in range(2))
    assert [f.png for f in one] == [f.png for f in two]
    for name, table in before.items():
        pd.testing.assert_frame_equal(made[name].table, table)


@pytest.mark.parametrize("table", [None, "empty"])
def test_nothing_to_draw(table):
    made = {} if table is None else artifacts(segments=["purpose"])
    if table == "empty":
        made = {"segments": replace(made["segments"], table=made["segments"].table.iloc[:0])}
    assert plots.draw(made, labels={}) == ()


def searched(**changes):
    table = pd.DataFrame(
        {
            "rule": ["income < 3 and age >= 40 and purpose == 'car'", "x" * 300],
            "n": [30.0, 50.0],
            "share": [0.3, 0.5],
            "metric": "mae",
            "metric_value": [8.0, 7.2],
            "metric_ci_low": [7.0, 5.0],
            "metric_ci_high": [9.0, 8.0],
            "rest_value": [5.0, 4.6],
            "p_adjusted": [0.01, 0.4],
        }
    ).assign(**changes)
    meta = {"metric": "mae", "metric_direction": "lower", "report_rows": 100}
    return Artifact(name="segment_search", kind="segments", table=table, meta=meta)


def test_found_groups_are_drawn_beside_all_rows_and_the_others():
    with kept_canvases() as canvases:
        (figure,) = segment_search.draw(searched())
    (axes,) = canvases[0].axes
    assert layout_faults(canvases[0]) == []
    assert edges_are_white(figure)
    dashed = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert dashed.get_xdata()[0] == pytest.approx(0.3 * 8 + 0.7 * 5)
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() != "white" for line in dots] == [True, False]
    assert "8 (7 to 9), other rows 5, differs." in figure.alt
    assert "All rows: 5.9." in figure.alt


@pytest.mark.parametrize("changes", [{"rest_value": [5.0, 9.0]}, {"share": [0.3, np.nan]}])
def test_no_line_of_all_rows_where_the_table_does_not_tell_it(changes):
    assert segment_search.overall(searched(**changes).table, metric="mae") is None
    assert segment_search.overall(searched().table.iloc[:1], metric="mae") is None


def test_all_rows_of_a_root_mean_square():
    table = pd.DataFrame({"metric_value": [3.0, 1.0], "rest_value": [1.0, 3.0], "share": [0.25, 0.75]})
    assert segment_search.overall(table, metric="rmse") == pytest.approx(np.sqrt(0.25 * 9 + 0.75))


def test_the_search_stands_after_the_performance_and_needs_a_group():
    made = artifacts(segments=["purpose"])
    with_search = plots.draw(made | {"segment_search": searched()}, labels={})
    assert [f.slug.split("_")[0] for f in with_search] == ["performance", "search", "rates", "importance"]
    assert segment_search.draw(replace(searched(), table=searched().table.iloc[:0])) == ()
