import json

import numpy as np
import pandas as pd
import pytest
from segment_kit import linear, loan_frame, shuffled

from explain_step.artifacts import examples
from explain_step.artifacts.prototypes import coverage, k_medoids, medoid, typical_space
from explain_step.artifacts.row_order import content_order, row_keys
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.seeds import Seeds

CONTRACT = [
    "example", "kind", "row_id", "y_true", "y_pred", "prediction", "output", "feature", "feature_value",
    "shap", "base_value",
]  # fmt: skip
KINDS = {"correct", "incorrect", "borderline", "largest_error", "prototype"}
FRAME = loan_frame(300, seed=4)[["age", "income", "purpose", "employed"]].assign(
    income=lambda f: f["income"] - f["income"].mean()
)
WEIGHTS = [0.0, 0.1, 0.3, 0.5]


def labels(seed=0):
    r = np.random.default_rng(seed)
    score = 0.1 * FRAME["income"] + 0.5 * FRAME["employed"] + r.logistic(size=len(FRAME))
    return np.where(score > 0.5, "yes", "no")


def build(subject, attributions, **options):
    return examples.build(subject, attributions, config=Config.parse(options), seeds=Seeds(0))


def binary(**options):
    return linear(FRAME, labels(), weights=WEIGHTS, **options)


def table_of(section):
    return section.artifacts[0].table


def test_contract():
    subject, attributions = binary()
    section = build(subject, attributions)
    table = table_of(section)
    assert set(CONTRACT) <= set(table.columns)
    assert set(table["kind"]) == KINDS
    assert table["example"].nunique() <= 14
    assert (table.groupby("example").size() == FRAME.shape[1]).all()
    json.dumps(dict(section.artifacts[0].meta), allow_nan=False)
    assert set(section.artifacts[0].meta["rules"]) >= KINDS
    assert section.caveats == ()


def test_classes_have_the_names_that_were_given_for_readers():
    subject, attributions = binary()
    assert subject.model.classes == ("no", "yes")
    names = {"no": "granted", "yes": "denied"}
    for privacy in ("standard", "strict"):
        plain = table_of(build(subject, attributions, privacy=privacy))
        named = table_of(build(subject, attributions, privacy=privacy, class_names=list(names.values())))
        for column in ("y_true", "y_pred"):
            assert list(named[column]) == list(plain[column].replace(names))
        same = table_of(build(subject, attributions, privacy=privacy, class_names=["yes", "no"]))
        assert list(same["y_true"]) == list(plain["y_true"])


def test_attributions_add_up_to_the_prediction():
    subject, attributions = binary()
    table = table_of(build(subject, attributions))
    sums = table.groupby("example").agg({"shap": "sum", "base_value": "first", "prediction": "first"})
    assert np.allclose(sums["shap"] + sums["base_value"], sums["prediction"])


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_shuffling_the_rows_changes_nothing(task):
    r = np.random.default_rng(1)
    y = {
        "binary": labels(),
        "multiclass": r.choice(["a", "b", "c"], len(FRAME)),
        "regression": FRAME["income"].to_numpy() + r.normal(size=len(FRAME)),
    }[task]
    outputs = 3 if task == "multiclass" else 1
    frame = pd.concat([FRAME, FRAME.head(40)], ignore_index=True)  # equal rows are ties
    y = np.r_[y, y[:40]]
    subject, attributions = linear(
        frame, y, task=task, weights=r.normal(size=(4, outputs)) * [[0.01], [0.1], [0.3], [1]]
    )
    first = table_of(build(subject, attributions))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(frame))
        again = table_of(build(*shuffled(subject, attributions, order)))
        pd.testing.assert_frame_equal(first, again)


def test_each_kind_means_what_it_says():
    subject, attributions = binary()
    table = table_of(build(subject, attributions)).drop_duplicates("example").set_index("kind")
    assert (table.loc[["correct"], "y_true"] == table.loc[["correct"], "y_pred"]).all()
    assert (table.loc[["incorrect"], "y_true"] != table.loc[["incorrect"], "y_pred"]).all()
    assert set(table.loc[["correct"], "y_pred"]) == {"yes", "no"}
    assert set(table.loc[["borderline"], "y_pred"]) == {"yes", "no"}
    p = subject.response.probability[:, 1]
    own = np.where(subject.y == "yes", p, 1 - p)
    worst = subject.row_ids[np.argmin(own)]
    assert worst in set(table.loc[["largest_error"], "row_id"])
    margin = np.abs(p - 0.5)
    nearest = {
        subject.row_ids[i] for side in (p > 0.5, p <= 0.5) for i in [np.where(side, margin, 9).argmin()]
    }
    # a nearest row may already be shown under another kind; then the next one stands in
    shown = set(table["row_id"])
    assert nearest <= shown


def test_regression_band():
    y = FRAME["income"].to_numpy() + np.random.default_rng(0).normal(size=len(FRAME))
    subject, attributions = linear(FRAME, y, task="regression", weights=[0.0, 1.0, 0.0, 0.0])
    section = build(subject, attributions)
    table = table_of(section).drop_duplicates("example").set_index("kind")
    error = (table["y_true"].astype(float) - table["y_pred"].astype(float)).abs()
    band = np.quantile(np.abs(subject.y - subject.response.output[:, 0]), 0.75)
    assert (error["correct"] <= band + 1e-4).all()
    assert (error["incorrect"] > band - 1e-4).all()
    assert f"{band:.4g}" in section.artifacts[0].meta["rules"]["incorrect"]
    assert error["largest_error"].max() == pytest.approx(
        np.abs(subject.y - subject.response.output[:, 0]).max(), abs=1e-3
    )


