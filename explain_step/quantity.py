"""The explained quantity, in words and as metadata: stated on every table, figure and page."""

from __future__ import annotations

from typing import Any

import numpy as np

from explain_step.types import Attributions, FeaturePerturbation, FittedModel, Response, Subject

SPACE_WORDS = {
    "probability": "predicted probability",
    "margin": "margin (raw score)",
    "prediction": "prediction",
}


def output_phrase(model: FittedModel, output: str, *, target: str) -> str:
    """Return one explained output in words: ``predicted probability of deny = yes``.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> output_phrase(SimpleNamespace(task="binary", output_space="probability"), "yes", target="deny")
    'predicted probability of deny = yes'
    """
    words = SPACE_WORDS[model.output_space]
    if model.task == "regression":
        about = f"{words} of {target or 'the target'}"
        return f"{about}: {output}" if model.unjudged else f"{words} of {target or output}"
    alone = f"class {output}" if model.output_space == "probability" else output
    return f"{words} of {target} = {output}" if target else f"{words} of {alone}"


def without_unit(model: FittedModel, response: Response) -> bool:
    """Return whether the output is a score (of a ranking, a risk), which no label can be subtracted from."""
    return model.classes is None and model.output_space == "margin" and response.prediction is None


def incomparable(model: FittedModel, response: Response) -> str | None:
    """Return why labels, where there are some, are not compared with the output; None where they are."""
    if without_unit(model, response):
        return "the model gives a score without a unit, and errors against labels would say nothing"
    return model.unjudged


def no_labels(subject: Subject) -> str:
    """Return why there are no labels to compare with."""
    return incomparable(subject.model, subject.response) or "no labels were given"


def quantity(subject: Subject, attributions: Attributions) -> dict[str, Any]:
    """Return the strict-JSON description of what a set of attributions explains, for every artifact's ``meta``."""
    model = subject.model
    return {
        "output_space": attributions.output_space,
        "feature_perturbation": perturbation(attributions),
        "outputs": list(attributions.output_names),
        "target": subject.target_name,
        "phrase": output_phrase(model, attributions.output_names[0], target=subject.target_name),
        "background": compared_with(subject, attributions),
        "background_rows": len(subject.background),
        "method": attributions.method.name,
        "exact": attributions.method.exact,
        "typical_error": typical_error(attributions),
        "rows": len(attributions.rows),
        "rows_given": len(subject.X),
    }


def perturbation(attributions: Attributions) -> FeaturePerturbation:
    """Return what the columns outside a coalition are: replaced (interventional), or expected from those inside."""
    found: FeaturePerturbation = attributions.method.params.get("feature_perturbation", "interventional")
    return found


def compared_with(subject: Subject, attributions: Attributions) -> str:
    """Return the background in words, and how many of its rows the values rest on where these are not all."""
    params = attributions.method.params
    used, given = params.get("background_rows"), params.get("background_given")
    if used is None or given is None or used == given:
        return subject.background_name
    return f"{used:,} of {subject.background_name}"


def typical_error(attributions: Attributions) -> float | None:
    """Return the half-width of a typical value's own 95% sampling interval; None for exact values.

    It is 1.96 times the root mean square standard error over rows, features and outputs, to three digits.
    """
    if (
        attributions.method.exact
        or attributions.standard_error is None
        or attributions.standard_error.size == 0
    ):
        return None
    error = 1.96 * float(np.sqrt(np.mean(attributions.standard_error**2)))
    return float(f"{error:.2e}") if np.isfinite(error) else None
