"""Figures with the canvases they came from, and tables as they come back from a file."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from effect_kit import kept_canvases

from explain_step.types import Artifact, Figure

LONG = "a column with quite a long name, in words and with a $ or two $ and " + "x" * 250
FIVE = ("alpha", "a class with quite a long name", "gamma", "delta", "epsilon")
"""Names of outputs."""


@dataclass(frozen=True)
class Drawn:
    """Figures as published, and the canvases they came from."""

    figures: tuple[Figure, ...]
    canvases: list[Any]


def drawn(
    module: Any, artifacts: Mapping[str, Artifact], *, labels: Mapping[str, str] | None = None
) -> Drawn:
    """Draw with ``module.draw``."""
    with kept_canvases() as canvases:
        return Drawn(module.draw(artifacts, labels=labels or {}), canvases)


def stored(artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The artifacts with their tables written to Parquet and read again."""
    found = {}
    for name, artifact in artifacts.items():
        buffer = io.BytesIO()
        artifact.table.to_parquet(buffer)
        found[name] = replace(artifact, table=pd.read_parquet(io.BytesIO(buffer.getvalue())))
    return found
