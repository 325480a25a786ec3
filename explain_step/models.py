"""One interface over every fitted model: `wrap` returns a `FittedModel`.

A classifier answers with the probability of a class (or its margin), never with the label. Predictions are
asked on a copy of the rows, with the columns, order, dtypes and container the model was trained on, and
every answer is checked.
"""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from explain_step import preprocessing
from explain_step.config import Config
from explain_step.errors import InvalidInput
from explain_step.model_answers import build
from explain_step.model_boosters import booster_abilities, is_booster
from explain_step.model_callables import SCORES, callable_abilities, probe
from explain_step.model_families import (
    Abilities,
    as_blackbox,
    estimator_abilities,
    fitted,
    is_estimator,
    library,
    through,
)
from explain_step.model_inputs import (
    Columns,
    all_text,
    check_frame,
    counted_columns,
    named_columns,
    select,
    text_labels,
)
from explain_step.threads import Pace
from explain_step.types import FittedModel

QUESTIONS = frozenset({"predict", "predict_proba", "decision_function"})
TEXT_STEPS = frozenset({"CountVectorizer", "TfidfVectorizer", "HashingVectorizer"})


def wrap(model: Any, *, frame: pd.DataFrame, config: Config, pace: Pace | None = None) -> FittedModel:
    """Return a fitted model behind the package's one interface.

    Parameters
    ----------
    model : object
        Fitted scikit-learn estimator, Pipeline or search; XGBoost, LightGBM or CatBoost model or Booster;
        MLflow pyfunc model; or any callable from rows to numbers (one number per row, or one column per
        class or target).
    frame : DataFrame of shape (n, columns), n >= 1
        Rows to be explained, with at least the model's raw columns and without the target.
    config : Config
        ``task``, ``output``, ``positive_class`` and ``class_names`` are used.
    pace : Pace, optional
        That of another copy of the model, where one has answered.

    Returns
    -------
    FittedModel

    Raises
    ------
    InvalidInput
        The options contradict the model, columns are missing, the model is not fitted or predicts only
        labels.
    PredictionFailed
        The model raises on these rows, or answers with NaN, infinity or a wrong shape.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> X = pd.DataFrame({"age": [20.0, 30.0, 40.0, 50.0]})
    >>> fitted_model = wrap(LogisticRegression().fit(X, ["no", "no", "yes", "yes"]), frame=X, config=Config())
    >>> fitted_model.output_space, fitted_model.output_names
    ('probability', ('yes',))
    """
    check_frame(frame, argument="X")
    try:
        abilities, columns = _known(model, frame=frame, config=config)
    except ValueError as error:  # boosters raise scikit-learn's error where their names are asked for
        if not any(kind.__name__ == "NotFittedError" for kind in type(error).__mro__):
            raise
        msg = f"Argument model must be fitted, but {type(model).__name__} is not ({error}); fit it first."
        raise InvalidInput(msg) from error
    return build(abilities, columns, frame=frame, config=config, pace=pace)


# --- which kind of model


def _known(model: Any, *, frame: pd.DataFrame, config: Config) -> tuple[Abilities, Columns]:
    if isinstance(model, type):
        msg = (
            f"Argument model must be a fitted model, got the class {model.__name__}; give a fitted instance."
        )
        raise InvalidInput(msg)
    if library(model) == "mlflow" and hasattr(model, "get_raw_model"):
        return _pyfunc(model, frame=frame, config=config)
    model = unwrapped(model)
    if is_pipeline(model) or is_booster(model) or is_estimator(model):
        columns = columns_of(model, frame)
        return _abilities(model, columns, frame=frame, config=config), columns
    return _callable(model, frame=frame, config=config)


def unwrapped(model: Any) -> Any:
    """Return the model inside search and frozen wrappers, whose predictions are its predictions.

    Raises
    ------
    InvalidInput
        A search that was not refitted.
    """
    name = type(model).__name__
    if name.endswith("SearchCV") and hasattr(model, "estimator"):
        if not hasattr(model, "best_estimator_"):
            msg = f"Argument model must be fitted, but {name} has no best_estimator_; fit it with refit=True."
            raise InvalidInput(msg)
        return unwrapped(model.best_estimator_)
    if name == "FrozenEstimator":
        return unwrapped(model.estimator)
    return model


def is_pipeline(model: Any) -> bool:
    """Return whether the model is a scikit-learn (or imbalanced-learn) Pipeline."""
    return any(c.__name__ == "Pipeline" for c in type(model).__mro__) and hasattr(model, "steps")


