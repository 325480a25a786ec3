"""The artifact store behind the gate: what a promotion rests on cannot be overwritten or deleted through the server."""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from explain_step.secret_masking import told
from explain_step.server import client
from explain_step.server.judge import Judge
from explain_step.server.places import in_sealed_store, unguarded
from explain_step.server.protection import holders_of_model, holders_of_run, is_registered
from explain_step.server.racing import in_turn
from explain_step.server.seal import SNAPSHOT_ID, Act, Owner, Sealer, Spot, readings, spots
from explain_step.server.settings import SCHEME, Deployment, stripped
from explain_step.snapshot.manifest import MAX_MANIFEST_BYTES, check_schema, parse, seal
from explain_step.snapshot.signing import MAX_SIGNATURES, SIGNATURES, check_envelope
from explain_step.tracking.decision_log import order_problem, record_problem
from explain_step.tracking.evidence import snapshot_findings
from explain_step.tracking.place import FOLDER, MANIFEST, Place

READS = frozenset(
    {
        *("list_artifacts", "download_artifacts", "get_local_path", "get_download_presigned_url"),
        *("download_trace_data", "download_trace_data_to_file", "download_archived_trace_data"),
        *("download_trace_attachment", "download_trace_attachment_to_file"),
    }
)
WRITES = frozenset({"log_artifact", "log_artifacts", "delete_artifacts", "create_presigned_upload_url"})
MULTIPART = frozenset({"create_multipart_upload", "complete_multipart_upload", "abort_multipart_upload"})
STREAMS = frozenset({"log_artifact_from_stream", "log_artifact_from_async_stream"})
"""Not offered: MLflow then collects the whole body first, and it is judged when it is to be published. A slow
upload that began before a model was finished could otherwise end after it was promoted."""
THROUGH_LOG = frozenset(
    {
        "upload_trace_data",
        "upload_archived_trace_data",
        "upload_archived_trace_data_bytes",
        "upload_attachment",
    }
)
"""Methods of MLflow's base class that store their file with `log_artifact`."""
PLUMBING = frozenset({"flush_async_logging"})


def open_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
) -> Any:
    """Return the guarded repository of an ``explain-gate+<scheme>`` URI."""
    return guarded(unguarded(stripped(artifact_uri), tracking_uri, registry_uri), artifact_uri)


def guarding(builder: Callable[..., Any], *, deployment: Deployment) -> Callable[..., Any]:
    """Return a builder of MLflow's repositories that guards those inside the sealed store.

    The server opens places that clients name (the archive of a trace, which it deletes with the trace).
    """

    @functools.wraps(builder, updated=())
    def build(artifact_uri: str, *args: Any, **kwargs: Any) -> Any:
        inner = builder(artifact_uri, *args, **kwargs)
        direct = in_sealed_store(artifact_uri, deployment=deployment)
        return guarded(inner, f"{SCHEME}{artifact_uri}") if direct else inner

    return build


def guarded(inner: Any, artifact_uri: str) -> Any:
    """Put the guards before a repository; multipart uploads are offered where it has them."""
    from mlflow.store.artifact.artifact_repo import ArtifactRepository, MultipartUploadMixin

    bases: tuple[type, ...] = (RepositoryGuards, ArtifactRepository)
    methods: dict[str, Any] = {name: _refusing(name) for name in unclassified(ArtifactRepository)}
    if isinstance(inner, MultipartUploadMixin):
        bases = (RepositoryGuards, MultipartGuards, ArtifactRepository, MultipartUploadMixin)
    downloads = _mixin("MultipartDownloadMixin")
    if downloads is not None and isinstance(inner, downloads):
        bases = (*bases, downloads)
        methods["get_download_presigned_url"] = lambda self, *args, **kwargs: (
            self.inner.get_download_presigned_url(*args, **kwargs)
        )
    repository = type("GuardedArtifactRepository", bases, methods)(artifact_uri)
    repository.inner = inner
    return repository


def _mixin(name: str) -> type | None:
    from mlflow.store.artifact import artifact_repo

    found: type | None = getattr(artifact_repo, name, None)
    return found


