"""An MLflow evaluator: ``mlflow.models.evaluate(..., evaluators=["explain_step"])`` gives a snapshot.

MLflow imports this module by itself (entry point ``mlflow.model_evaluator``) and wants a subclass of its
``ModelEvaluator``: that is why MLflow is imported at the top, here and in no other module of this room's kind. It
happens while MLflow itself is being imported, so everything else is imported on use.
"""

from __future__ import annotations

import io
import json
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow.models.evaluation.base import EvaluationArtifact, EvaluationResult, ModelEvaluator

from explain_step.errors import InvalidInput

if TYPE_CHECKING:
    from explain_step.tracking import Asked, LoggedSnapshot

__all__ = ["ExplainStepEvaluator", "SnapshotFile"]

logger = logging.getLogger("explain_step.evaluator")

NAME = "explain_step"
TASKS = ("classifier", "regressor")
SWITCH = "log_model_explainability"
"""MLflow's own option that turns explanations off; it turns ours off too."""
ALIASES = {"pos_label": "positive_class", "sample_weights": "sample_weight"}
"""Options of MLflow's evaluators that mean the same as ours."""
FOREIGN = {
    *(SWITCH, "explainability_algorithm", "explainability_nsamples", "explainability_kernel_link"),
    *("max_classes_for_multiclass_roc_pr", "metric_prefix", "log_metrics_with_dataset_info", "average"),
    *("label_list", "log_explainer", "ignore_exceptions", "col_mapping", "eval_results_path"),
    "eval_results_mode",
}
"""Options of MLflow's evaluators that say nothing to us: a flat config without evaluators= reaches everyone."""
SHOWN = {".html", ".md", ".json", ".png", ".parquet"}
EXPLAINED, COMPLETE = "explain_step/explained", "explain_step/complete"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What an ``evaluator_config`` asks for."""

    options: Mapping[str, Any]
    config: Any = None
    on_error: Any = "mark"


class ExplainStepEvaluator(ModelEvaluator):  # type: ignore[misc]
    """Explain the evaluated model on the evaluated rows, and log the snapshot as `log_explanations` does.

    Notes
    -----
    ``evaluator_config`` holds the keys of `explain_step.Config`, ``background``, ``sample_weight``, ``config`` (a
    file or mapping) and ``on_error``. The evidence goes to the logged model that MLflow links the evaluation with;
    a plain function has none, and its evidence stays with the run.

    Examples
    --------
    >>> import mlflow  # doctest: +SKIP
    >>> mlflow.models.evaluate(  # doctest: +SKIP
    ...     "models:/mortgage/3",
    ...     test,
    ...     targets="deny",
    ...     model_type="classifier",
    ...     evaluators=["default", "explain_step"],
    ...     evaluator_config={"explain_step": {"segments": ["afam"], "background": X_train}},
    ... )
    """

    @classmethod
    def can_evaluate(
        cls, *, model_type: str | None, evaluator_config: Mapping[str, Any] | None, **kwargs: Any
    ) -> bool:
        """Tell whether there is something to explain: a classifier or a regressor, not turned off."""
        return model_type in TASKS and (evaluator_config or {}).get(SWITCH, True) is not False

    def evaluate(
        self,
        *,
        model_type: str,
        dataset: Any,
        run_id: str,
        evaluator_config: Mapping[str, Any] | None,
        model: Any = None,
        model_id: str | None = None,
        **kwargs: Any,
    ) -> EvaluationResult | None:
        """Explain, log, and return importances, scores and performance, and the files of the snapshot.

        Parameters
        ----------
        model_type : {"classifier", "regressor"}
        dataset : mlflow.data.evaluation_dataset.EvaluationDataset
        run_id : str
            The run that MLflow evaluates in.
        evaluator_config : mapping, optional
        model : PyFuncModel or MLflow's wrapper of a function, optional
            Without a model (a table of predictions) nothing is explained, and None is returned.
        model_id : str, optional
            The logged model that MLflow links the evaluation with.

        Returns
        -------
        EvaluationResult or None
            ``explain_step/explained`` and ``explain_step/complete`` are 0.0 when the step failed.

        Raises
        ------
        ExplainStepError, MlflowException
            Only with ``on_error="raise"``.
        """
        from explain_step.step import log_to

        request = read_config(evaluator_config)
        if model is None:
            _say_nothing(request)
            return None
        logged = log_to(
            lambda: asked_by(model, run_id=run_id, model_id=model_id),
            _explained(model),
            _rows(dataset),
            _labels(dataset),
            config=request.config,
            on_error=request.on_error,
            options=with_task(request.options, dataset, model=model, model_type=model_type),
        )
        found = result(logged, run_id=run_id)
        if model_id is None:  # then MLflow logs no metric, and the step has logged all but these two
            _log_flags(found.metrics, logged=logged, run_id=run_id)
        return found


def read_config(evaluator_config: Mapping[str, Any] | None) -> Request:
    """Sort an ``evaluator_config`` into ours, MLflow's synonyms and MLflow's options that do not concern us.

    Examples
    --------
    >>> read_config({"pos_label": "yes", "segments": "sex", "explainability_nsamples": 9}).options
    {'segments': 'sex', 'positive_class': 'yes'}
    """
    given = dict(evaluator_config or {})
    rest = {"config": given.pop("config", None), "on_error": given.pop("on_error", "mark")}
    synonyms = {ours: given.pop(theirs) for theirs, ours in ALIASES.items() if given.get(theirs) is not None}
    options = {key: value for key, value in given.items() if key not in FOREIGN and key not in ALIASES}
    return Request(options={**options, **{k: v for k, v in synonyms.items() if k not in options}}, **rest)


def _say_nothing(request: Request) -> None:
    text = (
        "there is no model in this evaluation, only a column of predictions, so nothing can be explained; pass "
        "model=... (a models:/ URI or a pyfunc model) to mlflow.models.evaluate"
    )
    if request.on_error == "raise":
        msg = f"Argument model must be given: {text}."
        raise InvalidInput(msg)
    logger.warning("explain_step: %s", text)


def asked_by(model: Any, *, run_id: str, model_id: str | None) -> Asked:
    """Return what an evaluation explains.

    The model's own id comes first: MLflow's argument may be the active model, which another call has set.
    """
    from explain_step import tracking

    found = getattr(model, "model_id", None) or model_id
    return tracking.Asked(run_id=run_id, model_uri=f"models:/{found}" if found else None, run_only=not found)


def is_function(model: Any) -> bool:
    """Return whether MLflow wrapped a function or an endpoint, which it gives no metadata."""
    return not hasattr(model, "metadata")


def _explained(model: Any) -> Any:
    """Return what is explained: a pyfunc is opened later where it lets us, a function is asked as it is."""
    if not is_function(model):
        return model

    def function(rows: Any) -> Any:
        return model.predict(rows)

    return function


def _rows(dataset: Any) -> Any:
    """Return the evaluated rows; arrays get names only where the user gave some."""
    import pandas as pd

    rows, names = dataset.features_data, list(dataset.feature_names)
    if isinstance(rows, pd.DataFrame) or names == _made_up(len(names)):
        return rows
    return pd.DataFrame(rows, columns=names)


def _made_up(count: int) -> list[str]:
    """Return the names that MLflow invents for the columns of an array."""
    digits = len(str(count))
    return [f"feature_{i + 1:0{digits}d}" for i in range(count)]


def _labels(dataset: Any) -> Any:
    """Return the labels with their name and the rows' index."""
    import pandas as pd

    labels, rows = dataset.labels_data, dataset.features_data
    if labels is None or getattr(labels, "ndim", 1) != 1:
        return labels
    index = rows.index if isinstance(rows, pd.DataFrame) else None
    return pd.Series(labels, index=index, name=dataset.targets_name)


