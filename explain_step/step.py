"""The step: wrap, attribute, build, score, draw, write; and, with MLflow, resolve, mark, bind, upload. Read this first.

::

    model + rows ─▶ compute() ─▶ status ─▶ figures, page, card ─▶ snapshot directory ─▶ MLflow
"""

from __future__ import annotations

import errno
import gc
import logging
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from explain_step import config as config_room
from explain_step import plots, privacy, report, snapshot, tracking
from explain_step.aside import Aside
from explain_step.compute import Explanation, Helper, compute, described, judge
from explain_step.dataset import described as described_dataset
from explain_step.dataset import purpose
from explain_step.errors import InvalidInput, SnapshotError
from explain_step.pages import page_context
from explain_step.spark_frames import is_spark
from explain_step.tracking import LoggedSnapshot, training_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from explain_step.config import Config
    from explain_step.snapshot import ModelRef, Snapshot
    from explain_step.tracking import Asked
    from explain_step.types import Finding

__all__ = ["explain", "log_explanations", "read", "training_run", "verify"]

logger = logging.getLogger("explain_step")
FROZEN_BY_PYTHON = 10_000
"""Objects that an interpreter may have frozen before any caller did: 375 in Python 3.12."""


def explain(
    model: Any,
    X: Any,
    y: Any = None,
    *,
    config: Config | dict[str, Any] | str | Path | None = None,
    directory: str | Path | None = None,
    tracking_uri: str | None = None,
    allow_pickle: bool = False,
    **options: Any,
) -> Snapshot:
    """Explain a fitted model on held-out rows and write the snapshot to a directory; nothing is logged to MLflow.

    Parameters
    ----------
    model : object or str
        Fitted estimator, Pipeline, booster, MLflow pyfunc model, any ``predict`` callable, or a ``models:/…`` or
        ``runs:/…`` URI, whose model is loaded.
    X : frame-like of shape (n, features)
        Held-out rows: pandas, polars, Arrow, a Parquet or CSV path, an MLflow dataset, or a Spark DataFrame, whose rows
        are explained on its executors (``docs/scale.md``). Columns that the model does not read can be used for segments.
    y : array-like of n labels, or name of a column of ``X``, optional
        Without labels performance and correct/incorrect examples are missing and the status is ``degraded``.
    config : Config, mapping or path of a YAML/JSON file, optional
        Options; keyword options win over it.
    directory : path, optional
        Parent folder of the snapshot. Default: a new temporary folder.
    tracking_uri : str, optional
        MLflow tracking server that a URI is read from. Default: MLflow's current one. No global URI is changed.
    allow_pickle : bool
        Of a URI, also load formats that run code (pickles, custom pyfunc models). Refused otherwise: nobody has vouched for
        their bytes.
    **options
        The keys of `explain_step.Config`, and ``background`` (frame-like; the rows the model's outputs are compared
        with; default: the explained rows themselves), ``sample_weight``, ``dataset`` (`explain_step.dataset.Dataset`:
        source, licence, split, …) and ``purpose`` (text); the last two are for the record and change no number.

    Returns
    -------
    Snapshot
        ``.id``, ``.status``, ``.tables``, ``.scores``, ``.path``; the page is ``.path / "report.html"``.

    Raises
    ------
    InvalidInput
        An argument breaks a rule; the message names argument, rule, value and remedy.
    PredictionFailed
        The model raised, or returned something that cannot be explained.
    SnapshotError
        Loading the model of the URI would run code, and ``allow_pickle`` is false.

    Notes
    -----
    Attributions are interventional Shapley values (Lundberg and Lee 2017, arXiv:1705.07874; Janzing et al. 2020,
    arXiv:1910.13413) on the raw input columns, unless ``feature_perturbation`` asks for others. Everything random
    descends from ``seed``; the global NumPy generator is left as found. The same inputs give the same snapshot id.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> from sklearn.linear_model import LinearRegression
    >>> X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["income", "debt"])
    >>> y = X["income"] - 2 * X["debt"]
    >>> shot = explain(LinearRegression().fit(X, y), X, y)
    >>> shot.tables["importance"].sort_values("mean_abs_shap")["feature"].iloc[-1]
    'debt'
    """
    parsed, data = config_room.load(config, options)
    said = _said(data)
    target = None
    with _passed_over(), tracking.within(), _aside(parsed) as aside:
        if isinstance(model, str):
            target = tracking.find(
                tracking.asked_for(run_id=None, model_uri=model, tracking_uri=tracking_uri)
            )
            model = tracking.load_model(target, allow_pickle=allow_pickle)
        explanation = computed(model, X, y, config=parsed, helper=aside, **data)
        ref = snapshot.ModelRef(model_class=explanation.subject.model.model_class)
        if target is not None:
            ref = tracking.facts_of(target, subject=explanation.subject, config=parsed).ref
        return write_snapshot(explanation, ref=ref, directory=directory, said=said, aside=aside)