def unclassified(base: type) -> list[str]:
    """Return the public methods of MLflow's repository that are not listed here: MLflow has added them since."""
    known = READS | WRITES | MULTIPART | STREAMS | THROUGH_LOG | PLUMBING
    public = [name for name in vars(base) if not name.startswith("_") and callable(vars(base)[name])]
    return sorted(set(public) - known)


def _refusing(name: str) -> Any:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        text = f"The gate does not know {name}, which this version of MLflow has; update explain-step."
        self.judge.refuse(name, text, codes=("GATE001",))
        return getattr(self.inner, name)(*args, **kwargs)

    return refuse


class RepositoryGuards:
    """The guards, as a mixin before MLflow's base class. ``inner`` does the work."""

    inner: Any
    artifact_uri: str

    @property
    def judge(self) -> Judge:
        """The judge of the server's registry store."""
        found: Judge = client.registry_of_server().judge
        return found

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> Any:
        """Store a file where nothing sealed is."""
        name = _joined(artifact_path, Path(local_file).name)
        self._check(name, "write")
        log = self._log_of(name)
        with in_turn(self.judge.tracking, log):
            self._check_content(name, Path(local_file), log=log)
            result = self.inner.log_artifact(local_file, artifact_path)
        self._check_afterwards(name)
        return result

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> Any:
        """Store the files of a directory where none of them meets something sealed."""
        root = Path(local_dir)
        files = sorted(path for path in root.rglob("*") if not path.is_dir())
        names = [_joined(artifact_path, file.relative_to(root).as_posix()) for file in files]
        for name, file in zip(names, files, strict=True):
            self._check(name, "write")
            self._check_content(name, file, log=self._log_of(name))
        result = self.inner.log_artifacts(local_dir, artifact_path)
        for name in names:
            self._check_afterwards(name)
        return result

    def delete_artifacts(self, artifact_path: str | None = None) -> Any:
        """Remove a file or folder that nothing rests on; the manifest of a damaged snapshot may go too."""
        if not self._is_damaged_manifest(artifact_path or ""):
            self._check(artifact_path or "", "delete")
        return self.inner.delete_artifacts(artifact_path)

    def create_presigned_upload_url(self, artifact_path: str, expiration: int = 900) -> Any:
        """Refuse: such an URL writes to the storage when the server no longer looks."""
        self.judge.refuse(
            "presigned upload", f"{artifact_path}: uploads go through this server, which seals them."
        )
        return self.inner.create_presigned_upload_url(artifact_path, expiration)

    def list_artifacts(self, path: str | None = None) -> Any:
        """List a folder."""
        return self.inner.list_artifacts(path)

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> Any:
        """Download a file or folder."""
        return self.inner.download_artifacts(artifact_path, dst_path)

    def get_local_path(self, artifact_path: str) -> Any:
        """Return the path of a file that the server can send as it is."""
        return self.inner.get_local_path(artifact_path)

    def _download_file(self, remote_file_path: str, local_path: str) -> Any:
        return self.inner._download_file(remote_file_path, local_path)

    def _is_directory(self, artifact_path: str) -> Any:
        return self.inner._is_directory(artifact_path)

    def _check(self, path: str, act: Act) -> None:
        """Refuse what is sealed; where the seal cannot be asked for, everything of a model or run is."""
        whole = _joined(urlparse(stripped(self.artifact_uri)).path, path)
        try:
            problem = Sealer(self._owner, self._children).problem(whole, act)
        except Exception as error:  # noqa: BLE001 - what cannot be asked is refused
            problem = f"it is not known whether it is sealed ({told(error)})"
        if problem is not None:
            self.judge.refuse(
                f"{act} artifact", f"{path or 'the artifact root'}: {act} refused: {problem}.", path=path
            )

    def _check_afterwards(self, path: str) -> None:
        """Take a file away again whose model or run was promoted while it was written: what it replaced was judged."""
        whole = _joined(urlparse(stripped(self.artifact_uri)).path, path)
        try:
            problem = Sealer(self._owner, self._children).overtaken(whole)
        except Exception as error:  # noqa: BLE001 - what cannot be asked is refused
            problem = f"it is not known whether it is sealed ({told(error)})"
        if problem is None:
            return
        text = f"{path}: write refused, and the file taken away: while it was written, {problem}."
        try:
            self.judge.refuse("write artifact", text, path=path)
        except Exception:
            self.inner.delete_artifacts(path)
            raise

    def _check_content(self, path: str, file: Path, *, log: Place | None = None) -> None:
        """Refuse a manifest or a signature that is none: it would seal, or spoil, what is evidence."""
        try:
            problem = self._content_problem(path, file, log)
        except Exception as error:  # noqa: BLE001 - hostile content of any kind
            problem = f"it cannot be read as what its name says ({told(error, most=150)})"
        if problem is not None:
            self.judge.refuse("write artifact", f"{path}: write refused: {problem}.", path=path)

    def _content_problem(self, path: str, file: Path, log: Place | None) -> str | None:
        snapshot, record = _snapshot_of(path), _record_of(path)
        if record is not None:
            now = datetime.now(UTC)
            problem = record_problem(record, file, now=now)
            return problem if problem or log is None else order_problem(log, record, file, now=now)
        if snapshot is not None and file.stat().st_size > MAX_MANIFEST_BYTES:
            return f"it has more than {MAX_MANIFEST_BYTES} bytes"
        if snapshot is not None:
            manifest = parse(file.read_bytes())
            check_schema(manifest)
            whole = seal(manifest)["manifest_digest"] == manifest["manifest_digest"]
            return None if whole and manifest["snapshot_id"] == snapshot else "it is not of this snapshot"
        if _signed_snapshot(path) is None:
            return None
        folder = path.rsplit("/", 2)[0]
        place = Place(location=self.artifact_uri, repository=self.inner)
        if MANIFEST not in place.children(folder):
            return None  # not finished: verification tells
        if len(place.children(f"{folder}/{SIGNATURES}")) >= MAX_SIGNATURES:
            return f"the snapshot has {MAX_SIGNATURES} signatures, which is the most it may have"
        found = check_envelope(file.read_bytes(), manifest=place.read(f"{folder}/{MANIFEST}"))
        right = found.valid and file.name == f"{found.key_id}.json"
        return None if right else f"it is no signature of this snapshot: {found.reason or 'another key'}"

    def _log_of(self, path: str) -> Place | None:
        """Return the root whose log a record joins; None for other files, and of a model that is uploaded in any order."""
        whole = _joined(urlparse(stripped(self.artifact_uri)).path, path)
        inside = [spot for reading in readings(whole) for spot in spots(reading)]
        if _record_of(path) is None or not inside:
            return None
        if any(spot.owner == "model" and not self._owner(spot).ready for spot in inside):
            return None
        root = posixpath.join(stripped(self.artifact_uri), *_parts_of_record(path)[:-3])
        return Place(location=root, repository=unguarded(root))

    def _is_damaged_manifest(self, path: str) -> bool:
        """Whether a path is the manifest of a snapshot that does not verify: it may be written again."""
        folder = path.removesuffix(f"/{MANIFEST}")
        if folder == path or readings(path)[0] != path or _snapshot_of(path) is None:
            return False
        place = Place(location=self.artifact_uri, repository=self.inner)
        found = snapshot_findings(place, folder)
        return any(finding.verdict != "pass" for finding in found)

    def _children(self, folder: str) -> dict[str, bool]:
        """Return the names in a folder of the store, which is given from the root of the URI's path.

        A reading of a path is one of the root too: the store may lie in a folder with capital letters.
        """
        inside = folder.strip("/")
        for root in readings(urlparse(stripped(self.artifact_uri)).path):
            if not root or inside == root or inside.startswith(f"{root}/"):
                found = self.inner.list_artifacts(inside.removeprefix(root).strip("/"))
                return {entry.path.rpartition("/")[2]: bool(entry.is_dir) for entry in found}
        return self._children_elsewhere(inside)

    def _children_elsewhere(self, inside: str) -> dict[str, bool]:
        """Ask for a folder by its own URI: a reading may leave this repository (``..``, another case)."""
        parsed = urlparse(stripped(self.artifact_uri))
        uri = parsed._replace(path=f"/{inside}").geturl()
        entries = unguarded(uri).list_artifacts(None)
        return {entry.path.rpartition("/")[2]: bool(entry.is_dir) for entry in entries}

    def _owner(self, spot: Spot) -> Owner:
        judge = self.judge
        if spot.owner == "run":
            return _owner_of_run(judge, spot)
        return _owner_of_model(judge, f"m-{spot.id}")


