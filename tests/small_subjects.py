"""Small subjects around plain functions, for tests, and exact values by brute force."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step.config import Config
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FittedModel, FloatArray, MethodSpec, Response, Subject

CONFIG = Config(budget=600.0)
SEEDS = Seeds(0)
Function = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def frame(values: Any) -> pd.DataFrame:
    """Return a frame with columns x0, x1, …"""
    if isinstance(values, pd.DataFrame):
        return values.reset_index(drop=True)
    array = np.asarray(values)
    return pd.DataFrame(array, columns=[f"x{j}" for j in range(array.shape[1])])


def subject_of(
    function: Function,
    X: Any,
    background: Any = None,
    *,
    outputs: Sequence[str] = ("target",),
    on_frames: bool = False,
    y: Any = None,
    weights: Any = None,
    **model: Any,
) -> Subject:
    """Return a regression subject of ``function`` on arrays (or on frames) of n rows."""
    shown = frame(X)
    reference = shown if background is None else frame(background)

    def respond(rows: pd.DataFrame) -> Response:
        answer = np.asarray(function(rows if on_frames else rows.to_numpy()), dtype=np.float64)
        return Response(output=answer.reshape(len(rows), len(outputs)))

    return subject_from(respond, shown, reference, outputs=outputs, y=y, weights=weights, **model)


def subject_from(
    respond: Callable[[pd.DataFrame], Response],
    X: pd.DataFrame,
    background: pd.DataFrame,
    *,
    outputs: Sequence[str] = ("target",),
    y: Any = None,
    weights: Any = None,
    **model: Any,
) -> Subject:
    """Return a subject of a responding function; ``model`` overrides fields of `FittedModel`."""
    facts: dict[str, Any] = {
        "native": None,
        "family": "blackbox",
        "task": "regression",
        "output_space": "prediction",
        **model,
    }
    fitted = FittedModel(
        respond=respond, output_names=tuple(outputs), feature_names=tuple(map(str, X.columns)), **facts
    )
    return Subject(
        model=fitted,
        X=X,
        frame=X,
        y=None if y is None else np.asarray(y),
        background=background,
        background_name=f"{len(background)} background rows",
        weights=None if weights is None else np.asarray(weights, dtype=np.float64),
        row_ids=np.arange(len(X)).astype(str),
        target_name="target",
        response=respond(X),
    )


def brute_force(function: Function, X: FloatArray, background: FloatArray) -> FloatArray:
    """Return interventional Shapley values (n, d) straight from the definition, for one output."""
    n, d = X.shape

    def value(row: FloatArray, members: tuple[int, ...]) -> float:
        mixed = background.copy()
        mixed[:, list(members)] = row[list(members)]
        return float(np.mean(function(mixed)))

    values = np.zeros((n, d))
    for i in range(n):
        for j in range(d):
            others = [c for c in range(d) if c != j]
            for size in range(d):
                for members in combinations(others, size):
                    gain = value(X[i], (*members, j)) - value(X[i], members)
                    values[i, j] += gain / (d * comb(d - 1, size))
    return values


def attributions_of(subject: Subject, values: FloatArray, base: float | FloatArray = 0.0) -> Attributions:
    """Return given values (n, d) or (n, d, k) as attributions of all rows."""
    cube = np.asarray(values, dtype=np.float64).reshape(len(values), np.shape(values)[1], -1)
    return Attributions(
        values=cube,
        base_values=np.broadcast_to(base, (len(cube), cube.shape[2])),
        feature_names=subject.model.feature_names,
        output_names=subject.model.output_names,
        output_space=subject.model.output_space,
        method=MethodSpec(name="given", version="1"),
        rows=np.arange(len(cube)),
    )
