"""Replay in the recorded environment: rebuilt with ``uv``, from an index or from a folder of wheels."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from explain_step.errors import ExplainStepError, InvalidInput
from explain_step.frames import to_frame
from explain_step.hashes import sha256_file
from explain_step.replay_inputs import provenance_record
from explain_step.replay_result import Given, Replay, from_record, not_replayable, recorded_uri
from explain_step.snapshot.provenance import THREAD_VARIABLES
from explain_step.snapshot.provenance_lock import MOST_SOURCES, NO_WHEEL, find_uv
from explain_step.snapshot.provenance_packages import canonical_name
from explain_step.tracking.checked import copied_model

if TYPE_CHECKING:
    from explain_step.snapshot import Snapshot

BUILD_SECONDS = 1800
REPLAY_SECONDS = 7200
OURS = "explain-step"
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]*")
PYTHON = re.compile(r"\d+\.\d+(?:\.\d+)?(?:(?:a|b|rc)\d+)?\+?")
SETTING = re.compile(r"[A-Za-z0-9,]{0,40}")
NEEDED = (
    *("numpy", "pandas", "pyarrow", "scikit-learn", "scipy", "matplotlib", "jinja2", "pydantic", "pyyaml"),
    *("click", "mlflow"),
)
"""What this package itself imports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be installed.

    Attributes
    ----------
    python : str
        Version of the interpreter.
    requirements : tuple of str
        ``name==version`` of each distribution that was in use, and of those that this package needs.
    constraints : tuple of str
        ``name==version`` of every recorded distribution, for what the former ask for.
    lock : str, optional
        Text of a recorded ``pylock.toml`` (PEP 751), which has digests of the wheels.
    threads : mapping
        Recorded thread settings; None takes a variable away.
    """

    python: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    lock: str | None
    threads: Mapping[str, str | None]


def plan_of(environment: Mapping[str, Any], code: Mapping[str, Any]) -> Plan:
    """Return how a recorded environment is rebuilt.

    Raises
    ------
    ExplainStepError
        The record does not tell enough.
    """
    packages = environment.get("packages")
    version = (environment.get("python") or {}).get("version")
    if not isinstance(packages, Mapping) or "numpy" not in packages or not isinstance(version, str):
        msg = "the recorded environment names no Python version or no packages"
        raise ExplainStepError(msg)
    _check_plain(packages, python=version)
    loaded = {d["name"] for d in environment.get("distributions") or () if d.get("loaded")}
    wanted = sorted((loaded | set(NEEDED)) & set(packages) - {OURS})
    text = _lock_text(code)
    return Plan(
        python=version,
        requirements=tuple(f"{name}=={packages[name]}" for name in wanted),
        constraints=tuple(f"{name}=={v}" for name, v in sorted(packages.items()) if name != OURS),
        lock=text,
        threads={name: _plain_number(environment, name) for name in THREAD_VARIABLES},
    )


def _lock_text(code: Mapping[str, Any]) -> str | None:
    """Return the text of the project's ``pylock.toml``, else of the one that was made of the installed distributions."""
    project, made = code.get("lock") or {}, code.get("pylock") or {}
    ours = project.get("text") if str(project.get("name", "")).startswith("pylock") else made.get("text")
    return ours if isinstance(ours, str) else None


def _check_plain(packages: Mapping[str, Any], *, python: str) -> None:
    """Raise where a name or version could be an option or a place: a line of a requirements file can name an index."""
    if not PYTHON.fullmatch(python):
        msg = f"the recorded Python version {python[:80]!r} is not a version"
        raise ExplainStepError(msg)
    for name, version in packages.items():
        if not NAME.fullmatch(str(name)) or not VERSION.fullmatch(str(version)):
            msg = f"the recorded package {str(name)[:80]!r} {str(version)[:80]!r} is not a name and a version"
            raise ExplainStepError(msg)


def _plain_number(environment: Mapping[str, Any], name: str) -> str | None:
    value = (environment.get("threads") or {}).get(name)
    return value if isinstance(value, str) and SETTING.fullmatch(value) else None


def replay_recreated(shot: Snapshot, given: Given, *, folder: Path, wheels: Path | None) -> Replay:
    """Build the recorded environment below ``folder``, and replay a verified snapshot inside.

    Raises
    ------
    InvalidInput
        Something was given as an object that cannot go to another process.
    """
    _check(given)
    if find_uv() is None:
        return not_replayable(shot, "uv is not installed; it builds the environment", environment="recreate")
    try:
        records = (provenance_record(shot.path, name) for name in ("environment", "code"))
        plan = plan_of(*records)
        python, notes = _build(plan, folder / "venv", wheels=wheels)
        package, more = _package(plan_version=_version(shot), python=python, folder=folder, wheels=wheels)
        arguments = _arguments(shot, given, folder=folder)
        record = _run(python, arguments, package=package, threads=plan.threads)
    except ExplainStepError as error:
        return not_replayable(shot, str(error), environment="recreate")
    found = from_record(record)
    return replace(found, environment="recreate", notes=(*notes, *more, *found.notes))


