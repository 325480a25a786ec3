"""The model registry behind the gate: MLflow's SQL store whose writing methods ask the judge first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlparse

from explain_step.gate import Evidence, Policy, Request, folded
from explain_step.server import client, racing, rows, tags
from explain_step.server.client import Candidate
from explain_step.server.judge import Allowed, Judge
from explain_step.server.names import baseline_problem, waiver_problem
from explain_step.server.prompts import has_prompt_tag, is_prompt, is_prompt_tag, is_prompt_version
from explain_step.server.protection import (
    has_versions,
    holders_of_name,
    holders_of_version,
    in_stages,
    into_stage,
    protected_here,
    version_behind,
)
from explain_step.server.settings import deployment_of_worker, stripped

GUARDED = frozenset(
    {
        *("set_registered_model_alias", "delete_registered_model_alias", "transition_model_version_stage"),
        *("create_registered_model", "rename_registered_model", "delete_registered_model"),
        *("set_registered_model_tag", "delete_registered_model_tag"),
        *("create_model_version", "delete_model_version"),
        *("set_model_version_tag", "delete_model_version_tag"),
    }
)
"""Methods that are judged."""
COMPOSED = frozenset(
    {
        *("copy_model_version", "create_prompt", "delete_prompt", "set_prompt_tag", "delete_prompt_tag"),
        *("create_prompt_version", "delete_prompt_version", "set_prompt_alias", "delete_prompt_alias"),
        *("set_prompt_version_tag", "delete_prompt_version_tag"),
    }
)
"""Methods that write through the guarded ones."""
UNGUARDED = frozenset(
    {
        *("update_registered_model", "update_model_version"),  # descriptions only
        *("link_prompts_to_trace", "link_prompt_version_to_model", "link_prompt_version_to_run"),
        *("create_webhook", "update_webhook", "delete_webhook", "test_webhook"),
    }
)
"""Methods that write nothing which a promotion rests on."""
READING = ("get_", "search_", "list_", "supports_")


def open_store(store_uri: str, tracking_uri: str | None = None) -> Any:
    """Return the guarded registry store of an ``explain-gate+<database>`` URI.

    Parameters
    ----------
    store_uri : str
    tracking_uri : str, optional
        Where runs and logged models are; in a server it is the server's own tracking store.
    """
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    store = guarded_class(SqlAlchemyStore)(stripped(store_uri))
    store.judge = Judge(store, lambda: _tracking_store(tracking_uri), deployment=deployment_of_worker())
    return store


def _tracking_store(tracking_uri: str | None) -> Any:
    if deployment_of_worker().backend_uri is not None:
        return client.tracking_of_server()
    from mlflow.tracking._tracking_service.utils import _get_store

    return _get_store(tracking_uri)


def guarded_class(base: type) -> type:
    """Return a subclass of MLflow's store with the guards; what is not known to be harmless refuses."""
    unknown = {name: _refusing(name) for name in unclassified(base)}
    return type(f"Guarded{base.__name__}", (RegistryGuards, base), unknown)


def unclassified(base: type) -> list[str]:
    """Return the public methods of a store that neither read nor are listed here: MLflow has added them since."""
    known = GUARDED | COMPOSED | UNGUARDED
    public = [name for name in dir(base) if not name.startswith("_") and callable(getattr(base, name))]
    return sorted(name for name in public if name not in known and not name.startswith(READING))


