"""Do the files of a model hold all that is loaded? What lies outside their digest could change and not be seen."""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from explain_step.tracking.loading import NATIVE
from explain_step.tracking.mlmodel_file import MAX_MLMODEL_BYTES, MLMODEL, parse_mlmodel
from explain_step.tracking.place import FOLDER

NOT_DIGESTED = frozenset({FOLDER, "registered_model_meta"})
"""Names at the top of a model's folder that `explain_step.digests.directory_digest` leaves out."""
JOINED = frozenset(
    {
        *("data", "model_path", "model_data", "pickled_model", "saved_model_dir", "serialized_explainer"),
        *("code", "path", "parameters_path", "python_model", "config", "env", "conda", "virtualenv"),
        *("model_binary", "pipeline_model", "components", "peft", "processor"),
    }
)
"""Settings that MLflow joins to the model's folder. An absolute path would replace the folder."""
ORIGIN = frozenset({"uri", "model_code_path", "source_model_name", "class_name"})
"""Settings that tell where something came from; nothing is loaded from there."""
MAIN_FILE = ("pickled_model", "model_path", "data")
OF_THE_USER = frozenset({"config", "model_config"})
"""Mappings that the model's author fills; MLflow hands them to the model and joins nothing."""


def model_problem(directory: Path) -> str | None:
    """Say why the digest of a model's folder does not cover what is loaded; None where it does.

    Parameters
    ----------
    directory : Path
        The files of a logged model.

    Returns
    -------
    str, optional
        There is no ``MLmodel`` file, or it cannot be read; it points out of the folder or to a file that the
        digest leaves out; or its flavors load different models, of which only one was explained.
    """
    file = directory / MLMODEL
    try:
        mode = file.lstat()
    except OSError:
        return f"there is no {MLMODEL} file, so nothing says what is loaded"
    if not stat.S_ISREG(mode.st_mode) or mode.st_size > MAX_MLMODEL_BYTES:
        return f"{MLMODEL} is not a regular file of at most {MAX_MLMODEL_BYTES} bytes"
    try:
        facts = parse_mlmodel(file.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        why = getattr(error, "problem", None) or type(error).__name__
        return f"{MLMODEL} is not YAML that can be read ({str(why)[:100]})"
    flavors = facts.get("flavors") if isinstance(facts, Mapping) else None
    if not isinstance(flavors, Mapping):
        return f"{MLMODEL} names no flavors"
    return _stray(flavors) or _two_models(flavors) or _second_description(directory, flavors)


def _stray(flavors: Mapping[Any, Any]) -> str | None:
    for key, text in _texts(flavors, key="flavors", seen=set()):
        problem = _leaves(text, joined=key in JOINED)
        if key not in ORIGIN and problem is not None:
            return f"{MLMODEL} points to {text[:100]!r} ({key[:40]}), {problem}"
    return None


def _texts(value: Any, *, key: str, seen: set[int]) -> Iterator[tuple[str, str]]:
    """Yield every text with the key it stands under; YAML may refer to one mapping many times."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping | list | tuple) and id(value) not in seen:
        seen.add(id(value))
        pairs = value.items() if isinstance(value, Mapping) else ((key, item) for item in value)
        for name, item in pairs:
            if name in OF_THE_USER and isinstance(item, Mapping):
                continue
            yield from _texts(item, key=str(name), seen=seen)


def _leaves(text: str, *, joined: bool) -> str | None:
    """Say how a path leaves what is digested. Module names (``explanations.loader``) count as paths."""
    path = posixpath.normpath(text.replace("\\", "/"))
    first = path.split("/")[0]
    if {first, first.split(".")[0]} & NOT_DIGESTED:
        return "which the digest of the model leaves out"
    outside = path.startswith("/") or first == ".." or first[1:2] == ":"
    return "which is outside the model's folder" if joined and outside else None


def _two_models(flavors: Mapping[Any, Any]) -> str | None:
    """Hold the flavors against each other: what is explained is the native model, what is served the pyfunc."""
    native = [name for name in NATIVE if name in flavors]
    if len(native) > 1:
        return f"{MLMODEL} has the flavors {' and '.join(native)}, which may be different models"
    served = flavors.get("python_function")
    if not native or served is None:
        return None
    own = flavors[native[0]]
    if not isinstance(own, Mapping) or not isinstance(served, Mapping):
        return f"{MLMODEL} has a flavor without settings"
    loader = served.get("loader_module")
    if loader != f"mlflow.{native[0]}":
        named = loader[:80] if isinstance(loader, str) else "something else"
        return f"its pyfunc is loaded by {named}, not by mlflow.{native[0]}: it may be another model"
    if not all(isinstance(given.get(key), str | None) for given in (own, served) for key in MAIN_FILE):
        return f"{MLMODEL} names a file of the model by something that is no text"
    files = sorted(_main_files(own) | _main_files(served))
    if len(files) > 1:
        return f"its pyfunc and its {native[0]} model name the files {', '.join(files)[:150]}: two models"
    return None


def _second_description(directory: Path, flavors: Mapping[Any, Any]) -> str | None:
    """Find an ``MLmodel`` beside a model file in a folder of its own: MLflow's pyfunc would believe that one."""
    native = next((name for name in NATIVE if name in flavors), None)
    served = flavors.get("python_function")
    if native is None or not isinstance(served, Mapping):
        return None
    for name in sorted(_main_files(served)):
        for folder in {posixpath.dirname(name), name} - {"", "."}:
            if (directory / folder / MLMODEL).exists():
                return (
                    f"its pyfunc would be described by {folder[:80]}/{MLMODEL}, not by the file that was read"
                )
    return None


def _main_files(settings: Mapping[Any, Any]) -> set[str]:
    return {posixpath.normpath(settings[key]) for key in MAIN_FILE if settings.get(key) is not None}