def flat_steps(model: Any) -> tuple[list[Any], Any]:
    """Return transformers and final estimator of a Pipeline, nested Pipelines and searches opened."""
    model = unwrapped(model)
    if not is_pipeline(model):
        return [], model
    front = [step for _, step in model.steps[:-1] if step is not None and not isinstance(step, str)]
    if model.steps[-1][1] is None or isinstance(model.steps[-1][1], str):
        msg = "Argument model must end in an estimator, but the last step of the Pipeline is 'passthrough'."
        raise InvalidInput(msg)
    inner, final = flat_steps(model.steps[-1][1])
    # resamplers of imbalanced-learn act in training only
    return [step for step in front if hasattr(step, "transform")] + inner, final


def _abilities(model: Any, columns: Columns, *, frame: pd.DataFrame, config: Config) -> Abilities:
    steps, final = flat_steps(model)
    found = _single(final, config=config)
    if is_pipeline(model):
        found = replace(found, model_class=f"{type(model).__name__}({found.model_class})")
    if not steps:
        return found
    front = preprocessing.chain(steps)
    questions = through(found, front)
    traced, reason = preprocessing.trace(steps, prepare=columns.prepare, frame=select(frame, columns.names))
    if traced is None:
        return as_blackbox(questions, found.reason if found.family == "blackbox" else reason)
    return replace(questions, preprocessing=traced, final=found)


def _single(model: Any, *, config: Config) -> Abilities:
    """Return the abilities of one estimator that is not a Pipeline."""
    if is_booster(model):
        return booster_abilities(model, task=config.task)
    if not is_estimator(model):
        scores = " or ".join(score for score in SCORES if hasattr(model, score))
        msg = (
            f"Argument model must be a classifier or a regressor, got {type(model).__name__}; for another "
            f"kind of model give {f'the {scores} of it (of the whole Pipeline), or ' if scores else ''}"
            "a callable that returns one number per row, with task='regression'."
        )
        raise InvalidInput(msg)
    if type(model).__name__ in ("FixedThresholdClassifier", "TunedThresholdClassifierCV"):
        return _thresholded(model, config=config)
    return estimator_abilities(model)


def _thresholded(model: Any, *, config: Config) -> Abilities:
    """Open a model with a moved threshold: its labels are its own, its probabilities the inner model's."""
    steps, inner = flat_steps(model.estimator_)
    if steps or is_booster(inner) or not is_estimator(inner):
        return replace(estimator_abilities(model), label=model.predict)
    return replace(_single(inner, config=config), label=model.predict, model_class=type(model).__name__)


# --- which columns, in which container


def columns_of(model: Any, frame: pd.DataFrame) -> Columns:
    """Return the raw columns an estimator or booster reads, and whether it wants a frame or an array.

    Raises
    ------
    InvalidInput
        Columns are missing, or there are too many for a model that does not know names.
    """
    steps, final = flat_steps(model)
    first = steps[0] if steps else final
    if type(first).__name__ in TEXT_STEPS:
        return counted_columns(frame, 1, container="series")
    names, count = _names_and_count(model, first)
    if names is not None:
        given = set(text_labels(frame))
        if _positional(names, given):
            return counted_columns(frame, len(names), container="array")
        spared = preprocessing.unread_columns(first)
        return named_columns(frame, _respelled([n for n in names if n in given or n not in spared], given))
    # labels that are not text are never recorded by scikit-learn: the model may have seen a frame
    unnamed = count is not None and all_text(frame.columns)
    return counted_columns(frame, count, container="array" if unnamed else "frame")


def _names_and_count(model: Any, first: Any) -> tuple[list[str] | None, int | None]:
    """Return recorded column names and number of columns, wherever the library keeps them."""
    candidates = [model, first]
    candidates += [
        fitted(model, inner) for inner in ("estimator_", "regressor_", "estimator", "base_estimator_")
    ]
    for several in ("estimators_", "calibrated_classifiers_"):
        candidates.append(_first_member(fitted(model, several)))
    count = None
    for candidate in [c for c in candidates if c is not None]:
        for attribute in ("feature_names_in_", "feature_names_", "feature_names"):
            names = fitted(candidate, attribute)
            if names is not None and not callable(names):
                return [str(name) for name in names], len(names)
        if library(candidate) == "lightgbm":
            names = (
                candidate.feature_name() if hasattr(candidate, "feature_name") else candidate.feature_name_
            )
            return list(names), len(names)
        count = count if count is not None else _count(candidate)
    return None, count


