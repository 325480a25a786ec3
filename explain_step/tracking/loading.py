"""Load a logged model from its files, in its own library where possible."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from explain_step.errors import InvalidInput
from explain_step.tracking.mlmodel_file import parse_mlmodel, read_bounded
from explain_step.tracking.place import FOLDER, Place, open_place
from explain_step.tracking.target import Target
from explain_step.tracking.trusted_types import foreign_types

NATIVE = ("sklearn", "xgboost", "lightgbm", "catboost")
"""Flavors whose native model is explained; any other model answers through its pyfunc."""
BOOSTER = "lightgbm.basic.Booster"
XGBOOST_CLASS = re.compile(r"xgboost\.(core|sklearn)\.[A-Za-z]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """What the ``MLmodel`` file says: flavors with their settings, and the input columns of the signature."""

    flavors: dict[str, dict[str, Any]]
    inputs: tuple[str, ...]

    @property
    def native(self) -> str | None:
        """The first flavor that loads as a native model."""
        return next((name for name in NATIVE if name in self.flavors), None)


def load_native(directory: Path, flavor: str) -> Any:
    """Load the native model of a flavor from a local directory."""
    loader = import_module(f"mlflow.{flavor}")
    return loader.load_model(str(directory))


def describe(directory: Path) -> Description:
    """Read the ``MLmodel`` file of a model directory."""
    file = directory / "MLmodel"
    if not file.is_file():
        msg = f"{str(directory)!r} is not a logged model: it has no MLmodel file."
        raise InvalidInput(msg)
    try:
        facts = parse_mlmodel(read_bounded(file))
        signature = facts.get("signature") or {}
        columns = json.loads(signature.get("inputs") or "[]")
        flavors = {str(name): dict(settings) for name, settings in (facts.get("flavors") or {}).items()}
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, RecursionError) as error:
        msg = f"{str(file)!r} is not an MLmodel file: {type(error).__name__}: {str(error)[:200]}"
        raise InvalidInput(msg) from error
    names = tuple(str(column["name"]) for column in columns if isinstance(column, dict) and "name" in column)
    return Description(flavors=flavors, inputs=names)


def unsafe(described: Description) -> str | None:
    """Say why loading could run foreign code; None where the format holds data only."""
    flavor = described.native
    if flavor is None:
        logged = ", ".join(sorted(described.flavors)) or "no flavor"
        return f"only {logged} is logged, which loads by running its code"
    settings = described.flavors[flavor]
    if settings.get("code") or described.flavors.get("python_function", {}).get("code"):
        return "it was logged with code paths, which loading would import"
    form = settings.get("serialization_format")
    if flavor == "sklearn" and form != "skops":
        return f"its format {form or 'pickle'} runs code when it is loaded"
    if flavor == "lightgbm" and form != "skops" and settings.get("model_class", BOOSTER) != BOOSTER:
        return "its format pickle runs code when it is loaded"  # what MLflow takes where none is stated
    if form not in (None, "skops"):
        return f"its format {form} runs code when it is loaded"
    foreign = foreign_types(settings.get("skops_trusted_types"))
    if foreign:
        return f"it needs the foreign types {', '.join(foreign[:3])}"
    declared = str(settings.get("model_class") or "")
    if declared and declared.partition(".")[0] != flavor:
        return f"its class {declared} is not one of {flavor}"
    if flavor == "xgboost" and declared and not XGBOOST_CLASS.fullmatch(declared):
        return f"its class {declared[:80]} is not a model of xgboost"
    file = str(settings.get("data") or settings.get("pickled_model") or "")
    if file.endswith((".pkl", ".pickle", ".joblib")):
        return f"its file {file} runs code when it is loaded"
    return None


def model_place(target: Target) -> Place:
    """Return the artifact root of the model's files."""
    if target.model_location is None:
        msg = (
            f"Run {target.run_id} has no logged model that is ready. Log it with mlflow.<flavor>.log_model, "
            "or pass the fitted model itself."
        )
        raise InvalidInput(msg)
    return open_place(target.model_location, tracking_uri=target.client.tracking_uri)


@contextmanager
def model_files(target: Target) -> Iterator[Path]:
    """Yield a local directory with the model's files (without the evidence when it is a download), for reading them."""
    with files_at(model_place(target)) as directory:
        yield directory


@contextmanager
def private_files(target: Target) -> Iterator[Path]:
    """Yield a copy of the model's files that nobody else writes: what is looked at is what is loaded."""
    with tempfile.TemporaryDirectory(prefix="explain_step_model_") as folder:
        yield download(model_place(target), Path(folder))


@contextmanager
def files_at(place: Place) -> Iterator[Path]:
    """Yield a local directory with the model's files at an artifact root. That of a local store is read in place."""
    local = place.local_root()
    if local is not None:
        yield local
        return
    with tempfile.TemporaryDirectory(prefix="explain_step_model_") as folder:
        yield download(place, Path(folder))


def download(place: Place, destination: Path) -> Path:
    """Fetch the model's files, without the evidence beside them.

    Raises
    ------
    InvalidInput
        A local store holds a link or a special file there, or more bytes than are free at the destination.
    """
    destination.mkdir(parents=True, exist_ok=True)
    root = place.local_root()
    if root is not None:
        _check_files(root, destination)
    for name in place.children():
        if name != FOLDER:
            place.get(name, destination=destination)
    return destination


def _check_files(root: Path, destination: Path) -> None:
    """Look before copying: a link may lead anywhere, reading a pipe never ends, a file with holes fills the disk."""
    size = 0
    for at, folders, names in os.walk(root):
        if Path(at) == root and FOLDER in folders:
            folders.remove(FOLDER)
        for name in (*folders, *names):
            status = (Path(at) / name).lstat()
            if not (stat.S_ISREG(status.st_mode) or (name in folders and stat.S_ISDIR(status.st_mode))):
                where = (Path(at) / name).relative_to(root).as_posix()
                msg = (
                    f"The model in {str(root)!r} must be regular files; {where!r} is a link or a special file. Put "
                    "the file itself there, or log the model again."
                )
                raise InvalidInput(msg)
            size += status.st_size
    free = shutil.disk_usage(destination).free
    if size > free:
        msg = (
            f"The model in {str(root)!r} has {size} bytes; {free} are free in {str(destination.parent)!r}, where it "
            "is copied to. Set TMPDIR to a larger disk."
        )
        raise InvalidInput(msg)
