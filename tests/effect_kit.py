"""Subjects with known functions and closed-form Shapley values, for tests of importance and effect curves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from explain_step.plots import style
from explain_step.types import Attributions, FittedModel, MethodSpec, Response, Subject

Function = Callable[[pd.DataFrame], Any]


def model_of(
    function: Function, X: pd.DataFrame, *, outputs: tuple[str, ...] = ("y",), **more: Any
) -> FittedModel:
    """A model whose output is ``function(frame)``: shape (n,) or (n, outputs)."""

    def respond(frame: pd.DataFrame) -> Response:
        return Response(output=np.asarray(function(frame), dtype=np.float64).reshape(len(frame), -1))

    settings: dict[str, Any] = {
        "task": "regression",
        "output_space": "prediction",
        "respond": respond,
        **more,
    }
    return FittedModel(
        native=None, family="blackbox", output_names=outputs, feature_names=tuple(X.columns), **settings
    )


def subject_of(
    model: FittedModel, X: pd.DataFrame, *, background: pd.DataFrame | None = None, **more: Any
) -> Subject:
    """The rows of ``X`` with the background (default: the rows themselves)."""
    settings: dict[str, Any] = {"y": None, "weights": None, "target_name": "y", **more}
    return Subject(
        model=model,
        X=X,
        frame=X,
        background=X if background is None else background,
        background_name=f"{len(X if background is None else background)} background rows",
        row_ids=np.array([str(i) for i in range(len(X))]),
        response=model.respond(X),
        **settings,
    )


def attributions_of(subject: Subject, values: np.ndarray, *, exact: bool = True, **more: Any) -> Attributions:
    """Attributions with given values (n, d) or (n, d, k); the base values follow from efficiency."""
    full = values.reshape(len(subject.X), len(subject.X.columns), -1)
    return Attributions(
        values=full,
        base_values=subject.response.output - full.sum(axis=1),
        feature_names=subject.model.feature_names,
        output_names=subject.model.output_names,
        output_space=subject.model.output_space,
        method=MethodSpec(name="closed_form", version="1", exact=exact),
        rows=np.arange(len(subject.X)),
        **more,
    )


def additive(parts: Mapping[str, Callable[[pd.Series], Any]]) -> Function:
    """The function that adds one term per column."""

    def total(frame: pd.DataFrame) -> np.ndarray:
        terms = [np.asarray(part(frame[name]), dtype=np.float64) for name, part in parts.items()]
        return np.sum([np.zeros(len(frame)), *terms], axis=0)

    return total


def additive_case(
    X: pd.DataFrame, parts: Mapping[str, Callable[[pd.Series], Any]], **more: Any
) -> tuple[Subject, Attributions]:
    """An additive model: a column's Shapley value is its term minus the term's mean over the background."""
    subject = subject_of(model_of(additive(parts), X), X, **more)
    values = np.zeros(X.shape)
    for j, name in enumerate(X.columns):
        if name in parts:
            term = np.asarray(parts[name](X[name]), dtype=np.float64)
            reference = np.asarray(parts[name](subject.background[name]), dtype=np.float64)
            values[:, j] = term - reference.mean()
    return subject, attributions_of(subject, values)


def normal_frame(n: int, d: int, *, seed: int = 0) -> pd.DataFrame:
    """Independent standard normal columns ``x0``, ``x1``, ..."""
    values = np.random.default_rng(seed).normal(size=(n, d))
    return pd.DataFrame(values, columns=[f"x{j}" for j in range(d)])


@contextmanager
def kept_canvases() -> Iterator[list[Any]]:
    """Keep the matplotlib figures that are finished inside the block, to look at their parts."""
    kept: list[Any] = []
    finish = style.finish

    def keep(figure: Any, **more: Any) -> Any:
        kept.append(figure)
        return finish(figure, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "finish", keep)
        yield kept


def layout_faults(figure: Any) -> list[str]:
    """Return texts of a drawn figure that are cut at its edge, and pairs of axis labels that overlap."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    edge = figure.bbox
    faults = []
    for text in figure.findobj(Text):
        if not text.get_visible() or not text.get_text().strip():
            continue
        box = text.get_window_extent(renderer)
        if box.width < 1:
            continue
        inside = edge.x0 - 2 <= box.x0 and box.x1 <= edge.x1 + 2
        if not (inside and edge.y0 - 2 <= box.y0 and box.y1 <= edge.y1 + 2):
            faults.append(f"cut: {text.get_text()!r}")
    for axes in figure.axes:
        faults += _overlaps(axes, renderer)
    return faults


def _overlaps(axes: Any, renderer: Any) -> list[str]:
    found = []
    for axis in (axes.xaxis, axes.yaxis):
        shown = [text for text in axis.get_ticklabels() if text.get_text() and text.get_rotation() == 0]
        boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in shown]
        for (a, first), (b, second) in pairwise(boxes):
            if first.overlaps(second) and min(first.width, second.width) > 1:
                found.append(f"overlap: {a!r} and {b!r}")
    return found
