"""Where a snapshot came from: environment, code and data. Unknown facts say why; secrets never get in.

Everything here is reading: no network, no import of what is not loaded, and no more than a fraction of a
second.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from explain_step.digests import frame_digest
from explain_step.secret_masking import mask
from explain_step.snapshot.provenance_code import lock, own_source, repository
from explain_step.snapshot.provenance_lock import pylock
from explain_step.snapshot.provenance_machine import blas, container, cpu_flags, gpu, unknown
from explain_step.snapshot.provenance_packages import distributions
from explain_step.types import Subject

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
    "PYTHONHASHSEED",
    "CUDA_VISIBLE_DEVICES",
)
_SIZED = {"i": "int", "u": "uint", "f": "float"}
_UNSIZED = {"b": "bool", "M": "timestamp", "m": "duration"}
_CONTENT = {"string": "text", "empty": "text", "boolean": "bool"}


def environment() -> dict[str, Any]:
    """Return machine, interpreter, thread settings and every installed distribution.

    The host and user names are left out; `provenance_origin.origin` has them.
    """
    installed = distributions()
    libc = " ".join(platform.libc_ver()).strip()
    return {
        "os": _os_name(),
        "kernel": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "libc": libc or unknown("the platform does not say"),
        "cpu": _cpu(),
        "cpu_flags": cpu_flags(),
        "cores": os.cpu_count() or unknown("the platform does not say"),
        "cores_usable": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else unknown("not on this platform"),
        "memory_bytes": _memory(),
        "gpu": gpu(),
        "container": container(),
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "build": " ".join(platform.python_build()),
            "compiler": platform.python_compiler(),
        },
        "threads": {name: os.environ.get(name) for name in THREAD_VARIABLES},
        "blas": blas(),
        "packages": {found["name"]: found["version"] for found in installed},
        "distributions": installed,
    }


def _os_name() -> Any:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.platform(terse=True) or unknown("the platform does not say")


def _cpu() -> Any:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or unknown("the platform does not say")


def _memory() -> Any:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return unknown("the platform does not say")


def code(
    *,
    seed: int,
    argv: Sequence[str] | None = None,
    directory: str | Path | None = None,
    consumers: Mapping[str, int] | None = None,
    text: bool = True,
    installed: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return what the training code was: commit, changes since, remote, entry point, masked command line, lock, seeds.

    Parameters
    ----------
    seed : int
        The root seed of everything random in the explanation.
    argv : sequence of str, optional
        Default: this process's.
    directory : path, optional
        Where to look for a git repository and a lock file. Default: the folder of the entry point, else the working
        directory.
    consumers : mapping of str to int, optional
        Stages that drew random numbers, and how many streams each.
    text : bool
        False leaves the text of the diff out.
    installed : sequence of mapping, optional
        The distributions of `environment`, where they are known already.
    """
    words = list(sys.argv if argv is None else argv)
    script = Path(words[0]) if words and words[0] else None
    is_file = script is not None and script.is_file()
    where = (
        Path(directory) if directory is not None else (script.parent if is_file and script else Path.cwd())
    )
    entry = script.name if script is not None and script.name else None
    return {
        "git": repository(where, text=text),
        "entry_point": entry if entry else unknown("the interpreter was started without a script"),
        "argv": mask(([entry] if entry else []) + words[1:]),
        "lock": lock(where),
        "pylock": pylock(distributions() if installed is None else installed, where=where),
        "explain_step": own_source(),
        "seed": seeds(seed, consumers=consumers),
    }


def seeds(seed: int, *, consumers: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return what is random in the explanation: the root seed, and the stages that drew numbers."""
    return {
        "root": seed,
        "rule": "one child of SeedSequence([root, crc32(stage), crc32(name)]) per consumer",
        "consumers": [
            {"name": name, "value": [seed, crc32(name.encode())], "consumer": name, "streams": streams}
            for name, streams in sorted((consumers or {}).items())
        ],
    }


def surroundings(*, seed: int, text: bool) -> dict[str, Any]:
    """Return the records of `environment` and `code`, which know nothing of the explanation yet; ``text`` as there."""
    found = environment()
    return {"environment": found, "code": code(seed=seed, text=text, installed=found["distributions"])}


def data(subject: Subject, *, digest: str | None = None) -> dict[str, Any]:
    """Return what the explained rows are: digests, numbers of rows and the types of the columns.

    No value of any row is in it. ``digest`` is that of the frame, where it is known already.
    """
    return {
        "digest": digest or frame_digest(subject.frame),
        "labels_digest": None
        if subject.y is None
        else frame_digest(pd.DataFrame(_two_dimensional(subject.y))),
        "weights_digest": None
        if subject.weights is None
        else frame_digest(pd.DataFrame({"w": subject.weights})),
        "background_digest": frame_digest(subject.background),
        "background": subject.background_name,
        "background_rows": len(subject.background),
        "rows": len(subject.frame),
        "target": subject.target_name,
        "features": list(subject.X.columns),
        "columns": _columns(subject.frame),
    }


def _two_dimensional(values: Any) -> Any:
    array = np.asarray(values)
    return array if array.ndim == 2 else array[:, None]


def _columns(frame: pd.DataFrame) -> list[Mapping[str, Any]]:
    return [
        {"name": str(name), "type": logical_type(frame.iloc[:, k]), "missing": int(missing)}
        for k, (name, missing) in enumerate(frame.isna().sum().items())
    ]


def logical_type(column: pd.Series[Any]) -> str:
    """Return the type of a column's content, the same for every way of storing it, as in `frame_digest`.

    The types are part of the snapshot id: pandas 2 and 3, polars and Arrow store the same text differently.

    Examples
    --------
    >>> logical_type(pd.Series(["a", None], dtype=object)), logical_type(pd.Series([1, 2], dtype="Int64"))
    ('text', 'int64')
    """
    dtype: Any = column.dtype
    if isinstance(dtype, pd.SparseDtype):
        return logical_type(column.astype(dtype.subtype))
    if isinstance(dtype, pd.CategoricalDtype):
        return "ordered category" if dtype.ordered else "category"
    kind = getattr(dtype, "kind", "O")
    if kind in _SIZED:
        return f"{_SIZED[kind]}{dtype.itemsize * 8}"
    if kind in _UNSIZED:
        return _UNSIZED[kind]
    return _CONTENT.get(pd.api.types.infer_dtype(column, skipna=True), "object")
