"""What is explained, in words: the sentences at the top of the page, and words that all findings share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from explain_step.report.format import Name, Text, clean, is_number, number, plural

METRICS = {
    "roc_auc": "ROC AUC",
    "log_loss": "log loss",
    "brier": "Brier score",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1 score",
    "rmse": "RMSE",
    "mae": "MAE",
    "r2": "R\u00b2",
}
IN_FULL = {
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "share of variance explained",
}
SMALL = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)


def metric_words(name: object) -> str:
    """Return a metric's name for readers."""
    return METRICS.get(str(name), clean(name).replace("_", " "))


def capital(text: str) -> str:
    """Return ``text`` with a capital first letter, the rest as it is."""
    return text[:1].upper() + text[1:]


def sentence(text: object) -> str:
    """Return text from elsewhere as one sentence: one line, a capital first, a full stop last.

    Examples
    --------
    >>> sentence("no labels were given")
    'No labels were given.'
    """
    line = clean(text).strip()
    first = line.split(" ", 1)[0]
    return (line if "_" in first else capital(line)) + (
        "" if not line or line.endswith((".", "!", "?")) else "."
    )


def spelled(n: int) -> str:
    """Return a small number as a word, as sentences begin with.

    Examples
    --------
    >>> spelled(3), spelled(1666)
    ('three', '1,666')
    """
    return SMALL[n] if 0 <= n < len(SMALL) else f"{n:,}"


def explained(quantity: Mapping[str, Any]) -> Text:
    """Return the explained quantity in words: ``the predicted probability of deny = yes``.

    Examples
    --------
    >>> from explain_step.report.format import plain
    >>> plain(explained({"phrase": "predicted probability of deny = yes", "outputs": ["yes"]}))
    'the predicted probability of deny = yes'
    """
    what, _, which = clean(quantity.get("phrase") or "prediction").partition(" of ")
    outputs = list(quantity.get("outputs") or ())
    if len(outputs) > 1 and which.endswith(f": {outputs[0]}"):  # all about one target
        listed = f" in {spelled(len(outputs))} numbers ({', '.join(outputs)})"
        return (f"the {what} of ", Name(which.removesuffix(f": {outputs[0]}")), listed)
    if len(outputs) > 1:
        target = quantity.get("target")
        if quantity.get("output_space") == "prediction":
            return (f"the {what} of each of the {spelled(len(outputs))} targets",)
        head = f"the {what} of each of the {spelled(len(outputs))} classes"
        return (f"{head} of ", Name(str(target))) if target else (head,)
    return (f"the {what} of ", Name(which)) if which else (f"the {what}",)


def aloud(quantity: Mapping[str, Any]) -> Text:
    """Return the one sentence that a judge could read aloud: of what, for whom, against what, how."""
    rows, given = int(quantity.get("rows") or 0), int(quantity.get("rows_given") or 0)
    whom = f"{rows:,} of {given:,} held-out rows" if rows < given else plural(rows, "held-out row")
    end = f" for {whom}, against {background(quantity)}, {how(quantity)}"
    return ("This page explains ", *explained(quantity), end)


def background(quantity: Mapping[str, Any]) -> str:
    """Return the background in words, as its maker named it."""
    named = clean(quantity.get("background") or "").strip()
    rows = quantity.get("background_rows")
    counted = plural(int(rows), "background row") if is_number(rows) and rows is not None else ""
    return named or counted or "a background that is not stated"


def perturbation(quantity: Mapping[str, Any]) -> str:
    """Return which Shapley values these are; snapshots that do not say have interventional ones."""
    other = quantity.get("feature_perturbation") == "correlation_dependent"
    return "correlation_dependent" if other else "interventional"


def how(quantity: Mapping[str, Any]) -> str:
    """Return ``exactly.`` or how closely the values are estimated."""
    credit = ", with credit also for what inputs tell of each other"
    also = "" if perturbation(quantity) == "interventional" else credit
    if quantity.get("exact"):
        return f"exactly{also}."
    error = quantity.get("typical_error")
    within = f", typically to within \u00b1{number(error, digits=2)}" if is_number(error) else ""
    return f"estimated by sampling{within}{also}."
