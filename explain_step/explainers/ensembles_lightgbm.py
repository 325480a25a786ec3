"""LightGBM models as sums of trees, read from the public ``Booster.dump_model()``.

LightGBM compares in double precision: ``value <= threshold`` goes left. Listed categories go left, all
others and missing values right. Missing values of numeric splits follow the split's ``missing_type``:
``NaN`` takes the default side, ``None`` counts as 0, ``Zero`` sends missing values and zeros to the default
side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from explain_step.errors import NotApplicable
from explain_step.explainers import ensembles
from explain_step.explainers.ensembles import CategorySplit, Ensemble, Tree
from explain_step.types import FittedModel, FloatArray, OutputSpace

IDENTITY = frozenset(
    {
        "regression",
        "regression_l1",
        "huber",
        "fair",
        "quantile",
        "mape",
        "lambdarank",
        "rank_xendcg",
        "custom",
    }
)
"""Objectives whose prediction is the sum of the trees."""
_DUMPED_INFINITY = 1e300
_ZERO = 1e-35
"""LightGBM's own bound under which a value counts as zero (``kZeroThreshold``, a float32)."""


def _booster(native: Any) -> Any:
    return getattr(native, "booster_", native)


def why_not(model: FittedModel) -> str | None:
    """Return why the model is not a sum of trees in its output space; None when it is."""
    booster = _booster(model.native)
    head = booster.dump_model(num_iteration=1)
    objective = str(head.get("objective", "custom"))
    if any("leaf_coeff" in node for tree in head["tree_info"] for node in _nodes(tree["tree_structure"])):
        return (
            "LightGBM linear trees have linear functions in their leaves, which the exact tables do not hold"
        )
    if model.output_space == "probability":
        return ensembles.BOOSTED_PROBABILITY
    name, *options = objective.split(" ")
    plain = name in IDENTITY and "sqrt" not in options
    if model.output_space == "prediction" and not plain:
        return ensembles.log_link(objective)
    return None


def parse(native: Any, *, space: OutputSpace) -> Ensemble:
    """Return a Booster or a scikit-learn API model as a sum of trees.

    Random-forest boosting averages its trees when it predicts, but sums them in its raw score
    (``raw_score=True``).

    Both predict with the best iteration after early stopping, and so does ``dump_model``.

    Raises
    ------
    NotApplicable
        Zeros count as missing in one split of a column and as numbers in another.
    """
    dump = _booster(native).dump_model()
    per_iteration = int(dump["num_tree_per_iteration"])
    infos = dump["tree_info"]
    scale = per_iteration / max(1, len(infos)) if dump["average_output"] and space != "margin" else 1.0
    trees = [_tree(info, i % per_iteration, scale) for i, info in enumerate(infos)]
    compacted, columns = ensembles.compact(trees)
    encode = _encoder(
        columns,
        categories=dump.get("pandas_categorical") or [],
        zeros=_zero_is_missing(infos),
    )
    return Ensemble(trees=compacted, offset=np.zeros(per_iteration), encode=encode, columns=columns)


def _nodes(root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the nodes of a dumped tree, parents first."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if "split_feature" in node:
            stack += [node["right_child"], node["left_child"]]


def _tree(info: Mapping[str, Any], output: int, scale: float) -> Tree:
    nodes = list(_nodes(info["tree_structure"]))
    place = {id(node): i for i, node in enumerate(nodes)}
    rows = [_row(node, place) for node in nodes]
    fields = ("left", "right", "column", "threshold", "missing_left", "value", "cover")
    table = {name: [row[name] for row in rows] for name in fields}
    return ensembles.frozen_tree(
        values=np.asarray(table.pop("value"), dtype=np.float64)[:, None] * scale,
        outputs=(output,),
        categories={i: _category_split(n) for i, n in enumerate(nodes) if n.get("decision_type") == "=="},
        **table,
    )


def _row(node: Mapping[str, Any], place: Mapping[int, int]) -> dict[str, Any]:
    if "split_feature" not in node:
        count = node.get("leaf_count", 0)
        leaf = {"left": -1, "right": -1, "column": -1, "threshold": np.nan, "missing_left": False}
        return {**leaf, "value": node["leaf_value"], "cover": count}
    numeric = node["decision_type"] == "<="
    threshold = _threshold(float(node["threshold"])) if numeric else np.nan
    if not numeric:
        missing_left = False
    elif node["missing_type"] == "None":
        missing_left = threshold >= 0.0
    else:
        missing_left = bool(node["default_left"])
    return {
        "left": place[id(node["left_child"])],
        "right": place[id(node["right_child"])],
        "column": node["split_feature"],
        "threshold": threshold,
        "missing_left": missing_left,
        "value": 0.0,
        "cover": node["internal_count"],
    }


def _threshold(dumped: float) -> float:
    """Return a threshold; the dump has 1e300 for all that is larger, such as the largest double beside infinities."""
    return dumped if abs(dumped) < _DUMPED_INFINITY else float(np.copysign(np.finfo(np.float64).max, dumped))


def _category_split(node: Mapping[str, Any]) -> CategorySplit:
    listed = np.asarray([int(c) for c in str(node["threshold"]).split("||")], dtype=np.int64)
    goes_left = np.zeros(int(listed.max()) + 1, dtype=np.bool_)
    goes_left[listed] = True
    return CategorySplit(left=goes_left, other_left=False)


def _zero_is_missing(infos: Sequence[Mapping[str, Any]]) -> frozenset[int]:
    """Return the columns whose zeros are missing values (``zero_as_missing``)."""
    kinds: dict[int, set[bool]] = {}
    for info in infos:
        for node in _nodes(info["tree_structure"]):
            if node.get("decision_type") == "<=":
                kinds.setdefault(node["split_feature"], set()).add(node["missing_type"] == "Zero")
    if any(len(found) > 1 for found in kinds.values()):
        msg = "zeros count as missing in one LightGBM split of a column and as numbers in another"
        raise NotApplicable(msg)
    return frozenset(column for column, found in kinds.items() if found == {True})


def _encoder(
    columns: Sequence[int], *, categories: Sequence[list[Any]], zeros: frozenset[int]
) -> Callable[[Any], FloatArray]:
    def encode(inputs: Any) -> FloatArray:
        if isinstance(inputs, pd.DataFrame):
            values = _frame(inputs, columns, categories=categories)
        else:
            values = ensembles.numeric_columns(inputs, tuple(columns))
        for row, column in enumerate(columns):
            if column in zeros:
                values[row, np.abs(values[row]) <= np.float32(_ZERO)] = np.nan
        return values

    return encode


def _frame(frame: pd.DataFrame, columns: Sequence[int], *, categories: Sequence[list[Any]]) -> FloatArray:
    """Encode a frame; the model lists the categories of its category columns in the order of the columns."""
    categorical = [i for i, t in enumerate(frame.dtypes) if isinstance(t, pd.CategoricalDtype)]
    if len(categorical) != len(categories):
        msg = (
            f"the LightGBM model was trained on {len(categories)} category columns, X has {len(categorical)}"
        )
        raise NotApplicable(msg)
    known = dict(zip(categorical, categories, strict=True))
    parts = [
        ensembles.category_codes(frame.iloc[:, c], known[c])
        if c in known
        else ensembles.numeric(frame.iloc[:, c], name=str(frame.columns[c]))
        for c in columns
    ]
    return np.stack(parts) if parts else np.zeros((0, len(frame)))