def test_multiclass_explains_predicted_and_true_class():
    r = np.random.default_rng(2)
    subject, attributions = linear(
        FRAME, r.choice(["a", "b", "c"], len(FRAME)), task="multiclass", weights=r.normal(size=(4, 3)) / 10
    )
    table = table_of(build(subject, attributions))
    for _, rows in table.groupby("example"):
        first = rows.iloc[0]
        assert list(dict.fromkeys(rows["output"])) == list(dict.fromkeys([first["y_pred"], first["y_true"]]))


def test_without_labels():
    subject, attributions = linear(FRAME, None, weights=WEIGHTS)
    section = build(subject, attributions)
    assert set(table_of(section)["kind"]) == {"borderline", "prototype"}
    assert [(c.code, c.degrades) for c in section.caveats] == [("no_labels", True)]
    subject, attributions = linear(FRAME, None, weights=WEIGHTS, task="regression")
    assert set(table_of(build(subject, attributions))["kind"]) == {"prototype"}


def test_redacted_label_tells_nothing():
    subject, attributions = binary()
    section = build(subject, attributions, redact=["outcome"])
    assert set(table_of(section)["kind"]) == {"borderline", "prototype"}
    assert set(table_of(section)["y_true"]) == {"(redacted)"}
    assert section.caveats[0].code == "labels_redacted"


def test_perfect_model_has_no_incorrect_example():
    subject, attributions = binary()
    perfect, _ = linear(FRAME, subject.response.label, weights=WEIGHTS)
    section = build(perfect, attributions)
    assert "incorrect" not in set(table_of(section)["kind"])
    assert [c.code for c in section.caveats] == ["no_such_example"]
    assert not section.caveats[0].degrades


@pytest.mark.parametrize("n", [1, 2, 5])
def test_very_few_rows(n):
    subject, attributions = linear(FRAME.head(n), labels()[:n], weights=WEIGHTS)
    table = table_of(build(subject, attributions))
    assert set(table["row_id"]) <= set(subject.row_ids)
    assert "prototype" in set(table["kind"])


def test_no_explained_row():
    subject, attributions = linear(FRAME, labels(), weights=WEIGHTS, rows=np.array([], dtype=int))
    with pytest.raises(NotApplicable, match="no row was explained"):
        build(subject, attributions)


def test_strict_numbers_are_coarse_and_inside_the_bulk():
    subject, attributions = binary()
    table = table_of(build(subject, attributions, privacy="strict"))
    assert set(table["row_id"]) == {""}
    low, high = np.quantile(subject.response.output, [0.05, 0.95])
    assert table["prediction"].between(low - 0.1, high + 0.1).all()
    assert table["prediction"].nunique() <= 45
    raw = set(FRAME["income"].map(str))
    assert not raw & set(table["feature_value"])


def test_long_text_is_cut():
    frame = FRAME.assign(purpose=["x" * 5000 + str(i) for i in range(len(FRAME))])
    subject, attributions = linear(frame, labels(), weights=[0, 0.1, 0, 0.5])
    assert table_of(build(subject, attributions))["feature_value"].str.len().max() == 200


def test_prototypes_cover_clusters():
    r = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10]])
    points = np.concatenate([c + r.normal(size=(50, 2)) for c in centres])
    chosen = k_medoids(points, 3)
    assert sorted(c // 50 for c in chosen) == [0, 1, 2]
    shares, spread = coverage(points, chosen)
    assert shares == pytest.approx([1 / 3] * 3)
    assert spread > 0.7


def test_medoid_and_repeated_points():
    assert medoid(np.array([[0.0], [0.0], [5.0]])) == 0
    assert len(k_medoids(np.zeros((20, 2)), 3)) == 1


def test_a_far_off_row_is_no_prototype():
    points = np.r_[np.random.default_rng(0).normal(size=(200, 3)), [[1e6, 0, 0]]]
    assert 200 not in k_medoids(typical_space(points), 3)


def test_row_keys_depend_on_content_only():
    frame = pd.DataFrame({"a": [1, 2, 1], "b": ["x", "y", "x"], "c": [np.nan, 0.0, np.nan]})
    keys = row_keys(frame)
    assert keys[0] == keys[2] != keys[1]
    other = frame.astype({"a": "float64", "b": "category"})
    assert row_keys(other).tolist() == keys.tolist()
    assert row_keys(frame.astype({"a": "Int64"})).tolist() == keys.tolist()
    assert sorted(content_order(frame, np.array(["p", "q", "r"]))) == [0, 1, 2]


def test_equal_rows_are_ordered_by_their_names():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.integers(0, 6, 60)})
    names = rng.permutation(60)
    expected = np.lexsort((names.astype(str), row_keys(frame)))
    assert np.argsort(content_order(frame, names)).tolist() == expected.tolist()