def with_task(options: Mapping[str, Any], dataset: Any, *, model: Any, model_type: str) -> Mapping[str, Any]:
    """Return the options with the task that ``model_type`` states, where the model itself cannot say it."""
    if "task" in options or (model_type == "classifier" and not is_function(model)):
        return options
    if model_type == "regressor":
        return {**options, "task": "regression"}
    import pandas as pd

    levels = pd.Series(dataset.labels_data).nunique()
    return {**options, "task": "binary" if levels <= 2 else "multiclass"}


def result(logged: LoggedSnapshot, *, run_id: str) -> EvaluationResult:
    """Return MLflow's result object for a logged snapshot, and remove the local copy."""
    from explain_step.tracking.marks import metrics_of

    there = logged.snapshot is not None
    metrics = {EXPLAINED: float(there), COMPLETE: float(logged.status == "complete")}
    if logged.snapshot is None:
        return EvaluationResult(metrics=metrics, artifacts={}, run_id=run_id)
    root = Path(logged.snapshot.path)
    artifacts = artifacts_of(root, uri=str(logged.artifact_uri))
    shutil.rmtree(root.parent if root.parent.name.startswith("explain_step_") else root)
    return EvaluationResult(
        metrics={**metrics, **metrics_of(logged.snapshot.tables)}, artifacts=artifacts, run_id=run_id
    )


