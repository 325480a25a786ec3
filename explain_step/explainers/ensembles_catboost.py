"""CatBoost models as sums of trees, read from the JSON that ``save_model(format="json")`` writes.

CatBoost compares in single precision: ``value > border`` goes right. Missing values are below all borders, or above them
(``nan_mode="Max"``). Categories are compared by codes (`ensembles_catboost_codes`); those of texts and embeddings are not
read.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from explain_step.errors import NotApplicable
from explain_step.explainers import ensembles, ensembles_catboost_codes
from explain_step.explainers.ensembles import Ensemble, Tree
from explain_step.explainers.ensembles_catboost_codes import Codes
from explain_step.model_boosters import catboost_answer
from explain_step.types import FittedModel, FloatArray

Node = Mapping[str, Any]
CODES = 10_000_000
"""Where the numbers of codes begin, behind those of columns, until both are counted through."""
ABOVE = "AsTrue"
"""How CatBoost's format says that missing values are above all borders."""


def why_not(model: FittedModel) -> str | None:
    """Return why the model is not a sum of readable trees in its output space; None when it is."""
    native = model.native
    if len(native.get_text_feature_indices()) or len(native.get_embedding_feature_indices()):
        return (
            "CatBoost's trees split on codes of texts or embeddings, which the exact explainer does not read"
        )
    if len(native.get_cat_feature_indices()):
        try:
            ensembles_catboost_codes.read(_dump(native))
        except NotApplicable as error:
            return str(error)
    if model.output_space == "probability":
        return ensembles.BOOSTED_PROBABILITY
    loss, answer = catboost_answer(native)
    return ensembles.log_link(loss) if model.output_space == "prediction" and answer is not None else None


def parse(native: Any) -> Ensemble:
    """Return a CatBoost model as a sum of trees.

    Raises
    ------
    NotApplicable
        A tree splits on something else than a number or the category of one column, or CatBoost does not tell.
    """
    dump = _dump(native)
    numbers = dump["features_info"].get("float_features", [])
    scale, bias = dump["scale_and_bias"]
    offset = np.atleast_1d(np.asarray(bias, dtype=np.float64))
    roots: list[Node] = [_unfolded(tree) for tree in dump.get("oblivious_trees", [])] or dump.get("trees", [])
    codes = ensembles_catboost_codes.read(dump)
    trees = [_tree(root, numbers, codes, outputs=len(offset), scale=float(scale)) for root in roots]
    compacted, compared = ensembles.compact(trees)
    plain = tuple(c for c in compared if c < CODES)
    coded = tuple(c - CODES for c in compared if c >= CODES)  # they come last

    def encode(inputs: Any) -> FloatArray:
        found = ensembles.as_float32(ensembles.numeric_columns(inputs, plain))
        return np.concatenate([found, codes.encode(native, inputs, wanted=coded)]) if coded else found

    columns = (*plain, *(codes.codes[c].column for c in coded))
    return Ensemble(trees=compacted, offset=offset, encode=encode, columns=columns)


def _dump(native: Any) -> dict[str, Any]:
    """Return the model in CatBoost's JSON format; versions differ in what they write so."""
    from catboost import CatBoostError

    with tempfile.TemporaryDirectory(prefix="explain_step_") as folder:
        path = Path(folder, "model.json")
        try:
            native.save_model(str(path), format="json")
        except CatBoostError as error:
            msg = f"CatBoost does not write this model as JSON: {error}"
            raise NotApplicable(msg) from error
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _unfolded(tree: Mapping[str, Any]) -> Node:
    """Return a symmetric tree, one split for each level, as nodes; the last split is the highest bit of a leaf's number."""
    weights = tree["leaf_weights"]
    values = np.asarray(tree["leaf_values"], dtype=np.float64).reshape(len(weights), -1)
    level: list[Node] = [
        {"value": value.tolist(), "weight": weight} for value, weight in zip(values, weights, strict=True)
    ]
    for split in tree.get("splits") or []:
        level = [
            {"split": split, "left": left, "right": right}
            for left, right in zip(level[::2], level[1::2], strict=True)
        ]
    return level[0]


def _tree(
    root: Node, numbers: Sequence[Mapping[str, Any]], codes: Codes, *, outputs: int, scale: float
) -> Tree:
    nodes = [root]
    children = []
    for node in nodes:  # which grows
        children.append((-1, -1) if "split" not in node else (len(nodes), len(nodes) + 1))
        nodes += [node["left"], node["right"]] if "split" in node else []
    values = np.zeros((len(nodes), outputs))
    cover = np.zeros(len(nodes))
    column, threshold, missing_left = (
        np.full(len(nodes), -1),
        np.full(len(nodes), np.nan),
        np.zeros(len(nodes), bool),
    )
    for i in range(len(nodes) - 1, -1, -1):  # children before their parents
        node, (left, right) = nodes[i], children[i]
        if left < 0:
            values[i], cover[i] = np.asarray(node["value"]) * scale, node.get("weight", 0)
            continue
        split = node["split"]
        if split["split_type"] == "FloatFeature":
            feature = numbers[split["float_feature_index"]]
            column[i], threshold[i] = feature["flat_feature_index"], split["border"]
            missing_left[i] = feature["nan_value_treatment"] != ABOVE
        else:
            code, threshold[i] = codes.questions[split["split_index"]]
            column[i] = CODES + code
        cover[i] = cover[left] + cover[right]
    return ensembles.frozen_tree(
        left=[left for left, _ in children],
        right=[right for _, right in children],
        column=column,
        threshold=threshold,
        missing_left=missing_left,
        values=values,
        cover=cover,
        outputs=tuple(range(outputs)),
    )
