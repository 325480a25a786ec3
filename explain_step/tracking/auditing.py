"""Audit what is stored: which runs, models, versions and aliases are explained, whatever their tags say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from explain_step.errors import InvalidInput
from explain_step.gate import Policy, load_policy
from explain_step.tracking.audit_marks import mark_row
from explain_step.tracking.audit_places import idle_waivers
from explain_step.tracking.audit_registry import audit_registry
from explain_step.tracking.audit_rows import Row
from explain_step.tracking.audit_runs import Means, audit_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient

THREADS = 8
"""Artifact stores are waited for, not computed: more than the processors, few enough for a small server."""
COLUMNS = (
    *("kind", "name", "label", "status", "tag_status", "verdict", "codes", "problem", "reason"),
    *("snapshot_id", "verified", "verified_at", "run_status", "experiment_id", "run_id", "model_id"),
    *("registered_model", "version", "change"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scope:
    """What is looked at: experiments and registered models by name (experiments also by id), or everything."""

    experiments: tuple[str, ...] = ()
    registered_models: tuple[str, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing is named."""
        return not self.experiments and not self.registered_models


def audit(
    *,
    experiments: str | Sequence[str] = (),
    registered_models: str | Sequence[str] = (),
    policy: Policy | Mapping[str, Any] | str | Path | None = None,
    full: bool = False,
    mark: bool = False,
    fail_runs: bool = False,
    dry_run: bool = False,
    tracking_uri: str | None = None,
    now: datetime | None = None,
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """List runs, logged models, registered versions and aliases with the status that their evidence gives.

    Parameters
    ----------
    experiments : str or sequence of str
        Names or ids: their runs, logged models, and the versions of these.
    registered_models : str or sequence of str
        Their versions and aliases. With neither, everything is audited.
    policy : Policy, mapping, path, optional
        Says what is protected and what a protected version has to prove. Default: the built-in policy.
    full : bool
        Runs, logged models and unprotected versions: False checks the manifest's seal, its owner, and presence
        and size of every file; True checks every byte and the digest of the model's files. A version in a
        protected place is always checked in full.
    mark : bool
        Write the derived status and reason to the tags that say otherwise.
    fail_runs : bool
        With ``mark``: set the status of runs that finished unexplained to ``FAILED``.
    dry_run : bool
        Write nothing; the column ``change`` says what would be written.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.
    now : datetime, optional
        The moment that ages and waivers are held against. Default: the current time.
    progress : callable, optional
        Called with the number of objects that were looked at.

    Returns
    -------
    DataFrame
        One row per object. ``kind``: run, nested run, model, version, alias, stage, registered model, waiver.
        ``status``: complete, degraded, incomplete, failed, waived, ``not_applicable`` (nothing to explain) or
        ``undecided`` (not readable). ``tag_status``: what the tag says. ``verdict``: pass, fail, undecided or
        not_applicable. ``codes`` and ``problem``: the findings (``AUD001`` …). ``verified``: ``bytes``,
        ``manifest`` or empty; ``verified_at``: when.

    Raises
    ------
    InvalidInput
        There is no such experiment or registered model, or the policy breaks its schema.

    Examples
    --------
    >>> import explain_step  # doctest: +SKIP
    >>> found = explain_step.audit(experiments="mortgage", policy="policy.yaml")  # doctest: +SKIP
    >>> found[found.verdict == "fail"][["kind", "name", "problem"]]  # doctest: +SKIP
    """
    if fail_runs and not mark:
        msg = "Argument fail_runs=True needs mark=True: without it nothing is written."
        raise InvalidInput(msg)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=tracking_uri)
    moment = now or datetime.now(UTC)
    scope = Scope(experiments=_names(experiments), registered_models=_names(registered_models))
    rows: Iterable[Row] = examine(
        scope, client=client, policy=load_policy(policy), full=full, now=moment, progress=progress
    )
    if mark:
        rows = [mark_row(row, client=client, fail_runs=fail_runs, dry_run=dry_run) for row in rows]
    return frame(rows, at=moment)


def _names(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)


def examine(
    scope: Scope,
    *,
    client: MlflowClient,
    policy: Policy,
    now: datetime,
    full: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[Row]:
    """Return the rows of an audit; `audit` says what they mean."""
    rows: list[Row] = []
    with ThreadPoolExecutor(THREADS, thread_name_prefix="explain_step_audit") as pool:
        means = Means(client=client, pool=pool, full=full, tick=progress or _quiet)
        for experiment_id in _experiments(client, scope):
            rows.extend(audit_experiment(experiment_id, means=means))
        known = {row.model_id: row for row in rows if row.kind == "model" and row.model_id is not None}
        for names, only in _registry_parts(scope, rows):
            rows.extend(audit_registry(names, policy=policy, now=now, known=known, only=only, means=means))
    return [*rows, *idle_waivers(policy, now=now)]


def _quiet(_: int) -> None:
    """Show no progress."""


Part = tuple[Sequence[str] | None, tuple[frozenset[str], frozenset[str]] | None]


def _registry_parts(scope: Scope, rows: Sequence[Row]) -> Iterator[Part]:
    """Yield which registered models are read, and which of their versions are meant."""
    if scope.everything:
        yield None, None
        return
    if scope.registered_models:
        yield scope.registered_models, None
    if scope.experiments:
        runs = frozenset(row.name for row in rows if row.kind in ("run", "nested run"))
        models = frozenset(str(row.model_id) for row in rows if row.kind == "model")
        yield None, (runs, models)


def _experiments(client: Any, scope: Scope) -> Iterator[str]:
    if not scope.everything:
        yield from dict.fromkeys(_experiment_id(client, given) for given in scope.experiments)
        return
    token = None
    while True:
        page = client.search_experiments(page_token=token)
        yield from (str(e.experiment_id) for e in page)
        token = page.token
        if not token:
            return


def _experiment_id(client: Any, given: str) -> str:
    from mlflow.exceptions import MlflowException

    named = client.get_experiment_by_name(given)
    if named is not None:
        return str(named.experiment_id)
    try:
        return str(client.get_experiment(given).experiment_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        msg = f"Argument experiments must be names or ids of experiments; there is no {given!r}."
        raise InvalidInput(msg) from error


def frame(rows: Iterable[Row], *, at: datetime) -> pd.DataFrame:
    """Return rows as the table that `audit` describes."""
    moment = at.isoformat(timespec="seconds")
    return pd.DataFrame([_plain(row, moment) for row in rows], columns=list(COLUMNS), dtype=object)


def _plain(row: Row, moment: str) -> dict[str, Any]:
    told = [f for f in row.findings if f.verdict != "pass"]
    name, version = row.version or (None, None)
    return {
        "kind": row.kind,
        "name": row.name,
        "label": row.label,
        "status": row.status,
        "tag_status": row.tag_status,
        "verdict": row.verdict,
        "codes": " ".join(dict.fromkeys(f.code for f in told)),
        "problem": "; ".join(f.message for f in told),
        "reason": row.reason,
        "snapshot_id": row.snapshot_id,
        "verified": row.verified,
        "verified_at": moment if row.verified else None,
        "run_status": row.run_status,
        "experiment_id": row.experiment_id,
        "run_id": row.run_id,
        "model_id": row.model_id,
        "registered_model": name,
        "version": version,
        "change": row.change,
    }
