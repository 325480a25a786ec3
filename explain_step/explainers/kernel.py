"""Exact interventional Shapley values of kernel machines with Gaussian kernels, on raw columns.

Each pair of a point of the machine (a support vector) and a background row is a game of products (`product_games`), and
the values of their sum are the sum of theirs. That takes less time than one pair of permutations does. Product kernels
were used so before for another game, in which absent columns have no background (Mohammadi, Chau and Muandet 2025,
arXiv:2505.16516); here it is the one of every other explainer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.explainers import kernel_machines, masking, product_games, tree_compiled
from explain_step.explainers.kernel_machines import Machine
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FittedModel, FloatArray, IntArray, MethodSpec, Subject

METHOD, VERSION = "product_kernel", "1"
"""Not ``kernel``, which readers know as the name of an estimate (KernelSHAP)."""
PROBE_ROWS = 50
ROUNDING = 1e-12
"""Error allowed relative to the terms of the sum, which may cancel."""
MOST_COLUMNS = 200
"""Nodes of the quadrature are known to be exact for so many columns."""
MOST_CELLS = 50_000_000
"""Largest dense table of derived columns: 400 MB."""
PER_SECOND, WITH_NUMPY = 3e9, 5e7
"""Products that a second of the stage's budget affords: half of what two processors make; and with NumPy alone."""
FEWEST, ROWS_PER_OTHER = 100, 10
"""Rows and background rows that there are at least, and how many rows are explained for each background row."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The explainer for models whose explained output is a weighted sum of Gaussian kernels."""

    name: str = "kernel"

    def why_not(self, subject: Subject) -> str | None:
        """Return why the products do not make up the output of ``subject``, or None where they do."""
        model = subject.model
        if model.family != "kernel" or model.native is None:
            return "the model is not a kernel machine"
        if model.output_space == "probability":
            return "a probability is not a weighted sum of kernels; output='margin' is exact"
        try:
            machine = kernel_machines.read(model.native)
        except NotApplicable as error:
            return str(error)
        features = len(np.unique(_sources(model)))
        if features > MOST_COLUMNS:
            return f"{features} columns are too many for exact values of kernels (up to {MOST_COLUMNS})"
        if (len(subject.background) + len(machine.points)) * machine.points.shape[1] > MOST_CELLS:
            return f"{machine.points.shape[1]:,} derived columns do not fit in memory as a dense table"
        return _differs(subject, machine)

    def rows_within(self, subject: Subject, *, budget: float) -> int:
        """Return how many of the subject's rows ``budget`` seconds and the memory afford."""
        machine = kernel_machines.read(subject.model.native)
        held = max(FEWEST, MOST_CELLS // len(_sources(subject.model)))
        return min(_affordable(subject, machine, budget=budget)[0], held)

    def explain(self, subject: Subject, *, config: Config, seeds: Seeds) -> Attributions:
        """Return the exact values of all rows, against the whole background unless the budget does not reach for it."""
        model, machine = subject.model, kernel_machines.read(subject.model.native)
        given = len(subject.background)
        most = _affordable(subject, machine, budget=config.budget)[1]
        background = subject.background
        if most < given:
            chosen = np.sort(seeds.rng(self.name, "background").choice(given, most, replace=False))
            background = background.iloc[chosen].reset_index(drop=True)
        used, places = np.unique(_sources(model), return_inverse=True)
        shown, others = (_derived(model, frame) for frame in (subject.X, background))
        values = np.zeros((len(subject.X), len(model.feature_names), len(model.output_names)))
        for term in _terms(model, machine):
            values[:, used] += product_games.values(
                shown * term.scale,
                others * term.scale,
                machine.points * term.scale,
                weights=term.weights,
                sources=places,
                features=len(used),
            )
        base = masking.predict(model, background).mean(axis=0)
        params = {
            "rows": len(values),
            "background_rows": most,
            "predicted_rows": most,
            "points": len(machine.points),
        }
        params |= {"background_given": given} if most < given else {}
        return Attributions(
            values=values,
            base_values=np.tile(base, (len(values), 1)),
            feature_names=model.feature_names,
            output_names=model.output_names,
            output_space=model.output_space,
            rows=np.arange(len(values), dtype=np.int64),
            method=MethodSpec(name=METHOD, version=VERSION, params=params),
        )


KERNEL = Kernel()


def _terms(model: FittedModel, machine: Machine) -> list[kernel_machines.Term]:
    """Return the terms of the explained outputs: a binary classifier's speak of its second class."""
    return [replace(term, weights=_sign(model) * term.weights) for term in machine.terms]


def _sign(model: FittedModel) -> float:
    return -1.0 if model.task == "binary" and model.positive == 0 else 1.0


def _sources(model: FittedModel) -> IntArray:
    """Return the raw column of each derived column."""
    known = range(len(model.feature_names)) if model.preprocessing is None else model.preprocessing.sources
    return np.asarray(list(known), dtype=np.int64)


def _derived(model: FittedModel, X: pd.DataFrame) -> FloatArray:
    """Return the matrix whose rows the kernel compares."""
    return kernel_machines.dense(X if model.preprocessing is None else model.preprocessing.transform(X))


def _affordable(subject: Subject, machine: Machine, *, budget: float) -> tuple[int, int]:
    """Return how many rows to explain and how many background rows to take."""
    rows, background = len(subject.X), len(subject.background)
    allowed = budget * (PER_SECOND if tree_compiled.available() else WITH_NUMPY)
    sources = _sources(subject.model)
    points, features = len(machine.points), len(np.unique(sources))
    of_few = product_games.work(
        rows=1, background=FEWEST, points=points, derived=len(sources), features=features
    )
    pairs = allowed * FEWEST / (of_few * max(len(machine.terms), 1))
    if rows * background <= pairs:
        return rows, background
    others = min(background, max(FEWEST, int(np.sqrt(pairs / ROWS_PER_OTHER)), int(pairs / rows)))
    return min(rows, max(FEWEST, int(pairs / others))), others


def _differs(subject: Subject, machine: Machine) -> str | None:
    """Return why the sum of kernels is not the explained output, judged on some rows."""
    model, kind = subject.model, type(subject.model.native).__name__
    if len(machine.intercept) != len(model.output_names):
        return f"the weights of {kind} do not match the {len(model.output_names)} explained outputs"
    some, first = subject.background.iloc[:PROBE_ROWS], subject.X.iloc[:PROBE_ROWS]
    derived = [_derived(model, part) for part in (first, some)]
    if any(part.shape[1] != machine.points.shape[1] for part in derived):
        return f"{kind} has points of {machine.points.shape[1]} derived columns, the rows have {derived[0].shape[1]}"
    output = np.concatenate([subject.response.output[:PROBE_ROWS], masking.predict(model, some)])
    found = _sign(model) * machine.answers(np.concatenate(derived))
    terms = sum(np.abs(term.weights).sum(axis=1) for term in machine.terms) + np.abs(machine.intercept)
    allowed = 1e-6 * np.abs(output).max(axis=0) + ROUNDING * terms
    if not (np.abs(found - output) <= allowed).all():
        return f"the output of {kind} is not the sum of its kernels"
    return None