class MultipartGuards:
    """Multipart uploads: judged when they begin and again when they are published."""

    inner: Any

    def create_multipart_upload(
        self, local_file: str, num_parts: int, artifact_path: str | None = None
    ) -> Any:
        """Begin an upload where nothing sealed is."""
        self._check_upload(local_file, artifact_path)
        return self.inner.create_multipart_upload(local_file, num_parts, artifact_path)

    def complete_multipart_upload(
        self, local_file: str, upload_id: str, parts: Any, artifact_path: str | None = None
    ) -> Any:
        """Publish an upload where nothing sealed has come into being meanwhile."""
        self._check_upload(local_file, artifact_path)
        result = self.inner.complete_multipart_upload(local_file, upload_id, parts, artifact_path)
        self._check_afterwards(_joined(artifact_path, Path(local_file).name))  # type: ignore[attr-defined]
        return result

    def abort_multipart_upload(
        self, local_file: str, upload_id: str, artifact_path: str | None = None
    ) -> Any:
        """Give an upload up; nothing was published."""
        return self.inner.abort_multipart_upload(local_file, upload_id, artifact_path)

    def _check_upload(self, local_file: str, artifact_path: str | None) -> None:
        name = _joined(artifact_path, Path(local_file).name)
        self._check(name, "write")  # type: ignore[attr-defined]
        if any(named(name) is not None for named in (_snapshot_of, _signed_snapshot, _record_of)):
            text = f"{name}: write refused: manifests, signatures and records are uploaded in one piece."
            self.judge.refuse("write artifact", text, path=name)  # type: ignore[attr-defined]


