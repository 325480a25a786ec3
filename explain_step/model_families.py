"""What each kind of model can say, as `Abilities`. Libraries are recognised by name, never imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from explain_step.errors import InvalidInput
from explain_step.types import Family, OutputSpace, Preprocessing

Ask = Callable[[Any], Any]
"""A question to the model: prepared rows to raw answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Abilities:
    """What a model can be asked, before the options are applied.

    Attributes
    ----------
    kind : {"classifier", "regressor"}
    model_class : str
    classes : tuple, optional
        Class labels in the order of the probability columns.
    probability, margin, label, prediction : callable, optional
        Questions; None where the model has no answer. ``label`` None means the most probable class.
    preferred : {"probability", "margin", "prediction"}
        Output space when the caller does not choose.
    native, family, reason, preprocessing
        As in `FittedModel`.
    final : Abilities, optional
        What can be asked about rows that have been through ``preprocessing``.
    link : str, optional
        Name of a non-identity link between margin and prediction (then only the margin is linear in
        ``native``).
    output_names : tuple of str, optional
        Names that the model itself gives its outputs.
    unjudged, quantile : optional
        As in `FittedModel`.
    sums_to_one : bool
        Whether the probabilities of a row must sum to one (not so in boosters of one model per class).
    """

    kind: Literal["classifier", "regressor"]
    model_class: str
    preferred: OutputSpace
    classes: tuple[Any, ...] | None = None
    probability: Ask | None = None
    margin: Ask | None = None
    label: Ask | None = None
    prediction: Ask | None = None
    native: Any = None
    family: Family = "blackbox"
    reason: str | None = None
    preprocessing: Preprocessing | None = None
    final: Abilities | None = None
    link: str | None = None
    output_names: tuple[str, ...] | None = None
    unjudged: str | None = None
    quantile: float | None = None
    sums_to_one: bool = True


TREES = frozenset(
    {
        "DecisionTreeClassifier",
        "DecisionTreeRegressor",
        "ExtraTreeClassifier",
        "ExtraTreeRegressor",
        "ExtraTreesClassifier",
        "ExtraTreesRegressor",
        "GradientBoostingClassifier",
        "GradientBoostingRegressor",
        "HistGradientBoostingClassifier",
        "HistGradientBoostingRegressor",
        "RandomForestClassifier",
        "RandomForestRegressor",
    }
)
LINEAR = frozenset(
    {
        "ARDRegression",
        "BayesianRidge",
        "ElasticNet",
        "ElasticNetCV",
        "HuberRegressor",
        "Lars",
        "LarsCV",
        "Lasso",
        "LassoCV",
        "LassoLars",
        "LassoLarsCV",
        "LassoLarsIC",
        "LinearDiscriminantAnalysis",
        "LinearRegression",
        "LinearSVC",
        "LinearSVR",
        "LogisticRegression",
        "LogisticRegressionCV",
        "MultiTaskElasticNet",
        "MultiTaskElasticNetCV",
        "MultiTaskLasso",
        "MultiTaskLassoCV",
        "OrthogonalMatchingPursuit",
        "OrthogonalMatchingPursuitCV",
        "PassiveAggressiveClassifier",
        "PassiveAggressiveRegressor",
        "Perceptron",
        "QuantileRegressor",
        "Ridge",
        "RidgeCV",
        "RidgeClassifier",
        "RidgeClassifierCV",
        "SGDClassifier",
        "SGDRegressor",
        "TheilSenRegressor",
    }
)
KERNEL = frozenset({"GaussianProcessRegressor", "KernelRidge", "NuSVC", "NuSVR", "SVC", "SVR"})
GENERALIZED = frozenset({"GammaRegressor", "PoissonRegressor", "TweedieRegressor"})
"""Linear on the scale of their link, which is the logarithm or the identity."""
LABEL_IS_ARGMAX = frozenset(
    {"BaggingClassifier", "BernoulliNB", "CalibratedClassifierCV", "CategoricalNB", "ComplementNB"}
    | {"DecisionTreeClassifier", "ExtraTreeClassifier", "ExtraTreesClassifier", "GaussianNB"}
    | {"HistGradientBoostingClassifier", "LogisticRegression", "LogisticRegressionCV", "MLPClassifier"}
    | {"MultinomialNB", "RandomForestClassifier"}
)
"""Scikit-learn's classifiers whose ``predict`` is the most probable class, so that it need not be asked for. That of others
may follow a decision function (SVC, one-vs-rest), a moved threshold, or the final model of a stack.
"""