def _refusing(name: str) -> Any:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        text = f"The gate does not know {name}, which this version of MLflow has; update explain-step."
        self.judge.refuse(name, text, codes=("GATE001",))
        return getattr(super(type(self), self), name)(*args, **kwargs)

    return refuse


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What was judged, to be compared with what has been promoted: between the two, others write too."""

    found: Any
    request: Request
    policy: Policy
    location: str
    allowed: Allowed | None

    @property
    def evidence(self) -> Evidence | None:
        """What was judged; None for a prompt, and where dry-run lets it pass."""
        return None if self.allowed is None else self.allowed.evidence

    def again(self, store: Any, undo: Callable[[], Any]) -> None:
        """Refuse, and take the promotion back, where it is of something else than was judged.

        Another version may have got the name and number; and files of a version without a logged model are not
        sealed before it is promoted, so these are read again.
        """
        name, version = self.found.name, str(self.found.version)
        try:
            now = rows.version_now(store, name, version, tag=racing.DELETING_TAG)
            judged = (self.found.creation_timestamp, self.found.source, self.location)
            if now is None or (now.creation_timestamp, now.source, now.location) != judged:
                text = f"models:/{name}/{version} is not the version that was judged; ask again."
                store.judge.refuse(str(self.request), text, name=name, version=version)
            elif racing.is_mark(now.tag) or racing.is_mark(now.tag_of_name):
                text = f"models:/{name}/{version} is being deleted."
                store.judge.refuse(str(self.request), text, name=name, version=version)
            if self.evidence is not None:
                store.judge.must_stay(self.evidence, self.request)
            if self.evidence is not None and self.evidence.model_id is None:
                store.judge.require(name, version, self.request, policy=self.policy)
        except Exception:
            undo()
            raise


class RegistryGuards:
    """The guards, as a mixin before MLflow's store."""

    judge: Judge

    def set_registered_model_alias(self, name: str, alias: str, version: Any) -> Any:
        """Let a protected alias point to proven versions only."""
        policy = self.judge.policy()
        if protected_here(name, policy, alias=alias) is None:
            return super().set_registered_model_alias(name, alias, version)  # type: ignore[misc]
        look = self._require(name, version, Request(action="alias", target=alias), policy)
        before = version_behind(self, name, alias)
        self._note_promotion(look, alias)
        write = super().set_registered_model_alias  # type: ignore[misc]
        result = racing.twice(lambda: write(name, alias, version))

        def undo() -> None:
            if before is None:
                super(RegistryGuards, self).delete_registered_model_alias(name, alias)  # type: ignore[misc]
            elif str(before) != str(version):
                super(RegistryGuards, self).set_registered_model_alias(name, alias, before)  # type: ignore[misc]
            # what was there before may be what another request takes back
            self._release(policy, name, only=(str(look.found.version), look.request))

        look.again(self, undo)
        return result

    def _release(self, policy: Policy, name: str, *, only: racing.Promotion | None = None) -> None:
        racing.release(self, super(), policy, name, judge=self._require, only=only)

    def _note_promotion(self, look: Look, alias: str) -> None:
        """Write down that the move was judged, before it is made; an audit looks for it."""
        if look.allowed is None:
            return
        from mlflow.entities.model_registry import ModelVersionTag

        key, value = tags.promotion(alias, at=datetime.now(UTC), allowed=look.allowed, policy=look.policy)
        note = super().set_model_version_tag  # type: ignore[misc]
        racing.twice(lambda: note(look.found.name, look.found.version, ModelVersionTag(key, value)))

    def delete_registered_model_alias(self, name: str, alias: str) -> Any:
        """Take an alias away: possible, since setting it again is judged, and recorded. Not so a base of drift."""
        policy = self.judge.policy()
        if protected_here(name, policy, alias=alias) is not None:
            problem = baseline_problem(self.judge, policy, name, alias)
            if problem is not None:
                self._refuse("delete alias", name, problem)
            version = version_behind(self, name, alias)
            self.judge.record(f"delete alias {alias!r}", "allow", name=name, version=version)
        return super().delete_registered_model_alias(name, alias)  # type: ignore[misc]

    def transition_model_version_stage(
        self, name: str, version: Any, stage: str, archive_existing_versions: bool
    ) -> Any:
        """Let proven versions into a protected stage only; what leaves one is recorded."""
        policy = self.judge.policy()
        move = super().transition_model_version_stage  # type: ignore[misc]
        there = in_stages(self, policy, name)
        if not into_stage(name, policy, stage):
            self._record_leaving(name, {v: s for v, s in there.items() if v == _number(version)})
            return move(name, version, stage, archive_existing_versions)
        look = self._require(name, version, Request(action="stage", target=stage), policy)
        before = str(super().get_model_version(name, version).current_stage)  # type: ignore[misc]
        number = str(look.found.version)
        others = {v: s for v, s in there.items() if folded(s) == folded(stage) and v != number}
        archived = others if archive_existing_versions else {}
        self._record_leaving(name, archived)
        result = move(name, version, stage, archive_existing_versions)

        def undo() -> None:
            for other, kept in {number: before, **archived}.items():
                move(name, other, kept, False)
            self._release(policy, name, only=(number, look.request))

        look.again(self, undo)
        return result

    def _record_leaving(self, name: str, leaving: Mapping[str, str]) -> None:
        for version, stage in leaving.items():
            self.judge.record(f"leave stage {stage!r}", "allow", name=name, version=version)

    def create_registered_model(self, name: str, tags: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Create a registered model without tags that are the gate's own."""
        for tag in tags or []:
            self._no_reserved_tag(name, tag.key)
        return super().create_registered_model(name, tags, *args, **kwargs)  # type: ignore[misc]

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        """Refuse a rename that would change which version a protected name stands for."""
        policy = self.judge.policy()
        for protected in (name, new_name):
            if protected_here(protected, policy) is not None and folded(name) != folded(new_name):
                self._refuse(
                    "rename", name, f"{protected!r} is a protected name; copy versions into it instead"
                )
        held = holders_of_name(self, policy, name)
        self._stays(name, held)
        self._no_waiver("rename", policy, name, new_name)
        result = super().rename_registered_model(name, new_name)  # type: ignore[misc]
        try:  # promoted this moment
            self._stays(name, [] if held else holders_of_name(self, policy, new_name))
        except Exception:
            try:
                self._release(policy, new_name)
            finally:
                super().rename_registered_model(new_name, name)  # type: ignore[misc]
            raise
        return result

    def delete_registered_model(self, name: str) -> Any:
        """Refuse to delete what a protected alias points into, also where it came to do so this moment."""
        policy = self.judge.policy()
        held = holders_of_name(self, policy, name)
        self._let_go(name, held)
        self._no_waiver("delete", policy, name)
        with racing.marked(super(), name):
            self._let_go(name, [] if held else holders_of_name(self, policy, name))
            return super().delete_registered_model(name)  # type: ignore[misc]

    def set_registered_model_tag(self, name: str, tag: Any) -> Any:
        """Refuse the gate's own tags, and turning a model into a prompt."""
        self._no_reserved_tag(name, tag.key)
        if is_prompt_tag(tag.key):
            self._no_change_of_kind(name)
        return super().set_registered_model_tag(name, tag)  # type: ignore[misc]

    def delete_registered_model_tag(self, name: str, key: str) -> Any:
        """Refuse the gate's own tags, and turning prompts into a model."""
        self._no_reserved_tag(name, key)
        if is_prompt_tag(key):
            self._no_change_of_kind(name)
        return super().delete_registered_model_tag(name, key)  # type: ignore[misc]

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Judge a version before it exists where every version of the model needs evidence."""
        kept = self._tags_of_new_version(name, source, tags)
        plain = {tag.key: tag.value for tag in kept}
        policy = self.judge.policy()
        prompt = is_prompt(source, tags=plain, run_id=run_id)
        self._one_kind(name, prompt=prompt)
        make = super().create_model_version  # type: ignore[misc]
        if prompt or protected_here(name, policy) is None:
            return make(name, source, run_id, kept, *args, **kwargs)
        candidate = self._candidate(name, source, run_id=run_id, plain=plain)
        request = Request(action="registered_model", target=name)
        allowed = self.judge.require(name, candidate.version, request, policy=policy, candidate=candidate)
        result = make(name, source, run_id, kept, *args, **kwargs)
        look = Look(
            found=result, request=request, policy=policy, location=candidate.location, allowed=allowed
        )
        look.again(self, lambda: super(RegistryGuards, self).delete_model_version(name, result.version))  # type: ignore[misc]
        return result

    def delete_model_version(self, name: str, version: Any) -> Any:
        """Refuse to delete a version that a protected alias or stage points to, or came to point to this moment."""
        policy, where = self.judge.policy(), f"{name}/{version}"
        held = holders_of_version(self, policy, name, version)
        self._let_go(where, held)
        with racing.marked(super(), name, version):
            self._let_go(where, [] if held else holders_of_version(self, policy, name, version))
            return super().delete_model_version(name, version)  # type: ignore[misc]

    def set_model_version_tag(self, name: str, version: Any, tag: Any) -> Any:
        """Accept the gate's own tags only where they say what the verified evidence says."""
        if is_prompt_tag(tag.key):
            found = super().get_model_version(name, version)  # type: ignore[misc]
            if not (is_prompt_version(found) and str(tag.value).casefold() == "true"):
                self._refuse(
                    "set tag", f"{name}/{version}", f"{tag.key} cannot be put on a version that is there"
                )
        checked = tags.checked(self.judge, name, str(version), tag)
        return super().set_model_version_tag(name, version, checked)  # type: ignore[misc]

    def delete_model_version_tag(self, name: str, version: Any, key: str) -> Any:
        """Keep the gate's own tags, except a use of break-glass that is withdrawn."""
        problem = tags.may_not_delete(key)
        if is_prompt_tag(key):
            problem = f"{key} says what the version is and stays"
        if problem is not None:
            self._refuse("delete tag", f"{name}/{version}", problem)
        return super().delete_model_version_tag(name, version, key)  # type: ignore[misc]

    def _require(self, name: str, version: Any, request: Request, policy: Policy) -> Look:
        found = super().get_model_version(name, version)  # type: ignore[misc]
        location = super().get_model_version_download_uri(name, version)  # type: ignore[misc]
        allowed = None
        if not is_prompt_version(found):
            read = Candidate(
                name=name,
                version=str(found.version),
                source=found.source,
                run_id=found.run_id,
                tags=dict(found.tags or {}),
                location=location,
            )
            allowed = self.judge.require(name, read.version, request, policy=policy, found=read)
        return Look(found=found, request=request, policy=policy, location=location, allowed=allowed)

    def _refuse(self, action: str, name: str, why: str) -> None:
        self.judge.refuse(action, f"{name}: {action} refused: {why}.", name=name)

    def _let_go(self, what: str, held: list[str]) -> None:
        if held:
            self._refuse("delete", what, f"{held[0]}; take the alias or stage away first")

    def _stays(self, name: str, held: list[str]) -> None:
        if held:
            self._refuse("rename", name, f"{held[0]}; a rename would change what that name stands for")

    def _no_waiver(self, action: str, policy: Policy, *names: str) -> None:
        problem = waiver_problem(policy, *names)
        if problem is not None:
            self._refuse(action, names[0], problem)

    def _no_reserved_tag(self, name: str, key: str) -> None:
        if tags.is_reserved(key):
            self._refuse("set tag", name, f"tags {key!r} belong to explain_step")

    def _no_change_of_kind(self, name: str) -> None:
        """Let a registered model with versions in it stay what it is."""
        if has_versions(self, name):
            self._refuse(
                "change prompt tag", name, "it has versions; models and prompts do not turn into each other"
            )

    def _one_kind(self, name: str, *, prompt: bool) -> None:
        """Prompts live with prompts and models with models: the exemption of the one never covers the other."""
        parent = super().get_registered_model(name)  # type: ignore[misc]
        if prompt and not has_prompt_tag(_raw_tags(parent)):
            self._refuse("create version", name, "it holds models, not prompts")
        if not prompt and has_prompt_tag(_raw_tags(parent)):
            self._refuse(
                "create version", name, "it holds prompts, not models; register the model under another name"
            )

    def _tags_of_new_version(self, name: str, source: str, given: Any) -> list[Any]:
        """Return the tags of a new version: a copy keeps the gate's own tags of its origin, nothing else does.

        It keeps every review: approvals alone would leave a rejection behind.
        """
        origin = self._origin_tags(source)
        kept = []
        for tag in given or []:
            if not tags.is_reserved(tag.key) or (tags.travels(tag.key) and origin.get(tag.key) == tag.value):
                kept.append(tag)
            elif origin.get(tag.key) != tag.value:
                self._refuse("create version", name, f"tags {tag.key!r} belong to explain_step")
        return [*kept, *tags.reviews_left_out(origin, kept)]

    def _origin_tags(self, source: str) -> dict[str, str]:
        named = copied_from(source)
        if named is None:
            return {}
        return dict(super().get_model_version(*named).tags or {})  # type: ignore[misc]

    def _candidate(self, name: str, source: str, *, run_id: str | None, plain: dict[str, str]) -> Candidate:
        """Describe a version as the store would make it."""
        location, run = source, run_id
        named = copied_from(source)
        if named is not None:
            location = super().get_model_version_download_uri(*named)  # type: ignore[misc]
        elif source.startswith("models:/m-"):
            model = self.judge.tracking().get_logged_model(source.removeprefix("models:/"))
            location, run = model.artifact_location, run_id or model.source_run_id
        return Candidate(name=name, version="new", source=source, run_id=run, tags=plain, location=location)


def _number(version: Any) -> str:
    """Return a version's number as a database takes it: ``01`` is 1."""
    text = str(version)
    try:
        return str(int(text))
    except ValueError:
        return text


def copied_from(source: str) -> tuple[str, str] | None:
    """Return name and version where a source is another version (``models:/name/3``).

    Examples
    --------
    >>> copied_from("models:/mortgage/3"), copied_from("models:/m-0123"), copied_from("s3://models:/x/1")
    (('mortgage', '3'), None, None)
    """
    if urlparse(source).scheme != "models":
        return None
    name, slash, version = source.removeprefix("models:/").strip("/").rpartition("/")
    return (name, version) if slash and version.isdigit() else None


def _raw_tags(parent: Any) -> Iterable[Any]:
    found: Iterable[Any] = getattr(parent, "_tags", None) or parent.tags or {}
    return found
