"""What an explainer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import pandas as pd

from explain_step.config import Config
from explain_step.seeds import Seeds
from explain_step.types import Attributions, FloatArray, MethodSpec, Subject


class Explainer(Protocol):
    """One way to compute Shapley values: a file here and an entry in ``EXPLAINERS``, or in the tuple of another quantity."""

    @property
    def name(self) -> str:
        """Name in ``MethodSpec.name`` and in messages."""

    def why_not(self, subject: Subject) -> str | None:
        """Return why this explainer cannot explain ``subject``, or None where it can."""

    def explain(self, subject: Subject, *, config: Config, seeds: Seeds) -> Attributions:
        """Return the attributions of the subject's rows, or of a sample of them.

        Raises
        ------
        NotApplicable
            It turned out on the way that it cannot; the next explainer is asked.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """An exact explainer against a fixed background: explains any rows, block by block.

    Attributes
    ----------
    values : callable
        Raw rows (a DataFrame of n rows) to values of shape (n, n_features, n_outputs).
    base : ndarray of shape (n_outputs,)
    method : MethodSpec
    """

    values: Callable[[pd.DataFrame], FloatArray]
    base: FloatArray
    method: MethodSpec


@runtime_checkable
class Preparing(Protocol):
    """An exact explainer that can do what does not depend on the rows once, for many blocks of them."""

    def prepare(self, subject: Subject, *, rows: int, budget: float) -> Prepared:
        """Return the explainer of ``subject``'s model against its background, for about ``rows`` rows.

        Raises
        ------
        NotApplicable
            As `Explainer.explain`; or so many rows take longer than ``budget`` seconds.
        """


@runtime_checkable
class Bounded(Protocol):
    """An exact explainer that can cost more than a budget, and tells before it begins."""

    def rows_within(self, subject: Subject, *, budget: float) -> int:
        """Return how many of the subject's rows ``budget`` seconds afford."""
