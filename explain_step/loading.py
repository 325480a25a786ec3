"""Verify on load: the last check before a model is used, for whatever went past the gate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from explain_step.errors import InvalidInput
from explain_step.gate import INTEGRITY, RULES, Policy, load_policy
from explain_step.tracking.proven import load_proven


def load_model(
    model_uri: str,
    *,
    policy: Policy | Mapping[str, Any] | str | Path | None = None,
    tracking_uri: str | None = None,
    on_unproven: Literal["raise", "warn"] = "raise",
    flavor: Literal["native", "pyfunc"] = "native",
    allow_pickle: bool = False,
) -> Any:
    """Load a model from MLflow after its evidence was verified; nothing is loaded before.

    Parameters
    ----------
    model_uri : str
        ``models:/name/3``, ``models:/name@alias``, ``models:/m-<id>`` or ``runs:/<id>/<path>``.
    policy : Policy, mapping, path, optional
        Default: integrity alone. Every byte of the snapshot verifies, every file of the model is the one that
        was explained, and the snapshot was made for this model. With a policy all of its rules hold.
    tracking_uri : str, optional
        Default: MLflow's current one. It is read, never set.
    on_unproven : {"raise", "warn"}
        ``"warn"``: load all the same, with a ``UserWarning`` that says what is missing.
    flavor : {"native", "pyfunc"}
        ``"native"``: the estimator or booster itself where the model has one, else its pyfunc.
    allow_pickle : bool
        Load a format that runs code when it is loaded although its bytes are not proven. Only matters with
        ``on_unproven="warn"``: proven bytes are loaded whatever their format.

    Returns
    -------
    object
        The fitted model.

    Raises
    ------
    SnapshotError
        The evidence does not hold, or (also with ``"warn"``) the bytes of a pickle are not proven.
    InvalidInput
        The URI names nothing, or an option is not known.

    Notes
    -----
    The files are copied to a private directory first. The copy is digested, judged and loaded, so a writer who
    changes the store meanwhile changes nothing. An alias is resolved once.

    Examples
    --------
    >>> import explain_step  # doctest: +SKIP
    >>> model = explain_step.load_model("models:/mortgage@champion")  # doctest: +SKIP
    """
    for name, value, known in (
        ("on_unproven", on_unproven, ("raise", "warn")),
        ("flavor", flavor, ("native", "pyfunc")),
    ):
        if value not in known:
            msg = f"Argument {name} must be {known[0]!r} or {known[1]!r}, got {value!r}."
            raise InvalidInput(msg)
    return load_proven(
        model_uri,
        policy=load_policy(policy),
        rules=RULES if policy is not None else [rule for rule in RULES if rule.code in INTEGRITY],
        on_unproven=on_unproven,
        flavor=flavor,
        allow_pickle=allow_pickle,
        tracking_uri=tracking_uri,
    )
