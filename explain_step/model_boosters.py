"""XGBoost, LightGBM and CatBoost, none imported before it arrives: what objectives make of the trees' sum."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from explain_step.errors import InvalidInput
from explain_step.model_families import Abilities, Ask, check_classes, fitted, library
from explain_step.types import FloatArray

CatBoostAnswer = Literal["RawFormulaVal", "Probability", "Class", "Exponent", "RMSEWithUncertainty"]
LIGHTGBM_ALPHA = 0.9
"""LightGBM's default level of a quantile."""
LIBRARIES = frozenset({"xgboost", "lightgbm", "catboost"})
LOG_LINKS = frozenset(
    {"count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"}  # xgboost
    | {"poisson", "gamma", "tweedie"}  # lightgbm
    | {"Poisson", "Tweedie"}  # catboost
)
LOGIT_LINKS = frozenset({"reg:logistic", "cross_entropy", "xentropy"})
RANKING = (
    "rank:",
    "lambdarank",
    "rank_xendcg",
    "YetiRank",
    "PairLogit",
    "QueryRMSE",
    "QuerySoftMax",
    "StochasticRank",
)
HAZARDS = ("survival:cox", "Cox")
LIFETIMES = ("survival:aft", "SurvivalAft")
CATBOOST_ANSWERS: dict[str, CatBoostAnswer] = {
    "Poisson": "Exponent",
    "Tweedie": "Exponent",
    "RMSEWithUncertainty": "RMSEWithUncertainty",
}
"""What CatBoostRegressor's ``predict`` gives, where that of the plain CatBoost class gives the sum of the trees."""


def is_booster(model: Any) -> bool:
    """Return whether the model comes from XGBoost, LightGBM or CatBoost (any of their interfaces)."""
    return library(model) in LIBRARIES and hasattr(model, "predict")


def booster_abilities(model: Any, *, task: str | None) -> Abilities:
    """Return what a boosted model can be asked, from its objective.

    Raises
    ------
    InvalidInput
        Not fitted, several labels per row, or a single class.
    """
    by_library = {"xgboost": _xgboost, "lightgbm": _lightgbm, "catboost": _catboost}
    return by_library[library(model)](model, task)


def sigmoid(margin: FloatArray) -> FloatArray:
    """Return the logistic function without overflow."""
    from scipy.special import expit

    return np.asarray(expit(np.asarray(margin, dtype=np.float64)))


def softmax(margin: FloatArray) -> FloatArray:
    """Return row-wise class probabilities of margins of shape (n, classes)."""
    from scipy.special import softmax as scipy_softmax

    return np.asarray(scipy_softmax(np.asarray(margin, dtype=np.float64), axis=1))


def _regressor(
    model: Any,
    *,
    objective: str,
    prediction: Ask,
    margin: Ask,
    reason: str | None = None,
    linear: bool = True,
    several: tuple[str, ...] = (),
    quantile: float | None = None,
) -> Abilities:
    """Abilities of a regressor, ranker or survival model by the name of its objective.

    ``several`` names outputs that are all about one target.
    """
    name = type(model).__name__
    unitless = next((what for what, starts in _UNITLESS if objective.startswith(starts)), None)
    if unitless is not None:
        reason = reason or f"{name} with objective {objective!r} predicts {unitless}: its margin is explained"
    link = "log" if objective in LOG_LINKS else "logit" if objective in LOGIT_LINKS else None
    return Abilities(
        kind="regressor",
        model_class=name,
        preferred="prediction" if unitless is None else "margin",
        prediction=prediction if unitless is None else None,
        margin=margin if unitless is not None or link is not None else None,
        native=model if linear else None,
        family="tree" if linear else "blackbox",
        reason=reason,
        link=link,
        output_names=several or None,
        unjudged=_unjudged(several) if several else None,
        quantile=quantile,
    )


def _unjudged(several: tuple[str, ...]) -> str:
    listed = ", ".join(several)
    return f"the model answers with {len(several)} numbers for one target ({listed}), and a label is none of them"


_UNITLESS = (
    ("a ranking score, which has no unit", RANKING),
    ("a risk", HAZARDS),
    ("the logarithm of a time to the event", LIFETIMES),
)


# --- XGBoost


