"""Rows with one column's value taken from elsewhere: what partial dependence, local effects and shuffling ask about.

Trees answer from `tree_masks`, without a prediction.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from explain_step.explainers import ensembles, tree, tree_codes, tree_compiled, tree_masks
from explain_step.explainers.ensembles import Ensemble
from explain_step.types import FittedModel, FloatArray, IntArray, Response

logger = logging.getLogger("explain_step.explainers")
NEAR = 1e-9
"""Classes whose probabilities are closer are tied but for rounding: which one wins is for the model itself to say."""

GRAIN_BITS = 44
"""Binary digits that are kept of a sum, counted from the largest that the trees can have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lending:
    """Rows of which each is lent another value of one column.

    Attributes
    ----------
    base : DataFrame of n rows
    feature : str
    values : array of v values
        In the column's dtype.
    row, value : ndarray of int of shape (queries,)
        Which row is lent which value.
    """

    base: pd.DataFrame
    feature: str
    values: Any
    row: IntArray
    value: IntArray

    def frame(self, part: slice | IntArray = slice(None)) -> pd.DataFrame:
        """Return the rows with what they are lent."""
        rows = self.base.iloc[self.row[part]].reset_index(drop=True)
        return edited(rows, {self.feature: self.values.take(self.value[part])})


def edited(base: pd.DataFrame, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return a copy of ``base`` with whole columns replaced (the arrays keep their own dtype)."""
    frame = base.copy(deep=False)
    for name, values in columns.items():
        # the dtype is stated, because pandas would read an object array of text as its string type
        plain = type(values) is pd.arrays.NumpyExtensionArray  # nullable and text dtypes stay as they are
        dtype = values.dtype.numpy_dtype if plain else values.dtype
        frame[name] = pd.Series(values, index=frame.index, dtype=dtype)
    return frame


def from_trees(model: FittedModel, lendings: Sequence[Lending]) -> list[Response] | None:
    """Return what the model's trees answer to each lending; None where only the model itself can be asked.

    They are what was read, not what the model says: compare some of them. Lendings with the same ``base`` are done
    together.
    """
    if model.family != "tree" or not lendings:
        return None
    try:
        ensemble, linked = ensembles.scores(model)
        if not tree_compiled.worthwhile(ensemble, rows=sum(len(one.row) for one in lendings)):
            return None
        found = _summed(model, ensemble, lendings)
    except Exception as error:  # noqa: BLE001 - what libraries raise on a lent value is for the model to say: it is asked
        logger.debug("explain_step: the trees were not asked: %s", type(error).__name__)
        return None
    return [_response(model, raw, linked=linked) for raw in found]


def _summed(model: FittedModel, ensemble: Ensemble, lendings: Sequence[Lending]) -> list[FloatArray]:
    """Return the trees' sums, offset included, to a number of digits that their rounding leaves alone.

    A forest's probability of 0 or 1 is then just that: what is next to it by rounding would be no tie of it.
    """
    used, places = np.unique(tree.raw_sources(model, ensemble), return_inverse=True)
    forest = tree_masks.blocks(ensemble, places=places)
    grain = _grain(ensemble)
    out: list[FloatArray] = [np.zeros(0)] * len(lendings)
    for base in {id(one.base): one.base for one in lendings}.values():
        mine = [i for i, one in enumerate(lendings) if one.base is base]
        rows = tree_codes.encode(forest.flat, ensemble.encode(tree.inputs(model, base)))
        lent = tree_codes.encode(
            forest.flat, ensemble.encode(tree.inputs(model, _side_by_side(base, [lendings[i] for i in mine])))
        )
        place = [_place(model, used, lendings[i].feature) for i in mine]
        queries = tree_masks.Queries(
            row=np.concatenate([lendings[i].row for i in mine]),
            column=np.repeat(place, [len(lendings[i].row) for i in mine]),
            value=np.concatenate([lendings[i].value for i in mine]),
        )
        total = tree_masks.exchanged(forest, rows, lent, queries, columns=len(used)) + ensemble.offset
        total = np.round(total / grain) * grain
        ends = np.cumsum([len(lendings[i].row) for i in mine])[:-1]
        for i, part in zip(mine, np.split(total, ends), strict=True):
            out[i] = part
    return out


def _grain(ensemble: Ensemble) -> float:
    """Return a power of two below what the sums are precise to, and far above their rounding."""
    largest = sum(np.abs(one.values).max(initial=0.0) for one in ensemble.trees)
    size = float(largest + np.abs(ensemble.offset).max(initial=0.0))
    return float(2.0 ** (np.ceil(np.log2(size)) - GRAIN_BITS)) if size > 0 else 1.0


def _place(model: FittedModel, used: IntArray, feature: str) -> int:
    """Return the position of a raw column among those used; -1 for one that no tree looks at."""
    at = int(np.searchsorted(used, model.feature_names.index(feature)))
    return at if at < len(used) and model.feature_names[used[at]] == feature else -1


def _side_by_side(base: pd.DataFrame, lendings: Sequence[Lending]) -> pd.DataFrame:
    """Return rows of which the i-th holds the i-th value of every lending; the last one is repeated."""
    most = max(len(one.values) for one in lendings)
    frame = base.iloc[np.zeros(most, dtype=np.int64)].reset_index(drop=True)
    for one in lendings:
        lent = one.values.take(np.minimum(np.arange(most), len(one.values) - 1))
        frame = edited(frame, {one.feature: lent})
    return frame


def _response(model: FittedModel, raw: FloatArray, *, linked: bool) -> Response:
    """Return what a metric or a curve reads, from the trees' sums."""
    if model.task == "regression":
        return Response(output=raw)
    classes = np.asarray(model.classes)
    score = raw if model.output_space == "probability" and not linked else probability(raw)
    if score.shape[1] == 1:
        other = 1.0 - score
        score = np.hstack([score, other] if model.positive == 0 else [other, score])
    output = raw
    if linked:
        output = score if model.positive is None else score[:, [model.positive]]
    first, second = np.argmax(score, axis=1), np.sort(score, axis=1)[:, -2]
    sure = (score.max(axis=1) - second > NEAR).all()  # else rounding decides, the model's own
    return Response(output=output, probability=score, label=classes[first] if sure else None)


def probability(raw: FloatArray) -> FloatArray:
    """Return the logistic function of one score, or the softmax of several."""
    if raw.shape[1] == 1:
        with np.errstate(over="ignore"):
            return np.asarray(1.0 / (1.0 + np.exp(-raw)))
    shifted = np.exp(raw - raw.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
