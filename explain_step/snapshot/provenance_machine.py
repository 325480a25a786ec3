"""The machine: processor flags, graphics, container, and the linear-algebra libraries that are loaded."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from explain_step.secret_masking import mask_text

CONTAINER_VARIABLE = "EXPLAIN_STEP_CONTAINER"
"""Names the image with its digest: a process cannot see the digest of the image it runs in."""
BLAS_KEYS = (
    "user_api",
    "internal_api",
    "prefix",
    "version",
    "num_threads",
    "threading_layer",
    "architecture",
)


def unknown(reason: str) -> dict[str, Any]:
    """Return the record of a fact that could not be found."""
    return {"value": None, "reason": reason}


def cpu_flags() -> Any:
    """Return the instruction sets of the first processor, sorted; they decide how sums are rounded."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                return " ".join(sorted(line.partition(":")[2].split()))
    except OSError:
        pass
    return unknown("the platform does not list them")


def gpu() -> Any:
    """Return drivers and devices as the kernel shows them; nothing is started to ask for them."""
    nvidia = Path("/proc/driver/nvidia")
    try:
        if (nvidia / "version").is_file():
            driver = (nvidia / "version").read_text(encoding="utf-8", errors="replace").splitlines()[0]
            cards = sorted(nvidia.glob("gpus/*/information"))
            models = [
                line.partition(":")[2].strip()
                for card in cards
                for line in card.read_text(encoding="utf-8", errors="replace").splitlines()
                if line.startswith("Model")
            ]
            return {"driver": driver, "devices": models}
        amd = Path("/sys/module/amdgpu/version")
        if amd.is_file():
            return {"driver": f"amdgpu {amd.read_text(encoding='utf-8').strip()}", "devices": []}
    except (OSError, IndexError) as error:
        return unknown(f"the kernel's files could not be read: {type(error).__name__}")
    return unknown("no NVIDIA or AMD driver is loaded")


def container() -> Any:
    """Return the image that the environment names, or what can be seen of a container."""
    named = os.environ.get(CONTAINER_VARIABLE, "").strip()
    if named:
        digest = re.search(r"sha256:[0-9a-f]{64}", named)
        return {
            "image": mask_text(named),
            "digest": digest[0] if digest else unknown("the name has no digest"),
        }
    podman = Path("/run/.containerenv")
    try:
        found = re.search(r'imageid="([0-9a-f]{64})"', podman.read_text(encoding="utf-8"))
        if found:
            return {"image": None, "digest": f"sha256:{found[1]}"}
    except OSError:
        pass
    inside = podman.exists() or Path("/.dockerenv").exists() or "KUBERNETES_SERVICE_HOST" in os.environ
    seen = "in a container that does not tell its image" if inside else "no container was seen"
    return unknown(f"{seen}; set {CONTAINER_VARIABLE} to name@sha256:… to record it")


def blas() -> Any:
    """Return the loaded linear-algebra and threading libraries and their numbers of threads, without paths."""
    try:
        import threadpoolctl
    except ImportError:
        return unknown("threadpoolctl is not installed")
    found = [
        {key: library[key] for key in BLAS_KEYS if library.get(key) is not None}
        for library in threadpoolctl.threadpool_info()
    ]
    return sorted(found, key=lambda library: sorted((k, str(v)) for k, v in library.items()))
