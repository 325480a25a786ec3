"""Real subjects of tree models, the interventional game by enumeration, and hand-made trees."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from explain_step import data, models
from explain_step.config import Config
from explain_step.explainers import ensembles, tree_compiled
from explain_step.explainers.ensembles import Ensemble, Tree
from explain_step.explainers.tree import TREE
from explain_step.seeds import Seeds
from explain_step.types import Attributions, Subject


def make_subject(model: Any, X: pd.DataFrame, background: pd.DataFrame, **options: Any) -> Subject:
    """Return the subject of a fitted model, through the package's own wrapping."""
    config = Config.parse(options)
    wrapped = models.wrap(model, frame=X, config=config)
    return data.subject(wrapped, X, config=config, background=background)[0]


def attributions(subject: Subject) -> Attributions:
    """Return the exact attributions of a subject that must be explainable."""
    assert TREE.why_not(subject) is None
    return TREE.explain(subject, config=Config(), seeds=Seeds(0))


def enumerated(
    predict: Callable[[pd.DataFrame], np.ndarray], X: pd.DataFrame, background: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interventional Shapley values (n, d, k) and base values (k,) from all 2^d coalitions."""
    n, m, d = len(X), len(background), X.shape[1]
    both = pd.concat([X, background], ignore_index=True)
    ours, theirs = np.repeat(np.arange(n), m), n + np.tile(np.arange(m), n)
    coalitions = [c for r in range(d + 1) for c in itertools.combinations(range(d), r)]
    mixed = pd.DataFrame(
        {
            name: both[name].take(np.concatenate([ours if i in c else theirs for c in coalitions])).array
            for i, name in enumerate(X.columns)
        }
    )
    answers = predict(mixed).reshape(len(coalitions), n, m, -1).mean(axis=2)
    worth = dict(zip(coalitions, answers, strict=True))
    values = np.zeros((n, d, worth[()].shape[1]))
    for coalition, value in worth.items():
        for i in set(range(d)) - set(coalition):
            size = len(coalition)
            weight = math.factorial(size) * math.factorial(d - size - 1) / math.factorial(d)
            values[:, i] += weight * (worth[tuple(sorted((*coalition, i)))] - value)
    return values, worth[()][0]


def random_tree(
    rng: np.random.Generator, *, columns: int, depth: int, outputs: int = 1, thresholds: np.ndarray
) -> Tree:
    """Return a random tree: repeated columns on a path, equal thresholds and early leaves all happen."""
    left, right, column, threshold, missing, values, cover = [], [], [], [], [], [], []

    def grow(level: int, weight: float) -> int:
        node = len(left)
        stop = level == depth or rng.random() < 0.2
        left.append(-1)
        right.append(-1)
        column.append(-1 if stop else int(rng.integers(columns)))
        threshold.append(float(rng.choice(thresholds)))
        missing.append(bool(rng.integers(2)))
        values.append(rng.normal(size=outputs).round(2))
        cover.append(weight)
        if not stop:
            share = rng.uniform(0.1, 0.9)
            left[node] = grow(level + 1, weight * share)
            right[node] = grow(level + 1, weight * (1 - share))
        return node

    grow(0, 100.0)
    return ensembles.frozen_tree(
        left=left,
        right=right,
        column=column,
        threshold=threshold,
        missing_left=missing,
        values=values,
        cover=cover,
        outputs=tuple(range(outputs)),
    )


def hand_made(trees: list[Tree], *, columns: int, outputs: int = 1) -> Ensemble:
    """Return an ensemble of encoded columns as they are."""
    return Ensemble(
        trees=tuple(trees), offset=np.full(outputs, 0.5), encode=np.asarray, columns=tuple(range(columns))
    )


def predict_frame(ensemble: Ensemble) -> Callable[[pd.DataFrame], np.ndarray]:
    """Return the ensemble as a function of a frame, for `enumerated`."""
    return lambda frame: ensembles.predict(ensemble, np.ascontiguousarray(frame.to_numpy(float).T))


def mixed_frame(n: int = 300, *, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Return rows with numbers, missing values, text and integer categories and booleans, and a target."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(n, 2)).round(2), columns=["a", "b"])
    X["town"] = pd.Categorical(rng.choice(list("pqrst"), n))
    X["zone"] = pd.Categorical(rng.choice([10, 20, 30], n))
    X["flag"] = rng.random(n) > 0.5
    X.loc[::7, "a"] = np.nan
    X.loc[::11, "town"] = np.nan
    y = X.a.fillna(0) + 2 * X.town.isin(["p", "t"]) + (X.zone == 20) - X.b * X.flag
    return X, y


def both_engines() -> Any:
    """Return a fixture with which a module's tests run on both engines; the compiled one is otherwise for larger work."""

    @pytest.fixture(scope="module", autouse=True, params=["numpy", "compiled"])
    def engine(request: pytest.FixtureRequest) -> Iterator[None]:
        before = tree_compiled.SMALL_WORK
        tree_compiled.SMALL_WORK = -1 if request.param == "compiled" else 1 << 60
        yield
        tree_compiled.SMALL_WORK = before

    return engine


def one_thread() -> Any:
    """Return a fixture for tiny models, which train and predict faster on one OpenMP thread."""

    @pytest.fixture(autouse=True)
    def limited() -> Iterator[None]:
        with threadpool_limits(limits=1):
            yield

    return limited
