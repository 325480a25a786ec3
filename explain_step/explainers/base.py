"""What an explainer is."""

from __future__ import annotations

from typing import Protocol

from explain_step.config import Config
from explain_step.seeds import Seeds
from explain_step.types import Attributions, Subject


class Explainer(Protocol):
    """One way to compute interventional Shapley values: a file here and an entry in ``EXPLAINERS``."""

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