def log_explanations(
    model: Any = None,
    X: Any = None,
    y: Any = None,
    *,
    run_id: str | None = None,
    model_uri: str | None = None,
    config: Config | dict[str, Any] | str | Path | None = None,
    on_error: Literal["mark", "raise"] = "mark",
    tracking_uri: str | None = None,
    allow_pickle: bool = False,
    **options: Any,
) -> LoggedSnapshot:
    """Explain a model and log the snapshot to MLflow, under the logged model and the run, with status tags.

    Parameters
    ----------
    model : object or str
        As in `explain`; with a URI ``model_uri`` is not needed.
    X, y, config, **options
        As in `explain`.
    run_id : str, optional
        The run to log to. Default: the active run.
    model_uri : str, optional
        The logged model or registered version that is explained. Default: the run's logged model.
    on_error : {"mark", "raise"}
        ``"mark"``: whatever fails, the training run goes on; status ``failed`` and the reason are written to the tags
        and logged. ``"raise"``: the error is raised after marking. A snapshot that MLflow did not take in time is
        kept on this machine in both cases, and ``explain-step resume`` finishes it (see ``docs/how-to-resume.md``).
    tracking_uri : str, optional
        MLflow tracking server. Default: MLflow's current one. No global URI is changed.
    allow_pickle : bool
        As in `explain`.

    Returns
    -------
    LoggedSnapshot
        ``.status``, ``.reason``, ``.id``, ``.versions``, ``.run_uri``, ``.model_uri``; ``.snapshot`` is None when the
        step failed.

    Examples
    --------
    >>> import explain_step, mlflow  # doctest: +SKIP
    >>> with mlflow.start_run():  # doctest: +SKIP
    ...     mlflow.sklearn.log_model(model, name="model", registered_model_name="mortgage")
    ...     explain_step.log_explanations(model, X_test, y_test, segments=["afam"])
    """
    uri = model if isinstance(model, str) else model_uri
    return log_to(
        lambda: tracking.asked_for(run_id=run_id, model_uri=uri, tracking_uri=tracking_uri),
        None if isinstance(model, str) else model,
        X,
        y,
        config=config,
        on_error=on_error,
        options=options,
        allow_pickle=allow_pickle,
    )


def log_to(
    ask: Callable[[], Asked],
    model: Any,
    X: Any,
    y: Any,
    *,
    config: Config | dict[str, Any] | str | Path | None,
    on_error: Literal["mark", "raise"],
    options: Mapping[str, Any],
    allow_pickle: bool = False,
) -> LoggedSnapshot:
    """Do what `log_explanations` says for what ``ask`` returns; no model means the target's own.

    ``ask`` is called under the same guard as the rest: a training run is never lost to the explanation.
    """
    if on_error not in ("mark", "raise"):
        msg = f"Argument on_error must be 'mark' or 'raise', got {on_error!r}."
        raise InvalidInput(msg)
    target = parsed = None
    with (
        _passed_over(),
        tracking.within(),
        ExitStack() as stack,
    ):  # one deadline for all that is said to MLflow
        try:
            asked = ask()
            target = tracking.reach(asked, needed=model is None)
            with tracking.quiet_autologging():
                parsed, data = config_room.load(config, options)
                said = _said(data)
                if model is None and target is not None:
                    model = tracking.load_model(target, allow_pickle=allow_pickle)
                aside = stack.enter_context(_aside(parsed))
                explanation = computed(model, X, y, config=parsed, helper=aside, **data)
                facts = tracking.facts_of(target, subject=explanation.subject, config=parsed)
            written = write_snapshot(
                explanation,
                ref=facts.ref,
                directory=None,
                previous=facts.previous,
                said=said,
                aside=aside,
            )
        except Exception as error:  # promise 1: a training run is never lost to the explanation
            told = privacy.told(error, config=parsed)
            if on_error == "raise":
                tracking.mark_failure(target, error, said=told)
                raise
            marked = tracking.mark_failure(target, error, said=told)
            known = marked.run_id or marked.model_id
            where = f"{known} is marked 'failed'" if known else "there is no run to mark"
            logger.exception("explain_step: the model was not explained; %s", where)
            return marked
        return tracking.deliver(written, target, asked=asked, whole=facts.whole, on_error=on_error)


