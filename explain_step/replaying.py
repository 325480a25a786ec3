"""Replay: recompute everything that a snapshot holds, and compare the tables by the tolerances it recorded."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from explain_step import snapshot, tracking
from explain_step.compute import Explanation
from explain_step.config import Config
from explain_step.errors import ExplainStepError, InvalidInput, SnapshotError
from explain_step.frames import to_frame
from explain_step.gate import load_policy
from explain_step.replay_comparing import compared, differences
from explain_step.replay_recreate import replay_recreated
from explain_step.replay_result import Given, Replay, not_replayable, recorded_uri
from explain_step.spark_frames import is_spark
from explain_step.step import computed, write_snapshot
from explain_step.tracking.checked import CheckedModel, copied_model

if TYPE_CHECKING:
    from explain_step.gate import Policy
    from explain_step.snapshot import ModelRef, Snapshot

UNHURRIED = 1e7
"""Seconds: a recording that no budget cut is recomputed without one, so that a slow machine cuts nothing."""


def replay(
    source: str | Path,
    *,
    data: Any = None,
    y: Any = None,
    background: Any = None,
    sample_weight: Any = None,
    model: Any = None,
    config: Mapping[str, Any] | Config | str | Path | None = None,
    policy: Policy | Mapping[str, Any] | str | Path | None = None,
    env: Literal["current", "recreate"] = "current",
    wheels: str | Path | None = None,
    figures: bool = True,
    tracking_uri: str | None = None,
) -> Replay:
    """Recompute an explanation and compare every table with the stored one.

    Parameters
    ----------
    source : path or str
        A snapshot directory, ``runs:/<id>``, ``models:/name/3``, ``models:/name@alias``, ``models:/m-<id>``.
    data : frame-like of n rows, optional
        The explained rows, as they were given. Default: the file that the snapshot names as its source, where it is
        there. A snapshot itself holds no rows.
    y : array-like of n labels or column name, optional
        Default: the recorded target, where it is a column of ``data``.
    background : frame-like, optional
        Needed where background rows were given to the recording.
    sample_weight : array-like of n weights or column name, optional
        Needed where weights were given.
    model : object, URI or directory, optional
        Default: the logged model that the snapshot names. Files are digested before they are loaded; a format that
        runs code is loaded only where the digest is the recorded one.
    config : Config, mapping or path, optional
        Default: the recorded options. Others are reported as differing.
    policy : Policy, mapping or path, optional
        Both sides are judged by it, integrity apart; a changed verdict makes the replay ``different``. Default: the
        built-in policy.
    env : {"current", "recreate"}
        ``recreate``: build the recorded environment with ``uv`` and replay inside.
    wheels : path, optional
        With ``recreate``: a folder of wheels; nothing is downloaded then.
    figures : bool
        Draw figures and pages too and tell which have other bytes. Tables are compared in any case.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Returns
    -------
    Replay
        ``.verdict``, ``.tables``, ``.inputs``, ``.reason``. What cannot be recomputed is ``not_replayable`` with the
        reason, not an error.

    Raises
    ------
    SnapshotError
        There is no snapshot, or its bytes do not verify: then nothing is recomputed.
    InvalidInput
        An argument breaks a rule.

    Examples
    --------
    >>> import tempfile, pandas as pd, explain_step
    >>> from sklearn.linear_model import LinearRegression
    >>> X = pd.DataFrame({"income": [1.0, 2, 3, 4, 5, 6] * 5, "debt": [1.0, 0, 2] * 10})
    >>> model = LinearRegression().fit(X, X["income"] - X["debt"])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     shot = explain_step.explain(model, X, directory=folder)
    ...     replay(shot.path, data=X, model=model).verdict
    'identical'
    """
    if env not in ("current", "recreate"):
        msg = f"Argument env must be 'current' or 'recreate', got {env!r}."
        raise InvalidInput(msg)
    if wheels is not None and env != "recreate":
        msg = "Argument wheels belongs to env='recreate'; leave it out, or recreate the environment."
        raise InvalidInput(msg)
    load_policy(policy)  # a policy that breaks its schema is told before the work
    given = Given(
        data=data,
        y=y,
        background=background,
        sample_weight=sample_weight,
        model=model,
        config=config,
        policy=policy,
        figures=figures,
        tracking_uri=tracking_uri,
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="explain_step_replay_")))
        path = tracking.fetch(source, tracking_uri=tracking_uri, destination=folder / "snapshot")
        check_bytes(path)
        shot = snapshot.read_directory(path)
        if env == "recreate":
            return replay_recreated(
                shot, given, folder=folder, wheels=None if wheels is None else Path(wheels)
            )
        return replay_directory(shot, given, folder=folder)


def check_bytes(path: Path) -> None:
    """Raise `SnapshotError` unless a snapshot verifies: changed tables are not worth a recomputation."""
    wrong = [finding for finding in snapshot.verify_directory(path) if finding.verdict == "fail"]
    if wrong:
        msg = f"{str(path)!r} was not replayed, it does not verify: {wrong[0].code} {wrong[0].message}"
        raise SnapshotError(msg)


def replay_directory(shot: Snapshot, given: Given, *, folder: Path) -> Replay:
    """Recompute a verified snapshot in this process. ``folder`` is a temporary one for copies and results."""
    lacking = _lacking(shot, given)
    if lacking is not None:
        return not_replayable(shot, lacking)
    try:
        config, cut = _config(shot, given)
        model, digest, notes = _model(shot, given, folder=folder)
        with tracking.quiet_autologging():
            explanation = _compute(shot, given, model=model, config=config, cut=cut)
            again = write_snapshot(
                explanation, ref=_ref(shot, digest), directory=folder / "replayed", draw=given.figures
            )
    except ExplainStepError as error:
        return not_replayable(shot, str(error))
    model_class = explanation.subject.model.model_class
    found = tuple(differences(shot, again, model_class=model_class, digest=digest))
    return compared(
        shot, again, found=found, notes=notes, given_policy=given.policy, digested=digest is not None
    )


# --- what is needed


def _lacking(shot: Snapshot, given: Given) -> str | None:
    """Say which input is needed and not there."""
    data = shot.manifest["data"]
    if given.data is None and _source(shot) is None:
        return "a snapshot holds no rows; give the explained ones (data=, --data)"
    themselves = data.get("background_digest") == data.get("digest") or "themselves" in str(
        data.get("background")
    )
    if given.background is None and not themselves:
        return f"the rows were compared with {data.get('background')}; give these (background=, --background)"
    if given.sample_weight is None and data.get("weights_digest") is not None:
        return "the rows had weights; give them (sample_weight=, --sample-weight)"
    return None


def _source(shot: Snapshot) -> Path | None:
    """Return the file that the recording names as its source, where it is a file here."""
    dataset = (shot.manifest["data"].get("origin") or {}).get("dataset") or {}
    named = dataset.get("source")
    if not isinstance(named, str) or not named.lower().endswith((".parquet", ".csv", ".feather")):
        return None
    return Path(named) if Path(named).is_file() else None


def _config(shot: Snapshot, given: Given) -> tuple[Config, bool]:
    """Return the options of the recomputation, and whether a budget or a fallback shaped the recording."""
    from explain_step.config import load

    config = Config.parse(shot.manifest["config"]) if given.config is None else load(given.config, {})[0]
    methods = shot.manifest["methods"]
    cut = any(method.get("budget") for method in methods) or any(
        caveat.code.endswith("_budget") or caveat.code in ("budget_cut", "explainer_fallback")
        for caveat in shot.caveats
    )
    return config, cut


def _model(shot: Snapshot, given: Given, *, folder: Path) -> tuple[Any, str | None, tuple[str, ...]]:
    """Return the model, the digest of its files where they were read, and what a reader must know about it."""
    wanted = given.model if given.model is not None else recorded_uri(shot)
    if wanted is None:
        msg = "the snapshot names no logged model; give the fitted model (model=, --model)"
        raise SnapshotError(msg)
    if not isinstance(wanted, str | Path):
        return wanted, None, ("the model was given by the caller as an object; its files were not compared",)
    copy: CheckedModel = copied_model(wanted, destination=folder / "model", tracking_uri=given.tracking_uri)
    if shot.model.digest is None:
        return copy.load(None), None, ("the snapshot has no digest of the model's files to compare with",)
    return copy.load(shot.model.digest), copy.digest, ()


def _ref(shot: Snapshot, digest: str | None) -> ModelRef:
    return shot.model if digest is None else replace(shot.model, digest=digest)


def _compute(shot: Snapshot, given: Given, *, model: Any, config: Config, cut: bool) -> Explanation:
    unhurried = config if cut else config.model_copy(update={"budget": max(config.budget, UNHURRIED)})
    data = given.data if given.data is not None else str(_source(shot))
    frame: Any = data if is_spark(data) else to_frame(data, argument="data")
    recorded = shot.manifest["data"]
    y = given.y
    if y is None and recorded.get("labels_digest") is not None:
        y = recorded.get("target") or None
        if y not in frame.columns:
            msg = f"the rows had labels ({y or 'without a name'}); give them (y=, --target)"
            raise SnapshotError(msg)
    made = computed(
        model, frame, y, config=unhurried, background=given.background, sample_weight=given.sample_weight
    )
    return replace(made, config=config)