def _check(given: Given) -> None:
    for name in ("y", "sample_weight"):
        if not isinstance(getattr(given, name), str | None):
            msg = f"Argument {name} must be the name of a column of data with env='recreate'; put it into the data."
            raise InvalidInput(msg)
    if not isinstance(given.model, str | Path | None):
        msg = (
            "Argument model must be a URI or a directory with env='recreate': objects stay in their process."
        )
        raise InvalidInput(msg)
    if given.config is not None:
        msg = "Argument config must be left out with env='recreate'; the recorded options are used."
        raise InvalidInput(msg)


def _version(shot: Snapshot) -> str:
    return str(shot.manifest["tool"]).rpartition(" ")[2]


def _build(plan: Plan, place: Path, *, wheels: Path | None) -> tuple[Path, tuple[str, ...]]:
    """Make the environment; return its interpreter, and what is not as recorded."""
    offline = ("--offline",) if wheels is not None else ()
    notes = _venv(plan.python, place, offline=offline)
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if plan.lock is not None and wheels is None:
        (place / "pylock.toml").write_text(plan.lock, encoding="utf-8")
        _install(python, "-r", str(place / "pylock.toml"))
        return python, (*notes, *_not_locked(plan))
    if wheels is not None:
        _check_wheels(plan.lock, wheels)
        requirements, more = _in_folder(plan.requirements, wheels)
        place_of = ("--offline", "--no-index", "--find-links", str(wheels.resolve()))
        _install_named(python, requirements, constraints=plan.constraints, options=place_of)
        return python, (*notes, *more)
    return python, (*notes, *_from_index(plan, python))


def _from_index(plan: Plan, python: Path) -> tuple[str, ...]:
    """Install by name; what the index offers as source alone is left out, because building it would run its code."""
    lacking: list[str] = []
    while True:
        kept = [r for r in plan.requirements if r.partition("==")[0] not in lacking]
        try:
            _install_named(python, kept, constraints=plan.constraints)
        except ExplainStepError as error:
            source = next((n for n in NO_WHEEL.findall(str(error)) if n not in {*NEEDED, *lacking}), None)
            if source is None or len(lacking) == MOST_SOURCES:
                raise
            lacking.append(source)
        else:
            return _left_out("the index has no wheel of it", lacking)


def _install(python: Path, *source: str) -> None:
    _uv("pip", "install", "--python", str(python), "--no-build", "--no-config", *source)