def _joined(folder: str | None, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if folder else name


def _snapshot_of(path: str) -> str | None:
    """Return the snapshot id where a path is that of its manifest, in any reading."""
    for reading in readings(path):
        parts = reading.split("/")
        if len(parts) >= 3 and parts[-1] == MANIFEST and parts[-3].casefold() == FOLDER:
            return parts[-2] if SNAPSHOT_ID.fullmatch(parts[-2]) else None
    return None


def _record_of(path: str) -> str | None:
    """Return the file name where a path is that of a record of the decision log, in any reading."""
    parts = _parts_of_record(path)
    return parts[-1] if parts else None


def _parts_of_record(path: str) -> list[str]:
    for reading in readings(path):
        parts = reading.split("/")
        if len(parts) >= 3 and parts[-2] == "decisions" and parts[-3].casefold() == FOLDER:
            return parts
    return []


def _signed_snapshot(path: str) -> str | None:
    """Return the snapshot id where a path is that of a signature of it, in any reading."""
    for reading in readings(path):
        parts = reading.split("/")
        if len(parts) >= 4 and parts[-2] == SIGNATURES and parts[-4].casefold() == FOLDER:
            return parts[-3] if SNAPSHOT_ID.fullmatch(parts[-3]) else None
    return None


def _owner_of_run(judge: Judge, spot: Spot) -> Owner:
    """Ask about a run; it holds files of a version only where the version has no logged model."""
    from mlflow.exceptions import MlflowException

    held = holders_of_run(judge.registry, judge.policy(), spot.id, without_model=True)
    try:
        run = judge.tracking().get_run(spot.id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return Owner(known=False, held=held[0] if held else None)
    deleted = run.info.lifecycle_stage == "deleted"
    return Owner(known=True, deleted=deleted, held=held[0] if held else None)


def _owner_of_model(judge: Judge, model_id: str) -> Owner:
    from mlflow.exceptions import MlflowException

    store = judge.tracking()
    try:
        model = store.get_logged_model(model_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        deleted = model_id in store._get_deleted_logged_models()
        held = holders_of_model(judge.registry, judge.policy(), model_id) if deleted else []
        return Owner(known=deleted, deleted=deleted, held=held[0] if held else None)
    ready = str(model.status) == "READY"
    held = []
    # what is not finished, or has no MLmodel file yet, may have been promoted by break-glass
    if is_registered(judge.registry, model_id):
        held = holders_of_model(judge.registry, judge.policy(), model_id)
    return Owner(known=True, ready=ready, held=held[0] if held else None)
