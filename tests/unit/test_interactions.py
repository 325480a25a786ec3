from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from effect_kit import additive_case, attributions_of, model_of, normal_frame, subject_of

from explain_step.artifacts import interactions
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.seeds import Seeds

SEEDS = Seeds(0)


def section(subject, attributions, **options):
    return interactions.build(subject, attributions, config=Config.parse(options), seeds=SEEDS)


def case(function, n=400, d=3, **more):
    X = normal_frame(n, d)
    subject = subject_of(model_of(function, X), X, **more)
    return subject, attributions_of(subject, X.to_numpy())


def pairs(section_):
    table = section_.artifacts[0].table
    return table.set_index([table["feature_a"], table["feature_b"]])


def product(frame):
    return frame["x0"] * frame["x1"] + frame["x2"]


def test_a_product_is_found_with_its_size():
    table = section(*case(product)).artifacts[0].table
    top = table.iloc[0]
    assert {top["feature_a"], top["feature_b"]} == {"x0", "x1"}
    # the departure of a product is (x0 - mean)(x1 - mean)
    X = normal_frame(400, 3)
    truth = float(np.sqrt((((X["x0"] - X["x0"].mean()) * (X["x1"] - X["x1"].mean())) ** 2).mean()))
    assert top["ci_low"] < truth < top["ci_high"]
    assert top["strength"] == pytest.approx(truth, rel=0.2)
    assert top["share"] == pytest.approx(0.5, abs=0.2)
    assert (table.iloc[1:]["strength"] == 0).all()


def test_an_additive_model_has_no_interaction():
    X = normal_frame(200, 3)
    subject, attributions = additive_case(X, {"x0": np.exp, "x1": np.sin, "x2": lambda s: s})
    result = section(subject, attributions)
    table = result.artifacts[0].table
    assert (table[["strength", "ci_low", "ci_high"]] == 0).all(axis=None)
    assert [a.name for a in result.artifacts] == ["interactions"]


def test_rounding_of_single_precision_is_no_interaction():
    result = section(*case(lambda f: 1000 + f["x0"].astype(np.float32) + np.sin(f["x1"]).astype(np.float32)))
    assert (result.artifacts[0].table["strength"] == 0).all()


def test_noise_of_the_background_adds_nothing_to_a_pair_that_does_not_interact():
    # x0 and x1 interact only through x2, whose background is symmetric: their departure is zero on average
    X = normal_frame(400, 3)
    mirrored = pd.concat([X, X.assign(x2=-X["x2"])], ignore_index=True)
    subject = subject_of(model_of(lambda f: f["x0"] * f["x1"] * f["x2"], X), X, background=mirrored)
    hits = 0
    for seed in range(10):
        attributions = attributions_of(subject, X.to_numpy())
        found = (
            interactions.build(subject, attributions, config=Config(), seeds=Seeds(seed)).artifacts[0].table
        )
        pair = found[(found[["feature_a", "feature_b"]].isin(["x0", "x1"])).all(axis=1)].iloc[0]
        hits += bool(pair["ci_low"] > 0)
    assert hits <= 2


def test_the_strongest_pair_has_a_joint_effect_unless_redacted():
    result = section(*case(product))
    surface = next(a.table for a in result.artifacts if a.name == "interaction_surface")
    X = normal_frame(400, 3)
    np.testing.assert_allclose(surface["value"], surface["x_a"] * surface["x_b"] + X["x2"].mean(), atol=0.2)
    assert ((surface["ci_low"] <= surface["value"]) & (surface["value"] <= surface["ci_high"])).all()
    hidden = section(*case(product), redact="x0")
    assert [a.name for a in hidden.artifacts] == ["interactions"]


def test_strict_surfaces_stay_inside_the_tails():
    subject, attributions = case(product)
    result = section(subject, attributions, privacy="strict")
    surface = next(a.table for a in result.artifacts if a.name == "interaction_surface")
    assert surface["x_a"].min() > subject.X["x0"].quantile(0.04)
    assert surface["x_a"].max() < subject.X["x0"].quantile(0.96)


def test_levels_and_numbers_interact_by_name():
    X = normal_frame(300, 1).assign(kind=["a", "b", "c"] * 100)
    subject = subject_of(model_of(lambda f: f["x0"] * (f["kind"] == "a"), X), X)
    phi = np.stack([X["x0"], X["x0"]], axis=1)
    result = section(subject, attributions_of(subject, phi))
    surface = next(a.table for a in result.artifacts if a.name == "interaction_surface")
    assert set(surface["feature_a"]) == {"x0"}
    assert set(surface["level_b"]) == {"a", "b", "c"}


def test_weights_decide_which_rows_count():
    X = normal_frame(300, 2)
    X["x0"] = np.abs(X["x0"]) * np.where(np.arange(300) < 150, 1, -1)
    function = lambda f: np.maximum(f["x0"], 0) * f["x1"]  # noqa: E731
    light = np.where(np.arange(300) < 150, 1e-9, 1.0)
    found = []
    for weights in (None, light):
        subject = subject_of(model_of(function, X), X, weights=weights)
        found.append(
            section(subject, attributions_of(subject, X.to_numpy())).artifacts[0].table["strength"].iloc[0]
        )
    assert found[1] < found[0]


def test_one_column_has_no_interactions_which_is_no_lack():
    result = section(*case(lambda f: f["x0"], d=1))
    assert result.artifacts == ()
    assert [(c.code, c.degrades) for c in result.caveats] == [("one_column", False)]


def test_one_feature_of_several_is_not_applicable():
    with pytest.raises(NotApplicable, match="two features"):
        section(*case(product), top_features=1)


def test_a_spent_budget_keeps_two_contexts_and_says_so():
    result = section(*case(product), budget=1e-9)
    assert result.artifacts[0].meta["contexts"] == 2
    assert result.caveats[0].code == "interaction_budget"
    assert result.caveats[0].degrades


def test_same_input_same_tables_and_strict_json_meta():
    subject, attributions = case(product)
    before = subject.X.copy(deep=True)
    one, two = section(subject, attributions), section(subject, attributions)
    for first, second in zip(one.artifacts, two.artifacts, strict=True):
        pd.testing.assert_frame_equal(first.table, second.table)
        json.dumps(first.meta, allow_nan=False)
    pd.testing.assert_frame_equal(subject.X, before)