def _install_named(
    python: Path, requirements: Sequence[str], *, constraints: Sequence[str], options: Sequence[str] = ()
) -> None:
    """Install by name and version, from the index or as the options say."""
    files = {"requirements.txt": requirements, "constraints.txt": constraints}
    for name, lines in files.items():
        (python.parent / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    places = [str(python.parent / name) for name in files]
    _install(python, "-r", places[0], "-c", places[1], *options)


def _not_locked(plan: Plan) -> tuple[str, ...]:
    """Name what was in use and is not in the lock: it had no wheel, or did not come from an index."""
    try:
        locked = {str(p["name"]) for p in tomllib.loads(plan.lock or "").get("packages", [])}
    except (tomllib.TOMLDecodeError, AttributeError, KeyError, TypeError):
        return ()
    names = {r.partition("==")[0]: r for r in plan.requirements}
    return _left_out("not in the recorded lock", [r for n, r in names.items() if n not in locked])


def _left_out(why: str, lacking: Sequence[str]) -> tuple[str, ...]:
    shown = f"{', '.join(lacking[:8])}{' …' if len(lacking) > 8 else ''}"
    return (f"{why}, and left out: {shown}",) if lacking else ()


def _check_wheels(lock: str | None, wheels: Path) -> None:
    """Raise where a wheel of the folder has another digest than the recorded lock gives for a file of that name."""
    if lock is None:
        return
    try:
        packages = tomllib.loads(lock).get("packages", [])
        locked = {
            str(entry.get("name") or str(entry["url"]).rpartition("/")[2]): str(entry["hashes"]["sha256"])
            for package in packages
            for entry in package.get("wheels", [])
            if "sha256" in entry.get("hashes", {})
        }
    except (tomllib.TOMLDecodeError, AttributeError, KeyError, TypeError) as error:
        msg = f"the recorded pylock.toml cannot be read: {error}"
        raise ExplainStepError(msg) from error
    for wheel in sorted(wheels.glob("*.whl")):
        if wheel.name in locked and sha256_file(wheel) != locked[wheel.name]:
            msg = f"{wheel.name} is not the recorded wheel: hash mismatch with the recorded pylock.toml"
            raise ExplainStepError(msg)


def _in_folder(requirements: Sequence[str], wheels: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what a folder of wheels can be asked for, and a note on the rest: what this package needs is never left out.

    A process also imports tools that no number rests on. Where something else is lacking, the replay fails and says so.
    """
    there = {canonical_name(path.name.partition("-")[0]) for path in wheels.glob("*.whl")}
    kept = tuple(r for r in requirements if r.partition("==")[0] in there | set(NEEDED))
    return kept, _left_out("not among the wheels", [r for r in requirements if r not in kept])


def _venv(version: str, place: Path, *, offline: Sequence[str]) -> tuple[str, ...]:
    """Make an empty environment of the recorded Python, or else of its minor version."""
    try:
        _uv("venv", "--no-project", "--python", _interpreter(version), *offline, str(place))
    except ExplainStepError:
        minor = ".".join(version.split(".")[:2])
        _uv("venv", "--no-project", "--python", _interpreter(minor), *offline, "--clear", str(place))
        return (f"Python {version} is not available; another {minor} was taken",)
    return ()


def _interpreter(version: str) -> str:
    """Return the running interpreter where it is of this version (``uv`` may not find it), else the version."""
    here = platform.python_version()
    return sys.executable if sys.executable and f"{here}.".startswith(f"{version}.") else version


def _uv(*arguments: str) -> None:
    done = subprocess.run(
        [find_uv() or "uv", *arguments],
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
        errors="replace",
    )
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = " ".join(lines[-6:])[-600:]
        msg = f"the environment could not be rebuilt: uv {arguments[0]}: {said}"
        raise ExplainStepError(msg)


def _package(
    *, plan_version: str, python: Path, folder: Path, wheels: Path | None
) -> tuple[Path | None, tuple[str, ...]]:
    """Install this package from its wheel where the folder has it; else lend the running one by its path."""
    pattern = f"explain_step-{plan_version}-*.whl"
    found = sorted(wheels.glob(pattern)) if wheels is not None else []
    if found:
        _uv("pip", "install", "--python", str(python), "--no-deps", "--offline", str(found[0].resolve()))
        return None, ()
    import explain_step

    lent = folder / "package"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(explain_step.__file__).parent, lent / "explain_step", ignore=ignore)
    return lent, (f"explain-step {explain_step.__version__} of this process was used inside",)


def _arguments(shot: Snapshot, given: Given, *, folder: Path) -> list[str]:
    """Return the command line of the replay inside; frames become files, the model a checked copy."""
    model = given.model if given.model is not None else recorded_uri(shot)
    arguments = ["replay", str(shot.path.resolve()), "--json"]
    if model is not None:
        copied_model(model, destination=folder / "inner_model", tracking_uri=given.tracking_uri)
        arguments += ["--model", str(folder / "inner_model")]
    for option, value in (("--data", given.data), ("--background", given.background)):
        if value is not None:
            arguments += [option, str(_as_file(value, folder / f"{option.strip('-')}.parquet"))]
    for option, value in (("--target", given.y), ("--sample-weight", given.sample_weight)):
        arguments += [] if value is None else [option, str(value)]
    if given.policy is not None:
        arguments += ["--policy", str(_policy(given.policy, folder))]
    return [*arguments, *([] if given.figures else ["--no-figures"])]


def _as_file(value: Any, place: Path) -> Path:
    if isinstance(value, str | Path):
        return Path(value).resolve()
    to_frame(value, argument="data").to_parquet(place)
    return place


def _policy(policy: Any, folder: Path) -> Path:
    from explain_step.gate import load_policy

    if isinstance(policy, str | Path):
        return Path(policy).resolve()
    place = folder / "policy.json"
    place.write_text(load_policy(policy).model_dump_json(exclude_unset=True), encoding="utf-8")
    return place


def _run(
    python: Path, arguments: Sequence[str], *, package: Path | None, threads: Mapping[str, str | None]
) -> dict[str, Any]:
    """Replay inside and return the record."""
    done = subprocess.run(
        [str(python), "-m", "explain_step", *arguments],
        capture_output=True,
        text=True,
        timeout=REPLAY_SECONDS,
        check=False,
        errors="replace",
        cwd=python.parent,
        env=_variables(package, threads=threads),
    )
    try:
        record = json.loads(done.stdout)
    except ValueError:
        record = {}
    if "verdict" not in record:
        said = record.get("message") or done.stderr.strip()[-400:] or f"exit code {done.returncode}"
        msg = f"the replay inside the recreated environment failed: {said}"
        raise ExplainStepError(msg)
    return dict(record)


def _variables(package: Path | None, *, threads: Mapping[str, str | None]) -> dict[str, str]:
    """Return this process's variables with the recorded thread settings, without those of another Python."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH") and name not in threads
    }
    kept.update({name: value for name, value in threads.items() if isinstance(value, str)})
    if package is not None:
        kept["PYTHONPATH"] = str(package)
    return kept
