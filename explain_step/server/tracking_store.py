"""The tracking store behind the gate: runs, logged models and experiments that a protected version rests on stay."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from explain_step.gate import folded
from explain_step.server import client
from explain_step.server.judge import Judge
from explain_step.server.places import nested
from explain_step.server.protection import holders_of_model, holders_of_run
from explain_step.server.user import current_user
from explain_step.tracking.evidence import AUTHOR_TAG

GUARDED = frozenset(
    {
        "create_experiment",
        "create_run",
        "create_logged_model",
        "set_logged_model_tags",
        "delete_logged_model_tag",
        "delete_run",
        "delete_experiment",
        "delete_logged_model",
        "finalize_logged_model",
        "set_tag",
        "log_batch",
    }
)
"""Methods that are judged. Tags on runs and logged models are hints which nothing rests on, but for one: who
made the run (``mlflow.user``, and the tag that the server itself writes) decides who may review it."""
USER_TAG = "mlflow.user"
PAGE = 1_000


def guarding(builder: Callable[..., Any]) -> Callable[..., Any]:
    """Return a builder of tracking stores whose stores are guarded."""

    @functools.wraps(builder)
    def build(store_uri: str, artifact_uri: str | None = None) -> Any:
        return guarded(builder(store_uri, artifact_uri))

    return build


def guarded(store: Any) -> Any:
    """Put the guards before a tracking store of MLflow."""
    base = type(store)
    if not issubclass(base, TrackingGuards):
        store.__class__ = type(f"Guarded{base.__name__}", (TrackingGuards, base), {})
    return store


class TrackingGuards:
    """The guards, as a mixin before MLflow's store."""

    @property
    def judge(self) -> Judge:
        """The judge of the server's registry store."""
        found: Judge = client.registry_of_server().judge
        return found

    def create_experiment(
        self, name: str, artifact_location: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Refuse an experiment that would keep its models inside another model, run or trace."""
        judge = self.judge
        problem = None if not artifact_location else nested(artifact_location, deployment=judge.deployment)
        if problem is not None:
            judge.refuse("create experiment", f"experiment {name!r}: artifact location refused: {problem}.")
        return super().create_experiment(name, artifact_location, *args, **kwargs)  # type: ignore[misc]

    def create_run(self, experiment_id: str, user_id: str, start_time: int, tags: Any, run_name: str) -> Any:
        """Note who made a run, where the server knows it."""
        self._no_claim(tags)
        run = super().create_run(experiment_id, user_id, start_time, tags, run_name)  # type: ignore[misc]
        user = current_user()
        if user.authenticated:
            from mlflow.entities import RunTag

            super().set_tag(run.info.run_id, RunTag(AUTHOR_TAG, user.name))  # type: ignore[misc]
        return run

    def create_logged_model(self, *args: Any, **kwargs: Any) -> Any:
        """Note who made a logged model, where the server knows it: its source run may be anybody's."""
        for value in (*args, *kwargs.values()):
            self._no_claim(value if isinstance(value, list) else None)
        model = super().create_logged_model(*args, **kwargs)  # type: ignore[misc]
        user = current_user()
        if user.authenticated:
            from mlflow.entities import LoggedModelTag

            super().set_logged_model_tags(model.model_id, [LoggedModelTag(AUTHOR_TAG, user.name)])  # type: ignore[misc]
        return model

    def set_logged_model_tags(self, model_id: str, tags: Any) -> Any:
        """Keep who made a logged model."""
        self._no_claim(tags)
        return super().set_logged_model_tags(model_id, tags)  # type: ignore[misc]

    def delete_logged_model_tag(self, model_id: str, key: str) -> Any:
        """Keep who made a logged model."""
        self._no_claim_of(key)
        return super().delete_logged_model_tag(model_id, key)  # type: ignore[misc]

    def delete_run(self, run_id: str) -> Any:
        """Refuse while a protected version comes from the run; a promotion of this moment brings it back."""
        delete, restore = super().delete_run, super().restore_run  # type: ignore[misc]
        return self._gone(
            f"run {run_id}",
            lambda: self._holders_of_run(run_id),
            delete=lambda: delete(run_id),
            restore=lambda: restore(run_id),
        )

    def delete_experiment(self, experiment_id: str) -> Any:
        """Refuse while a protected version comes from one of its runs or models: they are deleted with it."""
        delete, restore = super().delete_experiment, super().restore_experiment  # type: ignore[misc]
        known = str(super().get_experiment(experiment_id).experiment_id)  # type: ignore[misc]  # 01 is 1 for the database
        return self._gone(
            f"experiment {known}",
            lambda: self._holders_of_experiment(known),
            delete=lambda: delete(experiment_id),
            restore=lambda: restore(experiment_id),
        )

    def delete_logged_model(self, model_id: str) -> Any:
        """Refuse while a protected version is this model."""
        judge, delete = self.judge, super().delete_logged_model  # type: ignore[misc]
        known = str(super().get_logged_model(model_id).model_id)  # type: ignore[misc]  # some ignore a blank at the end
        return self._gone(
            f"logged model {known}",
            lambda: holders_of_model(judge.registry, judge.policy(), known),
            delete=lambda: delete(model_id),
            restore=lambda: self._restore_logged_model(known),
        )

    def _restore_logged_model(self, model_id: str) -> None:
        """Take a deletion back; MLflow has no request for it."""
        from mlflow.store.tracking.dbmodels.models import SqlLoggedModel

        with self.ManagedSessionMaker(read_only=False) as session:  # type: ignore[attr-defined]
            query = session.query(SqlLoggedModel).filter(SqlLoggedModel.model_id == model_id)
            query.update({SqlLoggedModel.lifecycle_stage: "active"})

    def finalize_logged_model(self, model_id: str, status: Any) -> Any:
        """Refuse to reopen a finished model: its files could be changed and it be finished again."""
        if str(super().get_logged_model(model_id).status) == "READY" and str(status) != "READY":  # type: ignore[misc]
            text = f"logged model {model_id} is READY and stays so; log a new model instead."
            self.judge.refuse("finalize", text, model_id=model_id)
        return super().finalize_logged_model(model_id, status)  # type: ignore[misc]

    def set_tag(self, run_id: str, tag: Any) -> Any:
        """Keep who made a run."""
        self._keep_author(run_id, [tag])
        return super().set_tag(run_id, tag)  # type: ignore[misc]

    def log_batch(self, run_id: str, metrics: Any, params: Any, tags: Any) -> Any:
        """Keep who made a run."""
        self._keep_author(run_id, tags)
        return super().log_batch(run_id, metrics, params, tags)  # type: ignore[misc]

    def delete_tag(self, run_id: str, key: str) -> Any:
        """Keep who made a run."""
        self._no_claim_of(key)
        if folded(key) == USER_TAG:
            self.judge.refuse(
                "delete tag", f"run {run_id}: the tag {key!r} says who made it and stays.", run_id=run_id
            )
        return super().delete_tag(run_id, key)  # type: ignore[misc]

    def _gone(
        self,
        what: str,
        holders: Callable[[], list[str]],
        *,
        delete: Callable[[], Any],
        restore: Callable[[], Any],
    ) -> Any:
        """Delete what nothing holds; and bring it back where a promotion came to hold it meanwhile."""
        held = holders()
        self._keep(what, held)
        result = delete()
        try:
            self._keep(what, [] if held else holders())
        except Exception:
            restore()
            raise
        return result

    def _keep(self, what: str, held: list[str]) -> None:
        if held:
            first = (
                "Take the alias or stage away" if "registered model" not in held[0] else "Delete that version"
            )
            text = f"{what} may not be deleted: {held[0]}. {first} first."
            self.judge.refuse("delete", text, what=what)

    def _holders_of_run(self, run_id: str) -> list[str]:
        judge = self.judge
        return holders_of_run(judge.registry, judge.policy(), run_id)

    def _holders_of_experiment(self, experiment_id: str) -> list[str]:
        """Ask every protected version where it comes from: there are few of them and many runs."""
        from explain_step.server.protection import protected_versions

        judge = self.judge
        held = []
        for version, text in protected_versions(judge.registry, judge.policy()):
            if str(experiment_id) in self._experiments_of(version):
                held.append(text)
        return held

    def _experiments_of(self, version: Any) -> set[str]:
        """Return the experiments of a version's run and logged model, as far as they are still there."""
        run, model = super().get_run, super().get_logged_model  # type: ignore[misc]
        found = []
        if version.run_id:
            found.append(_unless_gone(lambda: run(version.run_id).info.experiment_id))
        if version.model_id is not None:
            found.append(_unless_gone(lambda: model(version.model_id, allow_deleted=True).experiment_id))
        return {str(number) for number in found if number is not None}

    def _keep_author(self, run_id: str, tags: Any) -> None:
        self._no_claim(tags)
        claimed = [tag.value for tag in tags or () if folded(str(tag.key)) == USER_TAG]
        if not claimed:
            return
        before = super().get_run(run_id).data.tags.get(USER_TAG)  # type: ignore[misc]
        if before is not None and any(value != before for value in claimed):
            text = f"run {run_id}: the tag {USER_TAG!r} says who made it and stays {before!r}."
            self.judge.refuse("set tag", text, run_id=run_id)

    def _no_claim(self, tags: Any) -> None:
        for tag in tags or ():
            self._no_claim_of(str(tag.key))

    def _no_claim_of(self, key: str) -> None:
        if folded(key) == AUTHOR_TAG:
            self.judge.refuse("set tag", f"the tag {key!r} is written by the server alone.")


def _unless_gone(ask: Callable[[], Any]) -> Any:
    """Return an answer of MLflow's store; None where what was asked about is not there (``mlflow gc``)."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
