import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain_step.artifacts import segment_suppression
from explain_step.artifacts.segment_rules import partition
from explain_step.artifacts.segment_suppression import complete, withheld
from explain_step.config import Config

K = 20
CONFIG = Config(min_segment=K)


def cut(frame, *declarations):
    return [partition(d, frame, config=CONFIG, origin="declared") for d in declarations]


def frame_of(counts, name="a"):
    return pd.DataFrame({name: np.repeat([f"l{i}" for i in range(len(counts))], counts)})


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 80), min_size=2, max_size=8))
def test_one_partition_cannot_be_undone_by_subtraction(counts):
    (gone,) = withheld(cut(frame_of(counts), "a"), smallest=K)
    sizes = np.array(counts)
    assert (sizes[~gone] >= K).all()
    hidden = sizes[gone]
    assert len(hidden) != 1
    # the sum of the withheld is known, total minus the published: not small, unless all is withheld
    assert len(hidden) == 0 or hidden.sum() >= K or gone.all()
    assert complete(sizes, smallest=K).tolist() == gone.tolist()


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_rows_counted_in_parts_withhold_the_same(monkeypatch, at_once):
    r = np.random.default_rng(3)
    for size in (60, 300):
        frame = pd.DataFrame({c: r.choice(list("uvw"), size, p=[0.7, 0.22, 0.08]) for c in "abc"})
        parts = cut(frame, "a", "b", ("a", "b"), "c == 'u'")
        rows = r.choice(size, size // 2, replace=False)
        whole = [withheld(parts, smallest=K), withheld(parts, smallest=K, rows=rows)]
        with monkeypatch.context() as patch:
            patch.setattr(segment_suppression, "AT_ONCE", at_once)
            again = [withheld(parts, smallest=K), withheld(parts, smallest=K, rows=rows)]
        assert [[g.tolist() for g in gone] for gone in whole] == [
            [g.tolist() for g in gone] for gone in again
        ]
        assert any(g.any() for g in whole[1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=6, max_size=6).filter(lambda c: sum(c) > 0))
def test_cross_cells_cannot_be_solved_from_margins(counts):
    pairs = [(f"x{i}", f"y{j}") for i in range(2) for j in range(3)]
    cells = [pair for pair, n in zip(pairs, counts, strict=True) for _ in range(n)]
    frame = pd.DataFrame(cells, columns=["x", "y"])
    parts = cut(frame, "x", "y", ("x", "y"))
    gone = withheld(parts, smallest=K)
    inner = parts[2]
    known = [np.ones(len(inner.levels))]
    owner = np.array([level.split(" \u00d7 ") for level in inner.levels])
    for axis, p, hidden in ((0, parts[0], gone[0]), (1, parts[1], gone[1])):
        known += [
            (owner[:, axis] == level).astype(float)
            for level, h in zip(p.levels, hidden, strict=True)
            if not h
        ]
    known += [np.eye(len(inner.levels))[i] for i in range(len(inner.levels)) if not gone[2][i]]
    matrix = np.stack(known)
    rank = np.linalg.matrix_rank(matrix)
    sizes = inner.counts()
    for i in np.flatnonzero(sizes < K):
        assert gone[2][i]
        if sizes.sum() >= K:
            solved = np.linalg.matrix_rank(np.vstack([matrix, np.eye(len(sizes))[i]])) == rank
            assert not solved, (counts, inner.levels[i])


def test_small_complement_is_withheld_too():
    frame = pd.DataFrame({"v": np.arange(100.0)})
    gone = withheld(cut(frame, "v < 95", "v < 40"), smallest=K)
    assert gone[0].all()
    assert not gone[1].any()


def test_nested_segments_that_differ_by_a_few_rows():
    frame = pd.DataFrame({"v": np.arange(200.0)})
    gone = withheld(cut(frame, "v < 100", "v < 105"), smallest=K)
    shown = sum(int((~g).sum()) for g in gone)
    assert shown == 2  # one of the two cuts, not both


def test_a_few_rows_between_two_segments_are_hidden_also_where_another_one_cuts_them():
    # 3 rows between the cuts; no combination of counts tells which of them is "u"
    frame = pd.DataFrame({"v": np.arange(200.0), "w": ["u", "x"] * 100})
    gone = withheld(cut(frame, "v < 100", "v < 103", "w == 'u'"), smallest=K)
    assert [not g.any() for g in gone].count(True) == 2
    assert not gone[2].any()


@pytest.mark.parametrize("at_once", [10, 1000])
def test_half_a_sum_of_unions_is_hidden_wherever_its_rows_lie(monkeypatch, at_once):
    # c = (a or c) + (b or c) - (a or b), halved: none lies inside another
    monkeypatch.setattr(segment_suppression, "AT_ONCE", at_once)
    frame = pd.DataFrame({"g": np.repeat(list("cabd"), [5, 60, 60, 60])})
    gone = withheld(cut(frame, "g in ['a', 'c']", "g in ['b', 'c']", "g in ['a', 'b']"), smallest=K)
    assert [g.all() for g in gone].count(True) == 1


def test_three_overlapping_sums():
    # a + b + c published as unions, c small: (a or c) minus a gives c
    frame = pd.DataFrame({"g": ["a"] * 60 + ["b"] * 60 + ["c"] * 5})
    gone = withheld(cut(frame, "g == 'a'", "g in ['a', 'c']"), smallest=K)
    assert gone[0].all() or gone[1].all()


def test_empty_levels_are_marked_and_nothing_else():
    frame = pd.DataFrame({"v": np.arange(100.0)})
    (gone,) = withheld(cut(frame, "v > 1000"), smallest=K)
    assert gone.tolist() == [True, False]


def test_explained_rows_are_counted_apart():
    parts = cut(frame_of([60, 60]), "a")
    assert not withheld(parts, smallest=K)[0].any()
    assert withheld(parts, smallest=K, rows=np.r_[0:5, 60:120])[0].all()


def test_nothing_to_do():
    assert withheld([], smallest=K) == ()


@pytest.mark.parametrize("counts", [[5, 30, 90], [19, 1, 500], [20, 20], [19, 19, 19]])
def test_known_cases(counts):
    expected = {
        (5, 30, 90): [True, True, False],
        (19, 1, 500): [True, True, False],
        (20, 20): [False, False],
        (19, 19, 19): [True, True, True],
    }[tuple(counts)]
    assert complete(np.array(counts), smallest=K).tolist() == expected