def read(source: str | Path, *, tracking_uri: str | None = None) -> Snapshot:
    """Read a snapshot from a directory, ``runs:/…``, ``models:/name/3`` or ``models:/name@alias``.

    What comes from a server lies in a temporary folder (``.path``), which is removed with the process.

    Raises
    ------
    SnapshotError
        There is no snapshot, or it cannot be read.
    """
    return snapshot.read_directory(tracking.fetch(source, tracking_uri=tracking_uri))


def verify(source: str | Path, *, tracking_uri: str | None = None) -> tuple[Finding, ...]:
    """Check every byte of a snapshot against its manifest; each missing, extra or changed file is a failing finding.

    Of a source in MLflow also the registry's digest of the manifest, and that the snapshot is that of the model. The
    ``evidence`` of a pass has the level of trust and what is lacking for the others.
    """
    return tracking.verify(source, tracking_uri=tracking_uri)


def computed(model: Any, X: Any, y: Any, *, helper: Helper | None = None, **options: Any) -> Explanation:
    """Explain rows in memory here, and those of Spark where they are."""
    held = getattr(X, "df", None)  # an MLflow dataset of a Spark DataFrame
    if is_spark(held):
        X, y = held, getattr(X, "targets", None) if y is None else y
    if not is_spark(X):
        return compute(model, X, y, helper=helper, **options)
    from explain_step import spark

    return spark.compute(model, X, y, **options)


@contextmanager
def _passed_over() -> Iterator[None]:
    """Let collections of garbage pass over what is there already: half a million objects of libraries take 0.3 s each time.

    A caller who has frozen objects himself keeps exactly those.
    """
    if gc.get_freeze_count() > FROZEN_BY_PYTHON:
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _aside(config: Config) -> Aside:
    return Aside(labels=config.feature_labels, record=partial(snapshot.surroundings, config))


def _said(data: dict[str, Any]) -> dict[str, Any]:
    """Take what is said about data and purpose out of the data-valued options; it changes no number."""
    return {
        "dataset": described_dataset(data.pop("dataset", None)),
        "purpose": purpose(data.pop("purpose", None)),
    }


def write_snapshot(
    explanation: Explanation,
    *,
    ref: ModelRef,
    directory: str | Path | None,
    previous: snapshot.Previous | None = None,
    draw: bool = True,
    said: Mapping[str, Any] | None = None,
    aside: Aside | None = None,
) -> Snapshot:
    """Judge an explanation, draw its figures and pages (``draw``), and write the snapshot to a directory.

    Figures and records that ``aside`` has are taken from there.
    """
    status, reason = judge(explanation)
    labels = explanation.config.feature_labels
    tables = {a.name: a for a in explanation.artifacts}
    figures = cache(lambda: plots.render(tables, labels=labels, drawing=aside) if draw else ())
    context = partial(page_context, explanation, ref=ref, status=status, reason=reason)
    page, card = report.writers(context, figures=figures) if draw else (None, None)
    parts = snapshot.SnapshotParts(
        model=ref,
        artifacts=explanation.artifacts,
        attributions=explanation.attributions,
        subject=explanation.subject,
        scores=explanation.scores,
        figures=figures,
        status=status,
        reason=reason,
        caveats=explanation.caveats,
        missing=explanation.missing,
        config=explanation.config,
        quantity=described(explanation),
        events=explanation.events,
        previous=previous,
        consumers=explanation.consumers,
        all_rows=explanation.all_rows,
        **(said or {}),
        surroundings=None if aside is None else aside.recorded(),
        page=page,
        card=card,
    )
    if directory is not None:
        return snapshot.write(directory, parts=parts)
    with _own_folder() as folder:
        return snapshot.write(folder, parts=parts)


@contextmanager
def _own_folder() -> Iterator[Path]:
    """Give a new temporary folder, which stays unless nothing came to be in it: a full disk, an interrupt."""
    folder = Path(tempfile.mkdtemp(prefix="explain_step_"))
    try:
        yield folder
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            msg = f"The snapshot could not be written to {folder.parent}: {error.strerror}. Set TMPDIR to a larger disk."
            raise SnapshotError(msg) from error
        raise
