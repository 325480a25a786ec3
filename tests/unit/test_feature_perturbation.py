"""The option that asks for another quantity: declared wherever numbers stand, the same by every route, refused where it is none."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

import explain_step
from explain_step.compute import compute, described
from explain_step.config import Config
from explain_step.errors import InvalidInput
from explain_step.terminal import summary

OTHER = {"feature_perturbation": "correlation_dependent"}
N = 1_500


@pytest.fixture(scope="module")
def rows() -> tuple[pd.DataFrame, np.ndarray, LinearRegression]:
    """Return rows of which the third column is not used and tells of the first."""
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(N, 3)), columns=["income", "debt", "shoe"])
    X["shoe"] = 0.9 * X["income"] + 0.4 * X["shoe"]
    y = X["income"].to_numpy() - X["debt"].to_numpy()
    model = LinearRegression().fit(X, y)
    return X, y, model


@pytest.fixture(scope="module")
def shot(rows, tmp_path_factory) -> explain_step.Snapshot:
    X, y, model = rows
    folder = tmp_path_factory.mktemp("correlated")
    return explain_step.explain(model, X[:200], y[:200], background=X, directory=folder, **OTHER)


def importances(found: Any) -> pd.Series[Any]:
    return found.set_index("feature")["mean_abs_shap"]


def test_the_quantity_is_declared_wherever_numbers_stand(shot) -> None:
    assert shot.status == "complete"
    assert shot.manifest["quantity"]["feature_perturbation"] == "correlation_dependent"
    metas = [entry["meta"] for entry in shot.manifest["tables"].values()]
    assert all(meta["quantity"]["feature_perturbation"] == "correlation_dependent" for meta in metas)
    page = re.sub(r"\s+", " ", (shot.path / "report.html").read_text(encoding="utf-8"))
    assert "exactly, with credit also for what inputs tell of each other." in page
    assert "A contribution is a correlation-dependent Shapley value" in page
    assert "interventional Shapley value" not in page
    assert "even one that the model does not use" in page
    assert "correlation-dependent" in (shot.path / "card.md").read_text(encoding="utf-8")
    assert "exactly, correlation-dependent" in re.sub(r"\s+", " ", summary(shot))
    assert any(c["code"] == "correlation_dependent" for c in shot.manifest["caveats"])


def test_the_default_is_declared_too_and_is_another_snapshot(rows, shot, tmp_path) -> None:
    X, y, model = rows
    usual = explain_step.explain(model, X[:200], y[:200], background=X, directory=tmp_path)
    assert usual.manifest["quantity"]["feature_perturbation"] == "interventional"
    assert usual.id != shot.id
    one, other = importances(usual.tables["importance"]), importances(shot.tables["importance"])
    assert one["shoe"] < 1e-9 < 0.1 < other["shoe"]
    assert other["income"] < one["income"]
    page = (tmp_path / usual.id / "report.html").read_text(encoding="utf-8")
    assert "correlation-dependent" not in page


def test_fidelity_asks_the_game_of_the_values_themselves(shot) -> None:
    scores = shot.tables["scores"].set_index(["score", "variant"])["value"]
    assert ("masking_r2", "interventional") not in scores.index
    # the regression's game is not additive, but sums of these values come near; random ones do not
    assert 0.8 < scores["masking_r2", "correlation_dependent"] < 1.0 - 1e-6
    assert scores["masking_r2", "control_random"] < 0.75
    assert scores["additivity_error", "max"] < 1e-12


def test_fidelity_of_uncorrelated_columns_is_perfect() -> None:
    grid = np.stack(np.meshgrid([-1.0, 1.0], [-2.0, 2.0], [-3.0, 3.0]), axis=-1).reshape(-1, 3)
    X = pd.DataFrame(np.tile(grid, (10, 1)), columns=list("abc"))
    model = LinearRegression().fit(X, X.sum(axis=1))
    found = compute(model, X, None, config=Config(**OTHER))
    values = {(s.name, s.variant): s.value for s in found.scores}
    assert values["masking_r2", "correlation_dependent"] == pytest.approx(1.0, abs=1e-9)


def test_many_rows_have_the_same_values_block_by_block(rows) -> None:
    X, y, model = rows
    options: dict[str, Any] = {"config": Config(**OTHER), "background": X[:300]}
    whole, streamed = compute(model, X, y, **options), compute(model, X, y, many=500, **options)
    assert described(streamed)["rows"] == described(whole)["rows"] == N
    one, other = (
        importances(next(a.table for a in e.artifacts if a.name == "importance")) for e in (streamed, whole)
    )
    np.testing.assert_allclose(one, other.reindex(one.index), rtol=1e-9)
    assert one["shoe"] > 0.1


def test_it_replays(rows, shot) -> None:
    X, y, model = rows
    found = explain_step.replay(shot.path, data=X[:200], y=y[:200], background=X, model=model, figures=False)
    assert found.verdict == "identical", found.reason


def test_a_model_without_this_quantity_is_refused_and_told_the_remedy(rows) -> None:
    X, y, _ = rows
    model = LogisticRegression().fit(X, y > 0)
    with pytest.raises(
        InvalidInput, match=r"feature_perturbation must be 'interventional' for this model.*margin"
    ):
        explain_step.explain(model, X[:50], y[:50] > 0, **OTHER)
    found = compute(model, X[:50], y[:50] > 0, config=Config(output="margin", **OTHER), background=X)
    assert found.attributions.method.name == "linear_correlation_dependent"


def test_a_quantity_that_there_is_not_is_named() -> None:
    with pytest.raises(
        InvalidInput, match="feature_perturbation must be 'interventional' or 'correlation_dependent'"
    ):
        Config(feature_perturbation="path_dependent")


def test_options_from_before_keep_their_digest() -> None:
    assert "feature_perturbation" not in Config().canonical()
    assert Config(**OTHER).canonical()["feature_perturbation"] == "correlation_dependent"
    assert Config.parse(Config(**OTHER).canonical()) == Config(**OTHER)