def library(model: Any) -> str:
    """Return the top-level module of a model's class."""
    return type(model).__module__.partition(".")[0]


def fitted(model: Any, attribute: str) -> Any:
    """Return a fitted attribute, or None where there is none."""
    try:
        return getattr(model, attribute, None)
    # a caller's own estimator may raise these in a property: one that is abstract, or a model that is not fitted
    except (NotImplementedError, ValueError):
        return None


def is_estimator(model: Any) -> bool:
    """Return whether the model follows scikit-learn's conventions, so that its answers are understood."""
    if isinstance(model, type) or not hasattr(model, "predict"):
        return False
    return _role(model) is not None


def _role(model: Any) -> Literal["classifier", "regressor", "ranker", "survival"] | None:
    name = type(model).__name__
    if library(model) == "sksurv":
        return "survival"
    if library(model) in ("xgboost", "lightgbm") and "Ranker" in name:
        return "ranker"
    if fitted(model, "classes_") is not None and hasattr(model, "predict"):
        return "classifier"
    if hasattr(model, "get_params"):
        return _role_from_tags(model)
    return None


def _role_from_tags(model: Any) -> Literal["classifier", "regressor"] | None:
    from sklearn.base import is_classifier, is_regressor

    try:
        if is_classifier(model):
            return "classifier"
        return "regressor" if is_regressor(model) else None
    except AttributeError:  # an estimator without scikit-learn's tags
        return None


def estimator_abilities(model: Any) -> Abilities:
    """Return what a fitted scikit-learn-like estimator (not a Pipeline) can be asked.

    Raises
    ------
    InvalidInput
        The estimator predicts several class labels per row, only labels, or is neither classifier nor
        regressor.
    """
    role = _role(model)
    if role == "classifier":
        return _classifier(model)
    name = type(model).__name__
    if role in ("ranker", "survival"):
        what = "a ranking score" if role == "ranker" else "a risk score"
        return Abilities(
            kind="regressor",
            model_class=name,
            preferred="margin",
            margin=model.predict,
            native=model,
            family=family_of(model)[0],
            reason=f"{name} predicts {what}, which has no unit: its margin is explained",
        )
    family, reason = family_of(model)
    link = _sklearn_link(model)
    return Abilities(
        kind="regressor",
        model_class=name,
        preferred="prediction",
        prediction=model.predict,
        margin=_log_of(model.predict) if link else None,
        native=model,
        family=family,
        reason=reason,
        link=link,
        quantile=_sklearn_quantile(model),
    )


def _sklearn_quantile(model: Any) -> float | None:
    """Return the level of the quantile that a regressor predicts."""
    if getattr(model, "loss", None) == "quantile":
        return float(model.alpha if type(model).__name__ == "GradientBoostingRegressor" else model.quantile)
    return float(model.quantile) if type(model).__name__ == "QuantileRegressor" else None


def _log_of(predict: Ask) -> Ask:
    """Return the linear predictor of a model with a log link, from its prediction."""

    def margin(rows: Any) -> Any:
        import numpy as np

        return np.log(predict(rows))

    return margin


def _classifier(model: Any) -> Abilities:
    name = type(model).__name__
    classes = check_classes(model)
    probability = model.predict_proba if hasattr(model, "predict_proba") else None
    margin = model.decision_function if hasattr(model, "decision_function") else None
    if probability is None and margin is None:
        msg = (
            f"Argument model must give probabilities or a decision function, but {name} only predicts "
            "labels, and a label "
            "is not a number to explain; use a soft-voting ensemble (voting='soft') or calibrate it "
            "(sklearn.calibration.CalibratedClassifierCV)."
        )
        raise InvalidInput(msg)
    family, reason = family_of(model)
    if probability is None:
        reason = f"{name} has no predict_proba: its decision function (margin) is explained"
    follows = probability is not None and library(model) == "sklearn" and name in LABEL_IS_ARGMAX
    return Abilities(
        kind="classifier",
        model_class=name,
        classes=classes,
        preferred="probability" if probability is not None else "margin",
        probability=probability,
        margin=margin,
        label=None if follows else model.predict,
        native=model,
        family=family,
        reason=reason,
    )


