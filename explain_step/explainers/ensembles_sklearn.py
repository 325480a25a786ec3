"""scikit-learn's trees, forests and gradient boosting as sums of trees.

Trees and forests compare ``float32(value) <= threshold``; a missing value goes where ``missing_go_to_left``
says. Histogram gradient boosting compares in double precision and has no public view of its trees:
`_predictors` (node tables), `_baseline_prediction`, `_bin_mapper` (known categories) and `_preprocessor`
(category codes, category columns first) are private, which is why every parse is checked against
``predict`` before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from explain_step.explainers import ensembles
from explain_step.explainers.ensembles import BoolArray, CategorySplit, Ensemble, Tree
from explain_step.types import FittedModel, FloatArray

FORESTS = frozenset({"BaseForest"})
SINGLE = frozenset({"BaseDecisionTree"})
BOOSTED = frozenset({"BaseGradientBoosting"})
HISTOGRAM = frozenset({"BaseHistGradientBoosting"})
_LOG_LINK = frozenset({"poisson", "gamma"})


def why_not(model: FittedModel, *, names: frozenset[str]) -> str | None:
    """Return why the model is not a sum of trees in its output space; None when it is.

    Parameters
    ----------
    names : frozenset of str
        Class names of the estimator and its bases.
    """
    native = model.native
    if names & (FORESTS | SINGLE):
        return _forest_why_not(model)
    if not names & (BOOSTED | HISTOGRAM):
        return f"{type(native).__name__} is not a plain sum of trees"
    if model.output_space == "probability":
        return ensembles.BOOSTED_PROBABILITY
    if model.output_space == "prediction" and names & HISTOGRAM and native.loss in _LOG_LINK:
        return ensembles.log_link(native.loss)
    if names & BOOSTED and not _constant_start(native):
        return "gradient boosting that starts from another model (init=...) is not a sum of trees alone"
    return None


def _forest_why_not(model: FittedModel) -> str | None:
    if model.output_space == "margin":
        return f"{type(model.native).__name__} has probabilities, no margin"
    if model.task != "regression" and model.native.n_outputs_ > 1:
        return "a classifier with several label columns is not explained"
    return None


def _constant_start(native: Any) -> bool:
    start = native.init_
    if isinstance(start, str):
        return start == "zero"
    return type(start).__name__ in ("DummyClassifier", "DummyRegressor") and start.get_params().get(
        "strategy"
    ) in ("prior", "mean", "quantile", "constant", "median")


def parse(native: Any, *, names: frozenset[str]) -> Ensemble:
    """Return the estimator as a sum of trees: forests as they predict, boosting as its raw score."""
    if names & HISTOGRAM:
        return _histogram(native)
    return _gradient(native) if names & BOOSTED else _forest(native, single=bool(names & SINGLE))


def _forest(native: Any, *, single: bool) -> Ensemble:
    members = [native] if single else list(native.estimators_)
    classifier = hasattr(native, "classes_")
    trees = [_tree(m.tree_, weight=1.0 / len(members), classifier=classifier) for m in members]
    compacted, columns = ensembles.compact(trees)
    offset = np.zeros(trees[0].values.shape[1])
    return Ensemble(trees=compacted, offset=offset, encode=_single_precision(columns), columns=columns)


def _tree(
    tree: Any, *, weight: float, classifier: bool = False, outputs: tuple[int, ...] | None = None
) -> Tree:
    left = np.asarray(tree.children_left, dtype=np.int64)
    stored = np.asarray(tree.value, dtype=np.float64)
    values = stored[:, 0, :] if classifier else stored[:, :, 0]
    if classifier:
        totals = values.sum(axis=1, keepdims=True)
        values = values / np.where(totals == 0.0, 1.0, totals)
    missing = getattr(tree, "missing_go_to_left", None)
    return ensembles.frozen_tree(
        left=left,
        right=tree.children_right,
        column=np.where(left < 0, -1, tree.feature),
        threshold=tree.threshold,
        missing_left=np.zeros(len(left)) if missing is None else missing,
        values=values * weight,
        cover=tree.weighted_n_node_samples,
        outputs=tuple(range(values.shape[1])) if outputs is None else outputs,
    )


def _single_precision(columns: tuple[int, ...]) -> Callable[[Any], FloatArray]:
    def encode(inputs: Any) -> FloatArray:
        return ensembles.as_float32(ensembles.numeric_columns(inputs, columns))

    return encode


def _gradient(native: Any) -> Ensemble:
    trees = [
        _tree(member.tree_, weight=float(native.learning_rate), outputs=(output,))
        for stage in native.estimators_
        for output, member in enumerate(stage)
    ]
    compacted, columns = ensembles.compact(trees)
    ensemble = Ensemble(
        trees=compacted,
        offset=np.zeros(native.estimators_.shape[1]),
        encode=_single_precision(columns),
        columns=columns,
    )
    return Ensemble(trees=compacted, offset=_start(native, ensemble), encode=ensemble.encode, columns=columns)


def _start(native: Any, ensemble: Ensemble) -> FloatArray:
    """Return the constant that boosting starts from: what the public output has beyond the trees.

    The start is the same for all rows, so that any valid row shows it.
    """
    zeros = np.zeros((1, native.n_features_in_))
    names = getattr(native, "feature_names_in_", None)
    row: Any = zeros if names is None else pd.DataFrame(zeros, columns=names)
    raw = native.decision_function(row) if hasattr(native, "decision_function") else native.predict(row)
    start: FloatArray = np.ravel(raw) - ensembles.predict(ensemble, ensemble.encode(row))[0]
    return start


def _histogram(native: Any) -> Ensemble:
    baseline = np.ravel(np.asarray(native._baseline_prediction, dtype=np.float64))
    known, positions = native._bin_mapper.make_known_categories_bitsets()
    known_sets = [_members(bits) for bits in np.asarray(known)]
    trees = [
        _histogram_tree(predictor, output, known_sets=known_sets, positions=positions)
        for stage in native._predictors
        for output, predictor in enumerate(stage)
    ]
    compacted, columns = ensembles.compact(trees)
    encode = _histogram_encoder(native, columns)
    return Ensemble(trees=compacted, offset=baseline, encode=encode, columns=_unsorted(native, columns))


def _members(bits: Any) -> BoolArray:
    """Return a 256-bit set of 32-bit words as booleans."""
    words = np.asarray(bits, dtype="<u4")
    return np.unpackbits(words.view(np.uint8), bitorder="little").astype(np.bool_)


def _histogram_tree(predictor: Any, output: int, *, known_sets: list[BoolArray], positions: Any) -> Tree:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(np.bool_)
    missing = nodes["missing_go_to_left"].astype(np.bool_)
    categories = {}
    for node in np.flatnonzero(nodes["is_categorical"].astype(np.bool_) & ~leaf):
        goes_left = _members(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][node]])
        known = known_sets[positions[nodes["feature_idx"][node]]]
        # A category that training did not see is treated as a missing value.
        sides = np.where(goes_left | known, goes_left, missing[node])
        categories[int(node)] = CategorySplit(left=sides, other_left=bool(missing[node]))
    return ensembles.frozen_tree(
        left=np.where(leaf, -1, nodes["left"].astype(np.int64)),
        right=np.where(leaf, -1, nodes["right"].astype(np.int64)),
        column=np.where(leaf, -1, nodes["feature_idx"]),
        threshold=nodes["num_threshold"],
        missing_left=missing,
        values=np.where(leaf, nodes["value"], 0.0)[:, None],
        cover=nodes["count"],
        outputs=(output,),
        categories=categories,
    )


def _unsorted(native: Any, columns: tuple[int, ...]) -> tuple[int, ...]:
    """Map columns of the estimator's inner matrix, which has category columns first, to its input columns."""
    if native._preprocessor is None:
        return columns
    categorical = np.asarray(native.is_categorical_)
    order = np.concatenate([np.flatnonzero(categorical), np.flatnonzero(~categorical)])
    return tuple(int(order[c]) for c in columns)


def _histogram_encoder(native: Any, columns: tuple[int, ...]) -> Callable[[Any], FloatArray]:
    def encode(inputs: Any) -> FloatArray:
        if native._preprocessor is None:
            return ensembles.numeric_columns(inputs, columns)
        named = hasattr(native, "feature_names_in_")
        rows = inputs if named or not isinstance(inputs, pd.DataFrame) else inputs.to_numpy()
        inner = np.asarray(native._preprocessor.transform(rows), dtype=np.float64)
        return np.ascontiguousarray(inner[:, list(columns)].T)

    return encode