def _xgboost(model: Any, task: str | None) -> Abilities:
    booster = model if type(model).__name__ == "Booster" else model.get_booster()
    learner = json.loads(booster.save_config())["learner"]
    objective = str(learner["objective"]["name"])
    ask = _ask_xgboost(model)
    margin = ask(margin=True)
    linear = learner["gradient_booster"]["name"] != "gblinear"
    reason = None if linear else "a gblinear booster is not a tree ensemble"
    known = objective.startswith(("binary:", "multi:")) or (objective == "reg:logistic" and task == "binary")
    if not (known or "Classifier" in type(model).__name__):
        levels = json.loads(learner["objective"].get("quantile_loss_param", {}).get("quantile_alpha", "[]"))
        return _regressor(
            model,
            objective=objective,
            prediction=ask(margin=False),
            margin=margin,
            reason=reason,
            linear=linear,
            several=_named_quantiles(levels) if len(levels) > 1 else (),
            quantile=levels[0] if len(levels) == 1 else None,
        )
    classes = _xgboost_classes(model, learner)
    probability = _xgboost_probability(model, objective=objective, classes=len(classes)) if known else None
    if probability is None:
        objective = objective if known else "custom"
        reason = f"objective {objective!r} gives no probabilities: the margin is explained"
    return Abilities(
        kind="classifier",
        model_class=type(model).__name__,
        classes=classes,
        preferred="margin" if probability is None else "probability",
        probability=probability,
        margin=margin,
        label=None if probability is not None else _label_of_largest(margin, classes),
        native=model if linear else None,
        family="tree" if linear else "blackbox",
        reason=reason,
    )


def _named_quantiles(levels: Iterable[Any]) -> tuple[str, ...]:
    return tuple(f"quantile {float(level):g}" for level in levels)


def _xgboost_classes(model: Any, learner: dict[str, Any]) -> tuple[Any, ...]:
    if fitted(model, "classes_") is not None:
        return check_classes(model)
    return tuple(range(max(2, int(learner["learner_model_param"]["num_class"]))))


def _ask_xgboost(model: Any) -> Any:
    """Return a maker of questions (margin or transformed) for a Booster or a scikit-learn interface."""
    if type(model).__name__ != "Booster":
        return lambda *, margin: lambda rows: model.predict(rows, output_margin=margin)

    def ask(*, margin: bool) -> Ask:
        def answer(rows: Any) -> Any:
            from xgboost import DMatrix

            return model.predict(DMatrix(rows, enable_categorical=True), output_margin=margin)

        return answer

    return ask


def _xgboost_probability(model: Any, *, objective: str, classes: int) -> Ask | None:
    """Return the question for class probabilities; ``binary:hinge`` has none (its answers are labels)."""
    ask = _ask_xgboost(model)
    if objective == "binary:hinge":
        return None
    if objective == "binary:logitraw":
        raw = ask(margin=True)
        return lambda rows: sigmoid(raw(rows))
    if hasattr(model, "predict_proba"):
        found: Ask = model.predict_proba
        return found
    if objective == "multi:softmax":
        raw = ask(margin=True)
        return lambda rows: softmax(np.reshape(raw(rows), (-1, classes)))
    transformed: Ask = ask(margin=False)
    return transformed


def _label_of_largest(margin: Ask, classes: tuple[Any, ...]) -> Ask:
    """Return the question for the label of the largest margin; of two classes the sign decides."""
    if len(classes) == 2:
        return lambda rows: np.array(classes)[(np.asarray(margin(rows)).reshape(-1) > 0).astype(np.int64)]
    return lambda rows: np.array(classes)[np.argmax(np.reshape(margin(rows), (-1, len(classes))), axis=1)]


# --- LightGBM