def _log_flags(metrics: Mapping[str, float], *, logged: LoggedSnapshot, run_id: str) -> None:
    """Log whether there is an explanation. An error is told, and costs neither the evaluation nor the training."""
    from mlflow.entities import Metric

    from explain_step.tracking.deadline import connect, within

    now = int(time.time() * 1000)
    flags = [Metric(key, metrics[key], now, 0, model_id=logged.model_id) for key in (EXPLAINED, COMPLETE)]
    try:
        with within():
            connect(None).log_batch(run_id, metrics=flags)
    except Exception as error:  # noqa: BLE001 - promise 1; stores raise types of their own
        logger.warning("explain_step: the metrics %s and %s were not logged: %s", EXPLAINED, COMPLETE, error)


def artifacts_of(root: Path, *, uri: str) -> dict[str, SnapshotFile]:
    """Return the files of a snapshot under their path without its ending: ``explain_step/tables/importance``."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if path.suffix in SHOWN and name.parts[0] != "provenance":
            artifact = SnapshotFile(uri=f"{uri}/{name.as_posix()}")
            artifact._load(str(path))
            found[f"{NAME}/{name.with_suffix('').as_posix()}"] = artifact
    return found


class SnapshotFile(EvaluationArtifact):  # type: ignore[misc]
    """A file of a snapshot in an `mlflow.models.EvaluationResult`; saved byte for byte, so that it still verifies.

    Attributes
    ----------
    content : str, dict, DataFrame or PIL.Image
        The page or card as text, JSON as values, a table, a figure.
    uri : str
        Place of the file in MLflow.
    """

    def __init__(self, uri: str, content: Any = None) -> None:
        super().__init__(uri=uri, content=content)
        self._bytes: bytes | None = None

    def _load_content_from_file(self, local_artifact_path: str) -> Any:
        self._bytes = Path(local_artifact_path).read_bytes()
        return parsed(self._bytes, suffix=Path(local_artifact_path).suffix)

    def _save(self, output_artifact_path: str) -> None:
        if self._bytes is None:
            self._load()
        Path(output_artifact_path).write_bytes(self._bytes or b"")


def parsed(data: bytes, *, suffix: str) -> Any:
    """Return the bytes of a file as what its ending says."""
    if suffix == ".parquet":
        from explain_step.snapshot.tables import read_parquet

        return read_parquet(data)
    if suffix == ".png":
        from PIL import Image

        return Image.open(io.BytesIO(data))
    text = data.decode("utf-8")
    return json.loads(text) if suffix == ".json" else text
