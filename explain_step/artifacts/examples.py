"""Examples: single rows with their local explanation, chosen by stated rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from explain_step import privacy
from explain_step.artifacts.example_choice import Chosen, choose, rules
from explain_step.artifacts.row_order import content_order
from explain_step.config import Config
from explain_step.errors import NotApplicable
from explain_step.quantity import no_labels, quantity
from explain_step.seeds import Seeds
from explain_step.types import Artifact, Attributions, Caveat, FloatArray, Section, Subject

LONGEST = 200
"""Characters of a printed cell."""
RARE_CLASS = "a rare class"
"""Said under ``strict`` of a class that fewer than ``min_segment`` rows have."""
MOST_OUTPUTS = 3
"""Outputs of a regression that are explained per example."""
COLUMNS = (
    "example", "kind", "row_id", "y_true", "y_pred", "prediction", "output", "feature", "feature_value",
    "shap", "base_value", "standard_error", "share",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class _Explained:
    """The explained rows in content order."""

    part: Subject
    values: FloatArray
    base: FloatArray
    error: FloatArray | None


def build(subject: Subject, attributions: Attributions, *, config: Config, seeds: Seeds) -> Section:
    """Return single rows with their local explanations.

    Parameters
    ----------
    subject : Subject
    attributions : Attributions
        Examples are chosen among the explained rows.
    config : Config
        ``redact`` and ``privacy`` decide what is printed.
    seeds : Seeds
        Unused: nothing here is random.

    Returns
    -------
    Section
        ``examples``: one row per example, output and feature.

    Raises
    ------
    NotApplicable
        No row was explained.
    """
    if len(attributions.rows) == 0:
        msg = "no row was explained"
        raise NotApplicable(msg)
    explained = _ordered(subject, attributions, config=config)
    n = len(attributions.rows)
    choice = choose(explained.part, explained.values.reshape(n, -1))
    writer = _Writer(explained, config=config)
    counts: dict[str, int] = {}
    tables = []
    for chosen in choice.rows:
        counts[chosen.kind] = counts.get(chosen.kind, 0) + 1
        tables.append(writer.table(chosen, name=f"{chosen.kind}-{counts[chosen.kind]}"))
    labels = explained.part.y is not None
    band = None if choice.band is None else float(writer.coarse(choice.band))
    meta: dict[str, Any] = {
        "quantity": quantity(subject, attributions),
        "method": "rows chosen by rule, with their attributions",
        "rules": rules(subject.model.task, band=band, labels=labels),
        "counts": counts,
        "prototype_spread": round(choice.spread, 6),
        "chosen_among": n,
        "privacy": _privacy_note(config),
        "interval": _interval_note(attributions),
    }
    table = pd.concat(tables, ignore_index=True)
    artifact = Artifact(name="examples", kind="examples", table=table, meta=meta)
    return Section(artifacts=(artifact,), caveats=_caveats(subject, counts, config=config))


def _ordered(subject: Subject, attributions: Attributions, *, config: Config) -> _Explained:
    part = subject.take(attributions.rows)
    if subject.target_name in privacy.hidden(config):
        part = _without_labels(part)
    order = np.argsort(content_order(part.X, part.row_ids), kind="stable")
    error = attributions.standard_error
    return _Explained(
        part=part.take(order),
        values=attributions.values[order],
        base=attributions.base_values[order],
        error=None if error is None else error[order],
    )


def _without_labels(part: Subject) -> Subject:
    from dataclasses import replace

    return replace(part, y=None)


class _Writer:
    """Turns chosen rows into table rows, through the privacy rules."""

    def __init__(self, explained: _Explained, *, config: Config) -> None:
        self.explained = explained
        self.config = config
        self.strict = privacy.is_strict(config)
        self.steps = [privacy.rounding_step(column) for column in explained.part.response.output.T]
        self.hidden = privacy.hidden(config)
        classes, names = explained.part.model.classes or (), config.class_names or ()
        self.renamed = {} if set(names) == set(map(str, classes)) else dict(zip(classes, names, strict=False))

    def table(self, chosen: Chosen, *, name: str) -> pd.DataFrame:
        """Return the rows of one example: every feature for every explained output."""
        part, row = self.explained.part, chosen.row
        names = part.model.feature_names
        cells = [self.cell(part.X[c], row, c) for c in part.X.columns]
        tables = []
        for k in self.outputs(row):
            error = self.explained.error
            tables.append(
                pd.DataFrame(
                    {
                        "example": name,
                        "kind": chosen.kind,
                        "row_id": "" if self.strict else str(part.row_ids[row]),
                        "y_true": self.truth(row, k),
                        "y_pred": self.answer(row, k),
                        "prediction": self.number(part.response.output[:, k], row, k),
                        "output": part.model.output_names[k],
                        "feature": list(names),
                        "feature_value": cells,
                        "shap": [
                            self.number(self.explained.values[:, j, k], row, k) for j in range(len(names))
                        ],
                        "base_value": self.number(self.explained.base[:, k], row, k),
                        "standard_error": np.full(len(names), np.nan) if error is None else error[row, :, k],
                        "share": np.full(len(names), chosen.share),
                    },
                    columns=list(COLUMNS),
                )
            )
        return pd.concat(tables, ignore_index=True)

    def outputs(self, row: int) -> list[int]:
        """Return the explained outputs of a row: the predicted class, then the true one if it is another."""
        part, model = self.explained.part, self.explained.part.model
        if model.task != "multiclass" or part.response.label is None or model.classes is None:
            return list(range(min(len(model.output_names), MOST_OUTPUTS)))
        wanted = [part.response.label[row], *([] if part.y is None else [part.y[row]])]
        places = [model.classes.index(c) for c in wanted if c in model.classes]
        return list(dict.fromkeys(places))

    def cell(self, series: pd.Series[Any], row: int, name: str) -> str:
        if name in self.hidden:
            return privacy.REDACTED
        if self.strict:
            return privacy.band(series.iloc[row], series, config=self.config)
        text = privacy.render(series.iloc[row])
        return text if len(text) <= LONGEST else text[: LONGEST - 1] + "\u2026"

    def truth(self, row: int, k: int) -> str | None:
        y = self.explained.part.y
        if y is None:
            return privacy.REDACTED if self.explained.part.target_name in self.hidden else None
        return self.outcome(np.asarray(y), row, k)

    def answer(self, row: int, k: int) -> str | None:
        response = self.explained.part.response
        if response.label is None and self.explained.part.model.task != "regression":
            return None
        return self.outcome(response.predicted if response.label is None else response.label, row, k)

    def outcome(self, values: npt.NDArray[Any], row: int, k: int) -> str:
        """Return a label or a target value as text."""
        regression = self.explained.part.model.task == "regression"
        column = values.reshape(len(values), -1)[:, k if regression else 0]
        if self.renamed:
            column = np.array([self.renamed.get(label, label) for label in column.tolist()], dtype=object)
        if not self.strict:
            return f"{float(column[row]):.6g}" if regression else privacy.render(column[row])
        series = pd.Series(column) if regression else pd.Series(privacy.level_names(column))
        said = privacy.band(series.iloc[row], series, config=self.config)
        return RARE_CLASS if said == privacy.OTHER and not regression else said

    def number(self, column: FloatArray, row: int, k: int) -> float:
        """Return an output or attribution; under strict clipped to the bulk of its column and rounded."""
        if not self.strict:
            return float(column[row])
        tail = privacy.strict_tail(len(column), config=self.config)
        low, high = np.quantile(column, [tail, 1 - tail])
        return float(privacy.round_to(np.clip(column[row], low, high), step=self.steps[k]))

    def coarse(self, value: float) -> float:
        return float(privacy.round_to(value, step=self.steps[0])) if self.strict else value


def _privacy_note(config: Config) -> str:
    if privacy.is_strict(config):
        return (
            "strict: no row identity; values are coarse bands; predictions, base values and attributions "
            "are cut to the "
            "bulk of their column and rounded, so they add up only roughly"
        )
    closed = f" The values of {len(config.redact)} redacted column(s) are left out." if config.redact else ""
    return f"standard: rows are shown as they are.{closed}"


def _interval_note(attributions: Attributions) -> str:
    if attributions.standard_error is None:
        return "none: one row is described; its attributions are the defined quantity up to floating point"
    return "standard_error: Monte Carlo error of each attribution; it says nothing about other rows"


def _caveats(subject: Subject, counts: dict[str, int], *, config: Config) -> tuple[Caveat, ...]:
    if subject.target_name in privacy.hidden(config):
        text = "Examples do not tell right from wrong: the label is listed in 'redact'."
        return (Caveat(code="labels_redacted", section="examples", message=text),)
    if subject.y is None:
        text = f"Correct, incorrect and largest-error examples are missing: {no_labels(subject)}."
        return (Caveat(code="no_labels", section="examples", message=text, degrades=True),)
    missing = [kind for kind in ("correct", "incorrect") if kind not in counts]
    text = f"There is no {' and no '.join(missing)} prediction among the explained rows to show."
    return (Caveat(code="no_such_example", section="examples", message=text),) if missing else ()