def _lightgbm(model: Any, task: str | None) -> Abilities:
    booster = model if type(model).__name__ == "Booster" else model.booster_
    header = _lightgbm_header(booster)
    objective = header.get("objective", "custom").split(" ")[0]
    linear = booster.params.get("linear_tree") not in (True, "true", 1)
    reason = None if linear else "the leaves of linear trees are linear models, not constants"
    margin: Ask = lambda rows: model.predict(rows, raw_score=True)  # noqa: E731 - one question among others
    own = callable(getattr(model, "objective", None)) or objective == "custom"
    if not (objective in ("binary", "multiclass", "multiclassova") or "Classifier" in type(model).__name__):
        if header.get("objective", "").endswith(" sqrt"):
            reason, linear = "reg_sqrt squares the sum of the trees", False
        level = float(booster.params.get("alpha", LIGHTGBM_ALPHA)) if objective == "quantile" else None
        return _regressor(
            model,
            objective=objective,
            prediction=model.predict,
            margin=margin,
            reason=reason,
            linear=linear,
            quantile=level,
        )
    count = max(2, int(header.get("num_class", "1")))
    classes = check_classes(model) if fitted(model, "classes_") is not None else tuple(range(count))
    if own:
        reason = "a custom objective gives no probabilities: the margin is explained"
    probability: Ask | None = getattr(model, "predict_proba", model.predict)
    return Abilities(
        kind="classifier",
        model_class=type(model).__name__,
        classes=classes,
        preferred="margin" if own else "probability",
        probability=None if own else probability,
        sums_to_one=objective != "multiclassova",
        margin=margin,
        label=_label_of_largest(margin, classes) if own else None,
        native=model if linear else None,
        family="tree" if linear else "blackbox",
        reason=reason,
    )


def _lightgbm_header(booster: Any) -> dict[str, str]:
    """Return the ``key=value`` lines before the trees: only they know the objective after loading."""
    text: str = booster.model_to_string(num_iteration=1)
    head = text.partition("\nTree=")[0]
    return dict(line.split("=", 1) for line in head.splitlines() if "=" in line)


# --- CatBoost


def _catboost(model: Any, task: str | None) -> Abilities:
    name = type(model).__name__
    if not model.is_fitted():
        msg = f"Argument model must be fitted, but {name} is not; fit it first."
        raise InvalidInput(msg)
    loss, options = _catboost_loss(model)
    margin = _ask_catboost(model, "RawFormulaVal")
    if loss in ("MultiLogloss", "MultiCrossEntropy"):
        msg = (
            f"Argument model must predict one label per row, but {name} with loss {loss} predicts several; "
            "give a callable that returns the probabilities of one label."
        )
        raise InvalidInput(msg)
    if loss not in ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll"):
        answer = catboost_answer(model)[1]
        return _regressor(
            model,
            objective=loss,
            prediction=model.predict if answer is None else _ask_catboost(model, answer),
            margin=margin,
            several=_catboost_several(loss, options),
            quantile=float(_catboost_option(options, "alpha", default="0.5")) if loss == "Quantile" else None,
        )
    return Abilities(
        kind="classifier",
        model_class=name,
        classes=check_classes(model),
        preferred="probability",
        probability=_ask_catboost(model, "Probability"),
        sums_to_one=loss != "MultiClassOneVsAll",
        margin=margin,
        label=_ask_catboost(model, "Class"),
        native=model,
        family="tree",
    )


def catboost_answer(model: Any) -> tuple[str, CatBoostAnswer | None]:
    """Return the loss of a regressor or ranker, and what kind of answer its prediction is; None: the trees' sum."""
    loss = _catboost_loss(model)[0]
    return loss, CATBOOST_ANSWERS.get(loss)


def _catboost_loss(model: Any) -> tuple[str, str]:
    """Return the loss and its parameters."""
    loss, _, options = str(model.get_all_params().get("loss_function", "RMSE")).partition(":")
    return loss, options


def _catboost_several(loss: str, options: str) -> tuple[str, ...]:
    """Return names of several answers about one target."""
    if loss == "RMSEWithUncertainty":
        return ("mean", "variance")
    if loss != "MultiQuantile":
        return ()
    return _named_quantiles(_catboost_option(options, "alpha", default="0.5").split(","))


def _catboost_option(options: str, name: str, *, default: str) -> str:
    """Return one parameter of a loss: ``alpha`` of ``alpha=0.1;delta=1e-6``."""
    return dict(part.split("=", 1) for part in options.split(";") if part).get(name, default)


def _ask_catboost(model: Any, kind: CatBoostAnswer) -> Ask:
    if (
        type(model).__name__ == "CatBoostRanker"
    ):  # whose predict gives the sum of the trees, and takes no kind
        own: Ask = model.predict
        return own
    return lambda rows: model.predict(rows, prediction_type=kind)