def check_classes(model: Any) -> tuple[Any, ...]:
    """Return the class labels as plain values; refuse several labels per row and a single class."""
    name = type(model).__name__
    found = fitted(model, "classes_")
    if found is None:
        msg = f"Argument model must be fitted, but {name} has no classes_; fit it first."
        raise InvalidInput(msg)
    nested = isinstance(found, list) and any(
        hasattr(entry, "__len__") and not isinstance(entry, str) for entry in found
    )
    if nested or getattr(model, "multilabel_", False) or "MultiOutput" in name or name == "ClassifierChain":
        msg = (
            f"Argument model must predict one label per row, but {name} predicts several (multi-output or "
            "multi-label "
            "classification); explain one output at a time: give a callable that returns the probabilities "
            "of one label."
        )
        raise InvalidInput(msg)
    classes = tuple(c.item() if hasattr(c, "item") else c for c in found)
    if len(classes) < 2:
        msg = (
            f"Argument model must know at least two classes, but {name} was fitted on the single class "
            f"{classes[0] if classes else None!r}; fit it on data with both classes."
        )
        raise InvalidInput(msg)
    return classes


def positive_position(classes: tuple[Any, ...], wanted: Any, *, names: tuple[str, ...] | None = None) -> int:
    """Return the position of the positive class: by value, then by its text, then by its display name.

    Raises
    ------
    InvalidInput
        There is no such class.

    Examples
    --------
    >>> positive_position((0, 1), "1")
    1
    """
    candidates = ([type(c) is type(wanted) and c == wanted for c in classes], [c == wanted for c in classes])
    by_text = [str(c) == str(wanted) for c in classes]
    by_name = [name == str(wanted) for name in names or ()]
    for hits in (*candidates, by_text, by_name):
        if any(hits):
            return hits.index(True)
    msg = f"Option positive_class must be one of the model's classes {list(classes)!r}, got {wanted!r}."
    raise InvalidInput(msg)


def family_of(model: Any) -> tuple[Family, str | None]:
    """Return the family of a final estimator by class name, and why a known kind is a black box."""
    name, where = type(model).__name__, library(model)
    if where == "sklearn" and name in TREES:
        return "tree", None
    if where == "sklearn" and name in LINEAR | GENERALIZED:
        return "linear", None
    if where == "sklearn" and name in KERNEL:  # with a linear kernel there are coefficients
        return ("kernel" if fitted(model, "coef_") is None else "linear"), None
    if where in ("xgboost", "lightgbm", "catboost"):
        return "tree", None
    return "blackbox", None


def _sklearn_link(model: Any) -> str | None:
    """Return the link of a regressor whose trees or columns add up to the logarithm of the prediction."""
    name = type(model).__name__
    if name == "HistGradientBoostingRegressor":
        return "log" if model.loss in ("poisson", "gamma") else None
    if name == "TweedieRegressor":
        automatic = "log" if model.power > 0 else "identity"
        return "log" if (automatic if model.link == "auto" else model.link) == "log" else None
    return "log" if name in GENERALIZED else None


def as_blackbox(abilities: Abilities, reason: str | None) -> Abilities:
    """Return the abilities of a model whose inside cannot be used."""
    return replace(abilities, native=None, family="blackbox", preprocessing=None, final=None, reason=reason)


def through(abilities: Abilities, front: Ask) -> Abilities:
    """Return abilities whose every question is asked after ``front``."""
    questions: Mapping[str, Ask | None] = {
        name: getattr(abilities, name) for name in ("probability", "margin", "label", "prediction")
    }
    return replace(
        abilities,
        **{name: None if ask is None else _after(ask, front) for name, ask in questions.items()},  # type: ignore[arg-type]
    )


def _after(ask: Ask, front: Ask) -> Ask:
    return lambda rows: ask(front(rows))