def _first_member(members: Any) -> Any:
    """Return the first of an ensemble's members: a list or an array of them, whose members may be Pipelines."""
    while isinstance(members, list | tuple | np.ndarray):
        members = members[0] if len(members) else None
    return members


def _count(model: Any) -> int | None:
    found = fitted(model, "n_features_in_")
    if found is None and hasattr(model, "num_features") and library(model) == "xgboost":
        found = model.num_features()
    return None if found is None else int(found)


def _positional(names: list[str], given: set[str]) -> bool:
    """Return whether the names are the ones LightGBM (Column_0) and CatBoost (0) invent for arrays."""
    invented = ([f"Column_{k}" for k in range(len(names))], [str(k) for k in range(len(names))])
    return names in invented and not set(names) <= given


def _respelled(names: list[str], given: set[str]) -> list[str]:
    """Return names as the frame spells them: LightGBM stores spaces as underscores."""
    stored = {label.replace(" ", "_"): label for label in given}
    return [name if name in given else stored.get(name, name) for name in names]


# --- MLflow pyfunc models and callables


def _pyfunc(model: Any, *, frame: pd.DataFrame, config: Config) -> tuple[Abilities, Columns]:
    """Open a pyfunc model where it lets us (its ``predict`` gives labels); otherwise ask its ``predict``."""
    schema = model.metadata.get_input_schema() if getattr(model, "metadata", None) is not None else None
    names = _signature_names(schema, frame) if schema is not None and schema.has_input_names() else None
    try:
        raw = unwrapped(model.get_raw_model())
    except NotImplementedError:  # MLflow's answer for flavors that hold no single native object
        raw = None
    if raw is not None and (is_pipeline(raw) or is_booster(raw) or is_estimator(raw)):
        columns = columns_of(raw, frame if names is None else _narrowed(frame, raw, names))
        return _abilities(raw, columns, frame=frame, config=config), columns
    columns = named_columns(frame, names) if names else counted_columns(frame, None, container="frame")
    return _asked(model.predict, columns, frame=frame, config=config, name="the pyfunc model", classes=None)


def _signature_names(schema: Any, frame: pd.DataFrame) -> list[str]:
    """Return the signature's column names without optional ones that the rows lack."""
    given, optional = set(text_labels(frame)), set(schema.optional_input_names())
    return [name for name in schema.input_names() if name in given or name not in optional]


def _narrowed(frame: pd.DataFrame, raw: Any, names: list[str]) -> pd.DataFrame:
    """Return only the signature's columns, for a model that does not know its columns itself."""
    first = (flat_steps(raw)[0] or [raw])[0]
    return frame if _names_and_count(raw, first)[0] is not None else select(frame, names)


def _callable(model: Any, *, frame: pd.DataFrame, config: Config) -> tuple[Abilities, Columns]:
    owner = unwrapped(model.__self__) if inspect.ismethod(model) else None
    name = str(getattr(model, "__name__", type(model).__name__))
    name = "callable" if name.startswith("<") else name  # a lambda has no name
    columns = counted_columns(frame, None, container="frame")
    if owner is not None and (is_pipeline(owner) or is_booster(owner) or is_estimator(owner)):
        columns = columns_of(owner, frame)
        if model.__name__ in QUESTIONS and _understood(owner):
            found = _abilities(owner, columns, frame=frame, config=config)
            if not (found.kind == "regressor" and config.task == "binary"):
                asked = replace(found, preferred="margin") if model.__name__ == "decision_function" else found
                return asked, columns
    call, classes = model, None
    if not inspect.isroutine(model):
        for question in ("predict_proba", "predict"):
            if hasattr(model, question):
                call, classes = getattr(model, question), fitted(model, "classes_")
                break
    if not callable(call):
        msg = (
            "Argument model must be a fitted model, an MLflow pyfunc model or a callable, got "
            f"{type(model).__name__}, which has no predict; give a callable that takes rows and returns a number, or a row "
            "of numbers, for each."
        )
        raise InvalidInput(msg)
    return _asked(call, columns, frame=frame, config=config, name=name, classes=classes)


def _understood(model: Any) -> bool:
    """Return whether what a model, or the last step of a Pipeline, answers is known; else it is asked as a callable."""
    final = flat_steps(model)[1]
    return is_booster(final) or is_estimator(final)


def _asked(
    call: Any, columns: Columns, *, frame: pd.DataFrame, config: Config, name: str, classes: Any
) -> tuple[Abilities, Columns]:
    taken, answer = probe(call, columns, frame=frame, name=name)
    return callable_abilities(call, answer, config=config, name=name, classes=classes), taken
