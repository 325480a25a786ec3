import io

import numpy as np
import pandas as pd
import pytest
from effect_kit import kept_canvases
from PIL import Image

from explain_step.plots import examples as plots
from explain_step.plots import style
from explain_step.types import Artifact

QUANTITY = {
    "outputs": ["yes", "no"], "background": "40 rows", "rows": 100,
    "target": "deny", "output_space": "probability", "exact": True, "method": "linear",
}  # fmt: skip


def artifact(names, shap, *, values=None, error=None, **changes):
    shap = np.asarray(shap, dtype=float)
    table = pd.DataFrame(
        {
            "example": "correct-1",
            "kind": "correct",
            "row_id": "17",
            "y_true": "no",
            "y_pred": "no",
            "prediction": 0.3 + shap.sum(),
            "output": "yes",
            "feature": names,
            "feature_value": values or [f"{i}" for i in range(len(names))],
            "shap": shap,
            "base_value": 0.3,
            "standard_error": np.nan if error is None else error,
            "share": np.nan,
        }
    ).assign(**changes)
    return {"examples": Artifact(name="examples", kind="examples", table=table, meta={"quantity": QUANTITY})}


def ink(figure):
    return np.asarray(Image.open(io.BytesIO(figure.png)).convert("L"))


def edges_are_white(figure):
    picture = ink(figure)
    frame = np.r_[picture[0], picture[-1], picture[:, 0], picture[:, -1]]
    return bool((frame > 250).all())


def test_one_figure_per_example_with_facts_in_words():
    (figure,) = plots.draw(artifact(["age", "income"], [0.2, -0.1]), labels={"age": "Age in years"})
    assert figure.kind == "examples"
    assert figure.slug.startswith("correct-1_yes")
    assert "Age in years = 0: 0.2" in figure.alt
    assert "income = 1: \u22120.1" in figure.alt
    assert "predicted no, truth no (row\u00a017)" in figure.title
    assert "deny" in figure.alt
    assert figure.width <= 1000
    assert edges_are_white(figure)


def test_same_table_same_bytes():
    made = [plots.draw(artifact(["a", "b"], [0.2, -0.1]), labels={})[0].png for _ in range(2)]
    assert made[0] == made[1]


def test_beyond_ten_bars_the_rest_is_one_bar():
    names = [f"f{i}" for i in range(30)]
    fall = plots._waterfall(artifact(names, np.linspace(1, 0.01, 30))["examples"].table, labels={})
    assert len(fall.names) == 10
    assert fall.names[-1] == "21 others"
    assert fall.starts[0] + fall.effects[0] == pytest.approx(fall.prediction)
    assert fall.starts[-1] == pytest.approx(fall.base)


def test_exactly_ten_features_need_no_rest():
    fall = plots._waterfall(artifact([f"f{i}" for i in range(10)], np.ones(10))["examples"].table, labels={})
    assert len(fall.names) == 10
    assert "others" not in fall.names[-1]


HOSTILE = [
    "<script>alert(1)</script>",
    "x" * 300,
    "a\nb",
    "\U0001f600",
    "../../etc",
    "$\\frac{1}{0}$",
    "",
    "%s %d",
]


def test_hostile_names_and_values_are_drawn_inside():
    (figure,) = plots.draw(artifact(HOSTILE, np.linspace(-1, 1, 8), values=HOSTILE[::-1]), labels={})
    assert edges_are_white(figure)
    assert "\n" not in figure.alt


@pytest.mark.parametrize("shap", [[0.0, 0.0], [1e-12, -1e-13], [1e9, -3e8], [5.0, 0.0], [-5.0, -1.0]])
def test_odd_sizes(shap):
    (figure,) = plots.draw(artifact(["a", "b"], shap), labels={})
    assert edges_are_white(figure)
    assert (ink(figure) < 100).any()


def test_standard_errors_are_drawn_and_explained():
    plain = plots.draw(artifact(["a", "b"], [0.2, -0.1]), labels={})[0]
    spread = plots.draw(artifact(["a", "b"], [0.2, -0.1], error=[0.05, 0.01]), labels={})[0]
    assert plain.png != spread.png


def test_strict_and_unlabelled_rows_have_short_titles():
    (figure,) = plots.draw(
        artifact(["a"], [0.2], row_id="", y_true=None, kind="prototype", share=0.4), labels={}
    )
    assert figure.title == "A prototype (nearest to 40% of rows): predicted no"


def test_nothing_to_draw():
    assert plots.draw({}, labels={}) == ()


