from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_kit import linear

from explain_step import privacy
from explain_step.artifacts import examples, segments
from explain_step.config import Config
from explain_step.plots import examples as example_plots
from explain_step.plots import segments as segment_plots
from explain_step.seeds import Seeds

STRICT = Config(privacy="strict")
CANARY_LEVEL = "CANARY-7f3a"
CANARY_NUMBER = 987654.321
CANARY_ID = "person-4711-canary"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"), (3.0, "3"), (0.221000003814697, "0.221"), (float(np.float32(3.9)), "3.9"), (True, "True"),
        (np.nan, "(missing)"), (None, "(missing)"), (pd.NaT, "(missing)"),
        (pd.Timestamp("2024-03-01"), "2024-03-01"),
        (1e20, "1e+20"), (-0.0000012, "-1.2e-06"),
        (np.inf, "inf"), (987654.321, "987654.3"),
    ],
)  # fmt: skip
def test_render(value, text):
    assert privacy.render(value) == text


def test_levels_that_read_alike_stay_apart():
    names = privacy.level_names([1000000.1, 1000000.12, 1000000.1])
    assert names[0] == names[2] != names[1]


def test_unhashable_cells_are_named_not_refused():
    assert privacy.level_names(pd.Series([[1], [1], [2]])).tolist() == ["[1]", "[1]", "[2]"]


def test_publishable_levels_hides_rare_ones_only_under_strict():
    values = ["a"] * 30 + ["b"] * 25 + [CANARY_LEVEL]
    assert privacy.publishable_levels(values, config=Config()) == ["a", "b", CANARY_LEVEL]
    assert privacy.publishable_levels(values, config=STRICT) == ["a", "b"]
    assert set(privacy.pooled_levels(values, config=STRICT)) == {"a", "b", privacy.OTHER}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=20, max_size=200),
    st.integers(1, 12),
)
def test_strict_grid_stays_inside_and_off_single_values(values, points):
    grid = privacy.numeric_grid(values, config=STRICT, points=points)
    assert len(grid) <= points
    assert (np.diff(grid) > 0).all()
    distinct, counts = np.unique(values, return_counts=True)
    common = set(distinct[counts >= STRICT.min_segment])
    step = privacy.rounding_step(values)
    for point in grid:
        assert point in common or step == 0 or abs(point / step - round(point / step)) < 1e-6
    if step > 0 and len(grid) and not common:
        assert grid[0] >= np.min(values) - step
        assert grid[-1] <= np.max(values) + step


def test_strict_grid_of_few_values_is_empty():
    assert privacy.numeric_grid([1.0, 2.0, 3.0], config=STRICT, points=5).size == 0


def test_standard_grid_spans_the_data():
    grid = privacy.numeric_grid(np.arange(100.0), config=Config(), points=11)
    assert grid[0] == 0
    assert grid[-1] == 99


def test_band_never_names_an_extreme_or_a_rare_level():
    column = [*np.linspace(0, 1, 100), CANARY_NUMBER]
    assert "9876" not in privacy.band(CANARY_NUMBER, column, config=STRICT)
    assert privacy.band(CANARY_LEVEL, ["a"] * 50 + [CANARY_LEVEL], config=STRICT) == privacy.OTHER
    dates = pd.Series(pd.to_datetime(["2020-05-04"] * 30 + ["1901-02-03"]))
    assert "1901" not in privacy.band(dates.iloc[-1], dates, config=STRICT)
    assert privacy.band(None, pd.Series([None, *["a"] * 50]), config=STRICT) == privacy.NOT_SHOWN


def canary_frame(n: int = 300) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    r = np.random.default_rng(3)
    frame = pd.DataFrame(
        {
            "amount": r.normal(50, 10, n),
            "score": r.normal(0, 1, n),
            "town": r.choice(["north", "south"], n).astype(object),
            "secret": r.choice(["hidden-one", "hidden-two"], n).astype(object),
        }
    )
    frame.loc[7, "amount"] = CANARY_NUMBER
    frame.loc[8, "amount"] = -CANARY_NUMBER
    frame.loc[7, "town"] = CANARY_LEVEL
    ids = np.array([f"person-{i}" for i in range(n)], dtype=object)
    ids[7] = CANARY_ID
    return frame, ids, r


def everything_written(subject, attributions, config, tmp_path) -> bytes:
    found = b""
    artifacts = {}
    for module in (segments, examples):
        section = module.build(subject, attributions, config=config, seeds=Seeds(0))
        for artifact in section.artifacts:
            artifacts[artifact.name] = artifact
            path = tmp_path / f"{artifact.name}.parquet"
            artifact.table.to_parquet(path, compression=None)
            found += (
                path.read_bytes() + artifact.table.to_csv(index=False).encode() + repr(artifact.meta).encode()
            )
        found += repr(section.caveats).encode()
    # drawing is slow: of the waterfalls, those of the most exposed rows
    shown = artifacts["examples"].table
    exposed = shown["example"].isin(["largest_error-1", "prototype-1"])
    artifacts["examples"] = replace(artifacts["examples"], table=shown[exposed])
    for module in (segment_plots, example_plots):
        for figure in module.draw(artifacts, labels={}):
            found += (figure.alt + figure.title + figure.slug).encode() + figure.png
    return found


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_strict_writes_no_canary_anywhere(task, tmp_path):
    frame, ids, r = canary_frame()
    y = numbers_y = frame["amount"].to_numpy() * 1.0
    if task == "binary":
        y = np.where(numbers_y + r.normal(0, 5, len(frame)) > 50, "yes", "no")
    subject, attributions = linear(
        frame, y, task=task, features=["amount", "score", "town"], weights=[1.0, 0.5, 0.1], row_ids=ids
    )
    config = Config.parse(
        {
            "privacy": "strict",
            "redact": ["secret"],
            "segments": ["town", "amount", "secret", ["town", "amount"]],
        }
    )
    written = everything_written(subject, attributions, config, tmp_path)
    for canary in (b"CANARY", b"987654.", b"987,65", b"canary", b"4711", b"hidden-one", b"hidden-two"):
        assert canary not in written
    for number in (CANARY_NUMBER, -CANARY_NUMBER):
        assert np.float64(number).tobytes() not in written


def test_redacted_column_is_written_nowhere_in_standard_mode(tmp_path):
    frame, ids, _ = canary_frame()
    frame["secret"] = frame["secret"].where(frame.index != 7, CANARY_LEVEL + "-secret")
    y = np.where(frame["score"] > 0, "yes", "no")
    subject, attributions = linear(frame, y, features=["score", "secret"], row_ids=ids)
    for declared in ([], ["secret", "score"]):
        config = Config.parse({"redact": ["secret"], "segments": declared})
        written = everything_written(subject, attributions, config, tmp_path)
        assert b"hidden-one" not in written
        assert b"-secret" not in written
        assert b"(redacted)" in written


def test_standard_mode_shows_rows(tmp_path):
    frame, ids, _ = canary_frame()
    y = np.where(frame["score"] > 0, "yes", "no")
    y[7] = "no"  # the model is certain of yes
    subject, attributions = linear(
        frame, y, features=["amount", "score", "town"], weights=[1e-3, 1, 0], row_ids=ids
    )
    written = everything_written(subject, attributions, Config(), tmp_path)
    assert CANARY_ID.encode() in written  # the row with the extreme amount is among the largest errors
