"""XGBoost models as sums of trees, read from the documented JSON model format (``Booster.save_raw("json")``).

XGBoost compares in single precision: ``float32(value) < threshold`` goes left. Listed categories go right.
A missing value goes where ``default_left`` says; in a sparse matrix, entries that are not stored are
missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from explain_step.explainers import ensembles
from explain_step.explainers.ensembles import CategorySplit, Ensemble, Tree
from explain_step.types import FittedModel, FloatArray

IDENTITY = frozenset(
    {
        "reg:squarederror",
        "reg:linear",
        "reg:squaredlogerror",
        "reg:pseudohubererror",
        "reg:absoluteerror",
        "reg:quantileerror",
        "binary:logitraw",
        "rank:pairwise",
        "rank:ndcg",
        "rank:map",
    }
)
"""Objectives whose prediction is the sum of the trees."""
_QUANTILES = "reg:quantileerror"
_LOGISTIC = frozenset({"binary:logistic", "reg:logistic"})
_EXPONENTIAL = frozenset({"count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"})


def _booster(native: Any) -> Any:
    return native.get_booster() if hasattr(native, "get_booster") else native


def why_not(model: FittedModel) -> str | None:
    """Return why the model is not a sum of trees in its output space; None when it is."""
    learner = json.loads(_booster(model.native).save_config())["learner"]
    kind, objective = learner["gradient_booster"]["name"], learner["objective"]["name"]
    if kind not in ("gbtree", "dart"):
        return f"XGBoost booster {kind!r} has no trees"
    if model.output_space == "probability":
        return ensembles.BOOSTED_PROBABILITY
    if model.output_space == "prediction" and objective not in IDENTITY:
        return ensembles.log_link(objective)
    targets = int(learner["learner_model_param"].get("num_target", "1"))
    if model.output_space == "prediction" and objective == _QUANTILES and targets > 1 and _sorts_quantiles():
        return "XGBoost puts several predicted quantiles in order, so that none is the sum of its trees alone"
    return None


def _sorts_quantiles() -> bool:
    """Return whether this XGBoost may sort a row's quantiles when it predicts: 3.2 does not, 3.4 does."""
    import xgboost

    return tuple(int(part) for part in xgboost.__version__.split(".")[:2]) > (3, 2)


def parse(native: Any) -> Ensemble:
    """Return the margin of a Booster or of a scikit-learn API model as a sum of trees.

    The scikit-learn API predicts with the best iteration after early stopping, a Booster with all its trees.
    """
    learner = json.loads(bytes(_booster(native).save_raw("json")))["learner"]
    boosted = learner["gradient_booster"]
    model = boosted.get("gbtree", boosted)["model"]
    param = learner["learner_model_param"]
    n_outputs = max(1, int(param["num_class"]), int(param.get("num_target", "1")))
    count = _tree_count(native, model)
    # DART's weights: beside the trees before xgboost 3.3, inside the model since
    drop = boosted.get("weight_drop") or model.get("weight_drop") or [1.0] * count
    trees = [
        _tree(model["trees"][i], int(model["tree_info"][i]), float(drop[i]), n_outputs) for i in range(count)
    ]
    compacted, columns = ensembles.compact(trees)
    base = np.atleast_1d(np.asarray(json.loads(param["base_score"]), dtype=np.float64))
    offset = _link(ensembles.as_float32(base), learner["objective"]["name"])
    encode = _encoder(columns, categories=_categories(model), missing=getattr(native, "missing", np.nan))
    return Ensemble(
        trees=compacted, offset=np.broadcast_to(offset, n_outputs).copy(), encode=encode, columns=columns
    )


def _tree_count(native: Any, model: Mapping[str, Any]) -> int:
    trees = len(model["trees"])
    if not hasattr(native, "get_booster"):
        return trees
    try:
        iterations = int(native.best_iteration) + 1
    except AttributeError:  # fitted without early stopping
        return trees
    starts = model.get("iteration_indptr")
    return trees if starts is None else int(starts[min(iterations, len(starts) - 1)])