@pytest.mark.parametrize(
    ("value", "decimals", "text"), [(0.123, 2, "+0.12"), (-3.0, 1, "\u22123.0"), (0.0001, 2, "\u2248 0")]
)
def test_numbers_of_one_figure_share_their_decimals(value, decimals, text):
    assert plots._signed(value, decimals) == text


@pytest.mark.parametrize(
    ("effects", "decimals"),
    [([0.0123, 0.002], 4), ([0.01, 0.03], 2), ([30_123.0, 12.0], -2), ([30_000.0, 400.0], -2), ([0.0], 0)],
)
def test_numbers_have_three_digits_and_no_zeros_that_nobody_knows(effects, decimals):
    assert plots._decimals(np.array(effects)) == decimals


def test_large_effects_are_rounded():
    assert plots._signed(30_123.0, -2) == "+30,100"
    assert plots._signed(12.0, -2) == "\u2248 0"


@pytest.mark.parametrize(
    ("space", "y_pred", "said"),
    [
        ("prediction", "162713", "163,000"),
        ("prediction", "1 to 2", "1 to 2"),
        ("probability", "2008", "2008"),
    ],
)
def test_amounts_are_rounded_and_labels_are_not(space, y_pred, said):
    made = artifact(["a"], [0.2], y_pred=y_pred, y_true=None)["examples"]
    made = Artifact(
        name="examples",
        kind="examples",
        table=made.table,
        meta={"quantity": {**QUANTITY, "output_space": space}},
    )
    (figure,) = plots.draw({"examples": made}, labels={})
    assert figure.title == f"A typical correct prediction: predicted {said} (row\u00a017)"


def test_no_number_is_struck_through_by_the_line_of_its_uncertainty():
    errors = [0.02, 0.03, 0.015, 0.02, 0.0, 0.004]
    made = artifact(list("abcdef"), [0.3, -0.06, 0.03, -0.01, 0.1, 0.002], error=errors)["examples"]
    fall = plots._waterfall(made.table, labels={})
    figure, axes = style.new_figure(style.WIDTH, 3.5)
    plots._bars(axes, fall)
    figure.draw_without_rendering()
    numbers = [text.get_window_extent() for text in axes.texts]
    assert len(numbers) == 6
    whiskers = [line for c in axes.collections if c.get_zorder() == 5 for line in c.get_segments()]
    assert len(whiskers) == 5
    for line in whiskers:
        ends = axes.transData.transform(line)
        low, high = axes.get_window_extent().x0, axes.get_window_extent().x1
        assert low <= ends[0, 0] < ends[1, 0] <= high
        for box in numbers:
            beside = ends[1, 0] <= box.x0 or box.x1 <= ends[0, 0]
            assert beside or not box.y0 < ends[0, 1] < box.y1


def test_no_number_beside_a_bar_touches_the_names():
    names = ["a feature with a long name", "another one that is as long", "education-num", "d", "e"]
    made = artifact(names, [0.0945, 0.0625, -0.1216, -0.0216, -0.0169])["examples"]
    fall = plots._waterfall(made.table, labels={})
    figure, axes = style.new_figure(style.WIDTH, 3.0)
    with style.clean_rc():
        plots._bars(axes, fall)
        plots.style.layout.settle(figure)
        figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    ends = [label.get_window_extent(renderer).x1 for label in axes.get_yticklabels()]
    starts = [text.get_window_extent(renderer).x0 for text in axes.texts]
    assert min(starts) - max(ends) > 4


def test_a_borderline_row_of_a_regression_is_no_close_call():
    row = artifact(["a"], [1.0], kind="borderline")["examples"]
    amounts = QUANTITY | {"output_space": "prediction", "outputs": ["price"]}
    numbers = row.table.assign(y_true="404", y_pred="24100")
    (figure,) = plots.draw(
        {"examples": Artifact(name="examples", kind="examples", table=numbers, meta={"quantity": amounts})},
        labels={},
    )
    assert figure.title.startswith("An error on the edge of being too large: predicted 24,100")
    (figure,) = plots.draw({"examples": row}, labels={})
    assert figure.title.startswith("A close call")


def test_answers_whose_letters_the_font_lacks_stay_apart_in_the_heading():
    row = artifact(["a"], [0.1], y_pred="\u53ef", y_true="\u4e0d\u53ef")
    with kept_canvases() as canvases:
        (figure,) = plots.draw(row, labels={})
    assert "predicted \u53ef, truth \u4e0d\u53ef" in figure.title
    predicted, truth = canvases[0].get_suptitle().split("predicted ")[1].split(", truth ")
    assert predicted.split("#")[1] != truth.split("#")[1][:4]
    assert len(predicted.split("#")[1]) == 4
