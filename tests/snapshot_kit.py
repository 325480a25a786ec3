"""A small explanation, made by hand, for the tests of the snapshot room."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from explain_step.config import Config
from explain_step.snapshot import ModelRef, SnapshotParts, write
from explain_step.types import (
    Artifact,
    Attributions,
    Caveat,
    Figure,
    FittedModel,
    MethodSpec,
    Response,
    Score,
    Subject,
)

SPEC = MethodSpec(name="linear", version="1", params={"output": "prediction"})


def frame(rows: int, *, seed: int = 0) -> pd.DataFrame:
    """Return rows with a number and a text column under a text index."""
    rng = np.random.default_rng(seed)
    columns = {"income": rng.normal(size=rows), "town": rng.choice(["north", "south"], size=rows)}
    return pd.DataFrame(columns, index=[f"row-{i}" for i in range(rows)])


def subject(X: pd.DataFrame, *, outputs: tuple[str, ...] = ("price",)) -> Subject:
    """Return a subject of a model that repeats its first column, once per output."""

    def respond(given: pd.DataFrame) -> Response:
        return Response(
            output=np.repeat(given["income"].to_numpy(dtype=float)[:, None], len(outputs), axis=1)
        )

    model = FittedModel(
        respond=respond,
        native=None,
        family="blackbox",
        task="regression",
        output_space="prediction",
        output_names=outputs,
        feature_names=tuple(X.columns),
        model_class="Repeater",
    )
    plain = X.reset_index(drop=True)
    return Subject(
        model=model,
        X=plain,
        frame=plain,
        y=plain["income"].to_numpy(dtype=float),
        background=plain,
        background_name="the explained rows themselves",
        weights=None,
        row_ids=X.index.to_numpy(dtype=object).astype(str),
        target_name="price",
        response=respond(plain),
    )


def attributions(of: Subject, *, standard_error: bool = False) -> Attributions:
    """Return attributions that give everything to the first column."""
    n, d, k = len(of.X), len(of.X.columns), len(of.model.output_names)
    values = np.zeros((n, d, k))
    values[:, 0, :] = of.response.output
    return Attributions(
        values=values,
        base_values=np.zeros((n, k)),
        feature_names=tuple(of.X.columns),
        output_names=of.model.output_names,
        output_space="prediction",
        method=SPEC,
        rows=np.arange(n),
        standard_error=np.full((n, d, k), 0.5) if standard_error else None,
    )


def importance(features: tuple[str, ...] = ("income", "town")) -> pd.DataFrame:
    """Return an importance table with an interval for the first feature only."""
    n = len(features)
    return pd.DataFrame(
        {
            "output": "price",
            "feature": list(features),
            "mean_abs_shap": [0.8] + [0.1] * (n - 1),
            "ci_low": [0.7] + [np.nan] * (n - 1),
            "ci_high": [0.9] + [np.nan] * (n - 1),
            "rank": np.arange(1, n + 1),
            "rank_low": [1] * n,
            "rank_high": [n] * n,
            "share": [0.8] + [0.2 / max(n - 1, 1)] * (n - 1),
        }
    )


def figure(slug: str = "bar") -> Figure:
    """Return a figure with stand-in bytes."""
    return Figure(kind="importance", slug=slug, png=b"\x89PNG 1", alt="Bars", width=2, height=1)


def parts(rows: int = 30, **changes: Any) -> SnapshotParts:
    """Return the parts of a small snapshot, with some of them changed."""
    of = changes.pop("subject", None) or subject(frame(rows))
    table = changes.pop("table", None)
    given: dict[str, Any] = {
        "model": ModelRef(model_class="Repeater"),
        "subject": of,
        "config": Config(),
        "quantity": {
            "phrase": "prediction of price",
            "outputs": list(of.model.output_names),
            "rows": len(of.X),
            "rows_given": len(of.X),
            "background": of.background_name,
            "exact": True,
        },
        "status": "degraded",
        "reason": "segments: nothing to cut by",
        "artifacts": (
            Artifact(
                name="importance",
                kind="importance",
                table=importance() if table is None else table,
                meta={"interval": "covers other rows of the same population"},
            ),
        ),
        "attributions": attributions(of),
        "scores": (
            Score(
                name="additivity_error",
                variant="max",
                value=2.2e-16,
                ci_low=None,
                ci_high=None,
                direction="lower",
                n=rows,
                method=SPEC,
            ),
        ),
        "caveats": (
            Caveat(code="small", section="importance", message="There are few rows.", degrades=True),
        ),
        "missing": {"segments": "nothing to cut by"},
        "events": ({"step": "data", "status": "ok"}, {"step": "attributions", "status": "ok"}),
        "page": lambda identity: f"<!doctype html><title>{identity}</title>",
        "card": lambda identity: f"# Snapshot {identity}\n",
    }
    figures = changes.pop("figures", (figure(),))
    return SnapshotParts(figures=lambda: figures, **{**given, **changes})


def copied(folder: Path) -> Path:
    """Return a copy of the plain snapshot: writing one asks Git and uv, which takes half a second."""
    name, files = _plain()
    put(folder / name, files)
    return folder / name


@cache
def _plain() -> tuple[str, dict[str, bytes]]:
    with tempfile.TemporaryDirectory() as folder:
        place = write(Path(folder), parts=parts()).path
        return place.name, content(place)


def content(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder that is made for them."""
    for name, data in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