def _link(base: FloatArray, objective: str) -> FloatArray:
    """Return the stored base score, which is on the scale of predictions, on the scale of margins."""
    if objective in _LOGISTIC:
        return np.asarray(-np.log(1.0 / base - 1.0))
    return np.asarray(np.log(base)) if objective in _EXPONENTIAL else base


def _tree(raw: Mapping[str, Any], output: int, weight: float, n_outputs: int) -> Tree:
    left = np.asarray(raw["left_children"], dtype=np.int64)
    leaf = left < 0
    condition = ensembles.as_float32(np.asarray(raw["split_conditions"], dtype=np.float64))
    vector = int(raw["tree_param"]["size_leaf_vector"]) > 1
    values = _vector_leaves(raw, leaf, n_outputs) if vector else np.where(leaf, condition, 0.0)[:, None]
    missing = np.asarray(raw["default_left"], dtype=np.bool_)
    return ensembles.frozen_tree(
        left=left,
        right=np.where(leaf, -1, raw["right_children"]),
        column=np.where(leaf, -1, raw["split_indices"]),
        threshold=np.nextafter(condition, -np.inf),  # value < t is value <= the double before t
        missing_left=missing,
        values=values * weight,
        cover=raw.get("sum_hessian", np.full(len(left), np.nan)),  # older vector leaves have none
        outputs=tuple(range(n_outputs)) if vector else (output,),
        categories=_category_splits(raw),
    )


def _vector_leaves(raw: Mapping[str, Any], leaf: Any, n_outputs: int) -> FloatArray:
    """Return leaf vectors: stored apart in newer formats, with every node in older ones."""
    values = np.zeros((len(leaf), n_outputs))
    if "leaf_weights" in raw:
        stored = np.asarray(raw["leaf_weights"], dtype=np.float64).reshape(-1, n_outputs)
        values[leaf] = stored[np.asarray(raw["right_children"])[leaf]]
    else:
        values[leaf] = np.asarray(raw["base_weights"], dtype=np.float64).reshape(-1, n_outputs)[leaf]
    return ensembles.as_float32(values)


def _category_splits(raw: Mapping[str, Any]) -> dict[int, CategorySplit]:
    splits = {}
    parts = zip(raw["categories_nodes"], raw["categories_segments"], raw["categories_sizes"], strict=True)
    for node, start, size in parts:
        listed = np.asarray(raw["categories"][start : start + size], dtype=np.int64)
        goes_left = np.ones(int(listed.max(initial=-1)) + 1, dtype=np.bool_)
        goes_left[listed] = False
        splits[int(node)] = CategorySplit(left=goes_left, other_left=True)
    return splits


def _categories(model: Mapping[str, Any]) -> dict[int, list[Any]]:
    """Return the categories that the model stores (since XGBoost 3.1) by column."""
    stored = {}
    for column, entry in enumerate((model.get("cats") or {}).get("enc", [])):
        values = entry["values"]
        if "offsets" in entry:
            ends = entry["offsets"]
            values = [bytes(v % 256 for v in values[a:b]).decode() for a, b in pairwise(ends)]
        if values:
            stored[column] = list(values)
    return stored


def _encoder(
    columns: Sequence[int], *, categories: Mapping[int, list[Any]], missing: Any
) -> Callable[[Any], FloatArray]:
    absent = np.nan if missing is None else float(missing)

    def encode(inputs: Any) -> FloatArray:
        if isinstance(inputs, pd.DataFrame):
            parts = [_column(inputs.iloc[:, c], categories.get(c)) for c in columns]
            values = np.stack(parts) if parts else np.zeros((0, len(inputs)))
        else:
            values = ensembles.numeric_columns(inputs, tuple(columns), absent=np.nan)
        values = ensembles.as_float32(values)
        return values if np.isnan(absent) else np.where(values == np.float32(absent), np.nan, values)

    return encode


def _column(series: pd.Series[Any], categories: list[Any] | None) -> FloatArray:
    if not isinstance(series.dtype, pd.CategoricalDtype):
        return ensembles.numeric(series, name=str(series.name))
    if categories is not None:
        return ensembles.category_codes(series, categories)
    codes = series.cat.codes.to_numpy(dtype=np.float64)
    return np.where(codes < 0, np.nan, codes)
