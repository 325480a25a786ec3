"""Keep MLflow's autologging out of the explanation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_autologging() -> Iterator[None]:
    """Turn autologging off inside: it would log the explanation's own predictions to the user's run."""
    from mlflow.utils.autologging_utils import disable_autologging

    with disable_autologging():
        yield
