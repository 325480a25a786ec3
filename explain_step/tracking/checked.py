"""Load a stored model for explaining it: formats that run code only where the caller says so or the digest is known."""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explain_step.digests import directory_digest
from explain_step.errors import InvalidInput, SnapshotError
from explain_step.gate import RULES, Policy
from explain_step.secret_masking import mask_text
from explain_step.tracking.loading import describe, download, load_native, model_place, unsafe
from explain_step.tracking.model_files import model_problem
from explain_step.tracking.place import FOLDER, open_place
from explain_step.tracking.proven import DIGEST_RULES, load_proven
from explain_step.tracking.target import Target, resolve
from explain_step.tracking.temporary import goes_with

MODEL_URI = re.compile(r"(models|runs):/.+")


def load_model(target: Target, *, allow_pickle: bool) -> Any:
    """Load the model of a target: its native object where possible, else its pyfunc.

    Parameters
    ----------
    target : Target
    allow_pickle : bool
        Also load formats that run code (pickles, custom pyfunc models) where no verified snapshot has the digest of
        these files. MLflow's own setting ``MLFLOW_ALLOW_PICKLE_DESERIALIZATION=false`` is honoured in any case.

    Raises
    ------
    InvalidInput
        There is no model, or no files of one, or there are links and special files among them.
    SnapshotError
        Loading it would run code, nothing proves its bytes, and ``allow_pickle`` is false.
    """
    place = model_place(target)
    root = Path(tempfile.mkdtemp(prefix="explain_step_model_"))
    kept = False
    try:
        directory = download(place, root)  # also of a local store: nobody writes to it between look and load
        model = load_directory(directory, allow_pickle=allow_pickle)
        if describe(directory).native is None:
            kept = True  # a pyfunc may read its files later; they go with the object
            goes_with(model, root)
        return model
    except SnapshotError as refusal:
        return _load_if_proven(target, refusal)
    finally:
        if not kept:
            shutil.rmtree(root, ignore_errors=True)


def _load_if_proven(target: Target, refusal: SnapshotError) -> Any:
    """Load a private copy whose bytes are those of an earlier explanation that verifies, or raise the refusal."""
    name, version = target.versions[0] if target.versions else (None, None)
    uri = f"models:/{target.model_id}" if name is None else f"models:/{name}/{version}"
    try:
        return load_proven(
            uri,
            policy=Policy(version=1),
            rules=[rule for rule in RULES if rule.code in DIGEST_RULES],
            on_unproven="raise",
            flavor="native",
            allow_pickle=False,
            tracking_uri=target.client.tracking_uri,
        )
    except SnapshotError:
        raise refusal from None


def load_directory(directory: Path, *, allow_pickle: bool) -> Any:
    """Load the model in a local directory; parameters and errors as for `load_model`."""
    described = describe(directory)
    reason = unsafe(described) or model_problem(directory)
    if reason is not None and not allow_pickle:
        msg = (
            f"The model was not loaded: {reason}. Pass allow_pickle=True (--allow-pickle) for files that you trust, or "
            "the fitted model itself."
        )
        raise SnapshotError(msg)
    return load_native(directory, described.native or "pyfunc")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedModel:
    """Files of a model in a private directory, and their digest."""

    directory: Path
    digest: str

    def load(self, expected: str | None) -> Any:
        """Load the model: its native object where it has one, else its pyfunc.

        Parameters
        ----------
        expected : str, optional
            The recorded digest.

        Raises
        ------
        SnapshotError
            The files are not the recorded ones, or reach outside their folder, and their format runs code when it is
            loaded.
        """
        described = describe(self.directory)
        reason = unsafe(described)
        problem = model_problem(self.directory)
        if problem is not None or (self.digest != expected and reason is not None):
            why = (
                problem
                or f"its files do not have the recorded digest ({_shown(self.digest)}, recorded {_shown(expected)})"
            )
            told = f", and {reason}" if reason is not None and problem is None else ""
            msg = f"The model was not loaded: {why}{told}. Give the fitted model itself (model=) if you trust it."
            raise SnapshotError(msg)
        try:
            return load_native(self.directory, described.native or "pyfunc")
        except Exception as error:
            msg = f"the model could not be loaded here: {type(error).__name__}: {mask_text(str(error))[:300]}"
            raise SnapshotError(msg) from error


def copied_model(
    source: str | Path, *, destination: str | Path, tracking_uri: str | None = None
) -> CheckedModel:
    """Copy the files of a model, without its evidence, and digest the copy. Nothing is loaded.

    Parameters
    ----------
    source : str or path
        ``models:/…``, ``runs:/…/<path>`` or the directory of an MLflow model.
    destination : path
        An empty directory that belongs to the caller. A pyfunc may read its files later, so it should live as long as
        the model.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.

    Raises
    ------
    InvalidInput
        The source names no model, or its folder holds links or special files.
    """
    place = Path(destination)
    if MODEL_URI.fullmatch(str(source)):
        _download(str(source), place, tracking_uri=tracking_uri)
    else:
        _copy(Path(source), place)
    return CheckedModel(directory=place, digest=directory_digest(place))


def _download(uri: str, place: Path, *, tracking_uri: str | None) -> None:
    target = resolve(model_uri=uri, tracking_uri=tracking_uri)
    if target.model_location is None:
        msg = f"{uri!r} has no logged model that is ready."
        raise InvalidInput(msg)
    root = open_place(target.model_location, tracking_uri=target.client.tracking_uri)
    download(root, place)


def _copy(source: Path, place: Path) -> None:
    if not (source / "MLmodel").is_file():
        msg = f"Argument model must be models:/…, runs:/… or the directory of an MLflow model, got {str(source)!r}."
        raise InvalidInput(msg)
    ignore = shutil.ignore_patterns(FOLDER)
    shutil.copytree(source, place, dirs_exist_ok=True, symlinks=True, ignore=_at_top(source, ignore))


def _at_top(root: Path, ignore: Any) -> Any:
    """Leave the evidence out beside the model only, not a folder of that name deeper inside."""
    return lambda folder, names: ignore(folder, names) if Path(folder) == root else set()


def _shown(digest: str | None) -> str:
    return "none" if digest is None else f"{digest[:12]}…"
