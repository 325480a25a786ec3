"""Load a model for a recomputation: from a private copy, after its digest was compared with the recorded one."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from explain_step.digests import directory_digest
from explain_step.errors import InvalidInput, SnapshotError
from explain_step.secret_masking import mask_text
from explain_step.tracking.loading import describe, load_native, unsafe
from explain_step.tracking.model_files import model_problem
from explain_step.tracking.place import FOLDER, open_place
from explain_step.tracking.target import resolve

MODEL_URI = re.compile(r"(models|runs):/.+")


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
            msg = f"the model could not be loaded here: {type(error).__name__}: {mask_text(str(error)[:300])}"
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
    for name in root.children():
        if name != FOLDER:
            root.get(name, destination=place)


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
