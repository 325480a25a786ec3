"""Is the model in MLflow the one that was explained? Its digest, and a comparison of predictions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from explain_step import digests, privacy
from explain_step.errors import BindingError
from explain_step.tracking.autologging import quiet_autologging
from explain_step.tracking.loading import describe, load_native, model_files, private_files, unsafe
from explain_step.tracking.model_files import model_problem
from explain_step.types import FloatArray, Response

if TYPE_CHECKING:
    from explain_step.config import Config
    from explain_step.snapshot import ModelRef
    from explain_step.threads import Pace
    from explain_step.tracking.target import Target
    from explain_step.types import Subject

ROWS = 2_000
TOLERANCE = 1e-6
Bond = tuple[Literal["verified", "declared"], str]


def model_digest(target: Target) -> str | None:
    """Return the digest of every file of the logged model except its explanations; None without a model."""
    if target.model_location is None:
        return None
    with model_files(target) as directory:
        return digests.directory_digest(directory)


def binding(target: Target, X: pd.DataFrame, response: Response, *, config: Config | None = None) -> Bond:
    """Compare the logged model's answers on the explained rows with those that were explained.

    Parameters
    ----------
    target : Target
    X : DataFrame of n rows
        The explained rows, raw columns.
    response : Response
        The explained model's answer on them.
    config : Config, optional
        The step's options (output space, positive class).

    Returns
    -------
    tuple of str and str
        ``"verified"`` and what was compared, or ``"declared"`` and why nothing was: the model's format would
        run code when it is loaded, it does not load here, or its answers are of another kind.

    Raises
    ------
    BindingError
        The answers differ by more than 1e-6 (relative to values above one): another model was logged.
    """
    if target.model_location is None:
        return "declared", "the run has no logged model to compare with"
    with private_files(target) as directory:
        return bind(directory, X, response, config=config, name=str(target.model_uri))


def bind(
    directory: Path,
    X: pd.DataFrame,
    response: Response,
    *,
    config: Config | None,
    name: str,
    pace: Pace | None = None,
) -> Bond:
    """Do what `binding` says with the model files in a local directory; ``pace`` is the explained model's."""
    described = describe(directory)
    reason = unsafe(described) or model_problem(directory)
    if reason is not None:
        return "declared", f"the logged model was not loaded for a comparison: {reason}"
    rows = np.unique(np.linspace(0, len(X) - 1, num=min(len(X), ROWS), dtype=np.int64))
    try:
        with quiet_autologging():
            logged = _answer(
                load_native(directory, str(described.native)), X.iloc[rows], config=config, pace=pace
            )
    except Exception as error:  # noqa: BLE001 - a library of another version may raise anything; told to the reader
        return (
            "declared",
            f"the logged model could not be asked here: {privacy.told(error, config=config)[:200]}",
        )
    return _compare(logged, response.take(rows), rows=len(rows), name=name)


def _answer(model: Any, X: pd.DataFrame, *, config: Config | None, pace: Pace | None) -> Response:
    from explain_step.config import Config as Options
    from explain_step.models import wrap

    frame = X.reset_index(drop=True)
    return wrap(model, frame=frame, config=config or Options(), pace=pace).respond(frame)


def _compare(logged: Response, explained: Response, *, rows: int, name: str) -> Bond:
    for what, ours, theirs in _pairs(logged, explained):
        gap = _gap(ours, theirs)
        if gap <= TOLERANCE:
            exactly = "exactly " if gap == 0 else ""
            apart = f" (largest difference {gap:.1g} of their size)" if gap else ""
            return (
                "verified",
                f"the logged model gives {exactly}the same {what} on {rows} explained rows{apart}",
            )
        msg = (
            f"{name} is not the explained model: its {what} differ by up to {gap:.3g} times their size on {rows} "
            "rows. "
            "Log the model that is explained, or name the right one with model_uri=..."
        )
        raise BindingError(msg)
    return (
        "declared",
        "the logged model's answers are of another kind than the explained ones; nothing was compared",
    )


def _pairs(logged: Response, explained: Response) -> list[tuple[str, FloatArray, FloatArray]]:
    """Return what both sides have in the same shape, the most telling first."""
    pairs: list[tuple[str, FloatArray, FloatArray]] = []
    if logged.probability is not None and explained.probability is not None:
        if logged.probability.shape == explained.probability.shape:
            pairs.append(("class probabilities", logged.probability, explained.probability))
        return pairs
    bare = logged.probability is None and explained.probability is None
    if bare and logged.output.shape == explained.output.shape:
        pairs.append(("predictions", logged.output, explained.output))
    return pairs


def _gap(a: FloatArray, b: FloatArray) -> float:
    """Return the largest difference relative to the size of the second, each output for itself."""
    size = np.abs(b).max(axis=0, initial=0.0)
    gap = np.abs(np.asarray(a, dtype=np.float64) - b) / np.where(size > 0, size, 1.0)
    return float(np.max(gap)) if np.isfinite(gap).all() else float("inf")


def model_ref(target: Target, *, subject: Subject, config: Config | None = None) -> ModelRef:
    """Return which model was explained, its digest and how sure that is, for the manifest.

    Raises
    ------
    BindingError
        The logged model is another one than the explained.
    """
    from explain_step.snapshot import ModelRef

    name, version = target.versions[0] if target.versions else (None, None)
    bond: Bond = ("declared", "the run has no logged model to compare with")
    digest = None
    if target.model_location is not None:
        with private_files(target) as directory:
            digest = digests.directory_digest(directory)
            where = str(target.model_uri)
            bond = bind(
                directory, subject.X, subject.response, config=config, name=where, pace=subject.model.pace
            )
    return ModelRef(
        name=name,
        version=version,
        run_id=target.run_id,
        model_id=target.model_id,
        uri=target.model_uri,
        model_class=subject.model.model_class,
        digest=digest,
        binding=bond[0],
        binding_note=bond[1],
    )
