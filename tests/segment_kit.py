"""Small subjects with a linear model whose attributions are known in closed form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from explain_step.types import Attributions, FittedModel, MethodSpec, Response, Subject


def numbers(frame: pd.DataFrame) -> np.ndarray:
    """Return the frame as numbers: text columns as the length of the text, booleans as 0 and 1."""
    columns = []
    for name in frame.columns:
        series = frame[name]
        if pd.api.types.is_numeric_dtype(series):
            columns.append(series.to_numpy(dtype=np.float64, na_value=0.0))
        else:
            columns.append(np.array([float(len(str(v))) for v in series]))
    values = np.stack(columns, axis=1)
    values[~np.isfinite(values)] = 0.0
    return values


def linear(
    frame: pd.DataFrame,
    y: Any,
    *,
    task: str = "binary",
    weights: Any = None,
    features: list[str] | None = None,
    rows: Any = None,
    sample_weight: Any = None,
    row_ids: Any = None,
) -> tuple[Subject, Attributions]:
    """Return a linear model's subject and exact attributions (regression, binary margin, three classes)."""
    X = frame[features or list(frame.columns)].reset_index(drop=True)
    d = X.shape[1]
    outputs = 3 if task == "multiclass" else 1
    w = np.ones((d, outputs)) if weights is None else np.asarray(weights, dtype=float).reshape(d, outputs)
    classes = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c"), "regression": None}[task]

    def respond(rows: pd.DataFrame) -> Response:
        scores = numbers(rows) @ w
        if task == "regression":
            return Response(output=scores)
        if task == "binary":
            p = 1 / (1 + np.exp(-np.clip(scores[:, 0], -30, 30)))
            probability = np.stack([1 - p, p], axis=1)
        else:
            e = np.exp(scores - scores.max(axis=1, keepdims=True))
            probability = e / e.sum(axis=1, keepdims=True)
        label = np.asarray(classes)[probability.argmax(axis=1)]
        return Response(output=scores, label=label, probability=probability)

    names = {"binary": ("yes",), "multiclass": ("a", "b", "c"), "regression": ("y",)}[task]
    model = FittedModel(
        respond=respond,
        native=None,
        family="blackbox",
        task=task,
        output_space="prediction" if task == "regression" else "margin",
        output_names=names,
        feature_names=tuple(X.columns),
        classes=classes,
        positive=1 if task == "binary" else None,
    )
    subject = Subject(
        model=model,
        X=X,
        frame=frame.reset_index(drop=True),
        y=None if y is None else np.asarray(y),
        background=X,
        background_name="the explained rows",
        weights=None if sample_weight is None else np.asarray(sample_weight, dtype=float),
        row_ids=np.asarray(row_ids if row_ids is not None else np.arange(len(X)).astype(str)),
        target_name="outcome",
        response=respond(X),
    )
    centre = numbers(X).mean(axis=0)
    chosen = np.arange(len(X)) if rows is None else np.asarray(rows)
    values = (numbers(X)[chosen] - centre)[:, :, None] * w[None]
    attributions = Attributions(
        values=values,
        base_values=np.repeat((centre @ w)[None], len(chosen), axis=0),
        feature_names=tuple(X.columns),
        output_names=names,
        output_space=model.output_space,
        method=MethodSpec(name="linear", version="1"),
        rows=chosen,
    )
    return subject, attributions


def shuffled(subject: Subject, attributions: Attributions, order: np.ndarray) -> tuple[Subject, Attributions]:
    """Return the same rows in another order."""
    return subject.take(order), replace(
        attributions,
        values=attributions.values[order],
        base_values=attributions.base_values[order],
        rows=np.arange(len(order)),
    )


def loan_frame(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return a frame with columns of every kind."""
    r = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "age": r.integers(18, 80, n).astype(float),
            "income": r.lognormal(3, 0.5, n),
            "purpose": r.choice(["car", "house", "boat"], n, p=[0.5, 0.4, 0.1]),
            "employed": r.random(n) < 0.7,
            "home owner": r.choice(["yes", "no"], n),
            "when": pd.Timestamp("2019-01-01") + pd.to_timedelta(r.integers(0, 2000, n), unit="D"),
        }
    )
    frame.loc[r.random(n) < 0.1, "age"] = np.nan
    return frame
