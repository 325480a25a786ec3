"""Models in a format that "holds data only", written by somebody who knows what the loaders believe."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import RandomizedSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer

from explain_step.errors import InvalidInput, SnapshotError
from explain_step.tracking.checked import load_directory
from explain_step.tracking.loading import download
from explain_step.tracking.model_files import model_problem
from explain_step.tracking.place import open_place
from explain_step.tracking.trusted_types import foreign_types

X = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [1.0, 0.0, 2.0]})


def stored(folder: Path, model: Any) -> list[str]:
    """Write a model as MLflow does, with the list of types that its writer wants trusted."""
    import skops.io

    folder.mkdir()
    skops.io.dump(model, folder / "model.skops")
    types = list(skops.io.get_untrusted_types(file=folder / "model.skops"))
    described(folder, skops_trusted_types=types)
    return types


def described(folder: Path, **settings: Any) -> None:
    own = {"pickled_model": "model.skops", "serialization_format": "skops", "code": None, **settings}
    served = {"loader_module": "mlflow.sklearn", "model_path": own["pickled_model"]}
    text = yaml.safe_dump({"flavors": {"sklearn": own, "python_function": served}})
    (folder / "MLmodel").write_text(text)


def executing(mark: Path) -> Pipeline:
    """Return a Pipeline of NumPy's own functions whose predict executes text."""
    from numpy.testing._private.utils import runstring

    text = np.frombuffer(f"open({str(mark)!r}, 'w').close()".encode(), dtype="uint8").copy()
    empty = {"dtype": "uint8", "shape": 0, "subok": False}
    steps = [
        ("empty", FunctionTransformer(np.zeros_like, kw_args=empty)),
        ("text", FunctionTransformer(np.insert, kw_args={"obj": 0, "values": text})),
        ("run", FunctionTransformer(runstring, kw_args={"dict": {}})),
        ("model", DummyRegressor().fit(X, [1, 2, 3])),
    ]
    return Pipeline(steps)


def test_functions_of_a_known_package_are_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    assert all(name.startswith("numpy.") for name in stored(tmp_path / "m", executing(mark)))
    with pytest.raises(SnapshotError, match=r"foreign types numpy\.insert, numpy\.testing\._private"):
        load_directory(tmp_path / "m", allow_pickle=False)
    assert not mark.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever follows: it shows that the attack is one
        load_directory(tmp_path / "m", allow_pickle=True).predict(X)
    assert mark.exists()


def test_a_distribution_that_executes_its_own_state_is_not_loaded(tmp_path: Path) -> None:
    from scipy.stats import uniform

    mark = tmp_path / "was-run"
    bad = uniform(0, 1)
    bad.dist._parse_arg_template = f"open({str(mark)!r}, 'w').close()\n" + bad.dist._parse_arg_template
    search = RandomizedSearchCV(LinearRegression(), {"fit_intercept": bad}, n_iter=1)
    types = stored(tmp_path / "m", search)
    assert any(name.startswith("scipy.stats.") for name in types)
    with pytest.raises(SnapshotError, match=r"foreign types scipy\.stats"):
        load_directory(tmp_path / "m", allow_pickle=False)
    assert not mark.exists()


@pytest.mark.parametrize(
    "listed",
    [
        *(["numpy.load"], ["numpy.ctypeslib.load_library"], ["numpy.distutils.exec_command.exec_command"]),
        *(["scipy.stats._continuous_distns.uniform_gen"], ["sklearn.utils._testing.check_call"]),
        *(["sklearn.datasets._base.load_files"], ["sklearn.tree._tree.Tree", "builtins.eval"]),
        *(["sklearn.tree._tree.Tree\nos.system"], ["xgboost.core.ctypes"], [["os.system"]], [7]),
        *(True, "numpy.load", {"os.system": 1}),
    ],
)
def test_what_is_not_known_to_hold_data_is_foreign(tmp_path: Path, listed: Any) -> None:
    assert foreign_types(listed)
    described(tmp_path, skops_trusted_types=listed)
    with pytest.raises(SnapshotError, match="foreign types"):
        load_directory(tmp_path, allow_pickle=False)


def test_what_fitted_models_hold_is_known() -> None:
    known = [
        *("sklearn.tree._tree.Tree", "sklearn.calibration._CalibratedClassifier", "numpy.dtype"),
        *("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor", "collections.OrderedDict"),
        *("xgboost.core.Booster", "xgboost.sklearn.XGBClassifier", "lightgbm.sklearn.LGBMRegressor"),
        *(
            "lightgbm.basic.Booster",
            "sklearn.neighbors._kd_tree.KDTree",
            "scipy.interpolate._bsplines.BSpline",
        ),
        *("sklearn.gaussian_process.kernels.RBF", "sklearn.metrics._dist_metrics.EuclideanDistance64"),
        *("sklearn.metrics._classification.balanced_accuracy_score", "sklearn.metrics._scorer._Scorer"),
        *("sklearn.model_selection._split.StratifiedKFold", "sklearn._loss.loss.HalfTweedieLossIdentity"),
        *("sklearn.neural_network._stochastic_optimizers.AdamOptimizer", "numpy.mean"),
    ]
    assert foreign_types(known) == []
    assert foreign_types(None) == []


@pytest.mark.parametrize("folder", ["inner", "inner/model.skops"])
def test_a_second_description_beside_the_model_file_is_named(tmp_path: Path, folder: str) -> None:
    """MLflow's pyfunc would believe the inner one, and take the file for a pickle."""
    path = "inner" if folder != "inner" else "inner/model.skops"
    described(tmp_path, pickled_model=path)
    (tmp_path / "inner").mkdir()
    assert model_problem(tmp_path) is None
    (tmp_path / "inner" / "MLmodel").write_text(
        yaml.safe_dump({"flavors": {"sklearn": {"serialization_format": "pickle"}}})
    )
    assert "inner/MLmodel" in str(model_problem(tmp_path))


@pytest.mark.parametrize("file", ["model.pkl", "model.skops", "model"])
def test_a_pickle_under_any_name_is_not_read_as_one(tmp_path: Path, file: str) -> None:
    described(tmp_path, pickled_model=file)
    (tmp_path / file).write_bytes(pickle.dumps(_Made(tmp_path / "was-run")))
    with pytest.raises(Exception):  # noqa: B017, PT011 - refused here, or by skops: it is no ZIP file
        load_directory(tmp_path, allow_pickle=False)
    assert not (tmp_path / "was-run").exists()


class _Made:
    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize(
    "odd", ["link", "outside", "folder", "loop", "pipe", "holes", "description", "named like evidence"]
)
def test_a_folder_that_is_no_model_is_looked_at_before_it_is_copied(tmp_path: Path, odd: str) -> None:
    """A link leads out, reading a pipe never ends, a file with holes fills the disk or the memory."""
    import mlflow  # noqa: F401 - as every caller has; an old MLflow cannot be entered by its stores

    store, copy = tmp_path / "store", tmp_path / "copy"
    stored(store, LinearRegression().fit(X, [1, 2, 3]))
    (store / "sub").mkdir()
    copy.mkdir()
    if odd == "pipe":
        os.mkfifo(store / "sub" / "pipe")
    elif odd in ("holes", "description"):
        name = "MLmodel" if odd == "description" else "model.skops"
        os.truncate(store / name, 1 << 43)  # more than is free on a disk
    elif odd == "named like evidence":  # only the evidence of the model itself is left out
        (store / "sub" / "explanations").mkdir()
        (store / "sub" / "explanations" / "x").symlink_to("/etc/hostname")
    else:
        targets = {"link": "../model.skops", "outside": "/etc/hostname", "folder": "/usr", "loop": ".."}
        (store / "sub" / odd).symlink_to(targets[odd])
    place = open_place(store.as_uri(), tracking_uri=f"sqlite:///{tmp_path / 'm.db'}")
    with pytest.raises(InvalidInput, match=r"link or a special file|bytes; \d+ are free") as caught:
        download(place, copy)
    assert str(store) in str(caught.value)
    assert not list(copy.iterdir())


def test_a_description_of_any_size_is_not_read_whole(tmp_path: Path) -> None:
    described(tmp_path)
    os.truncate(tmp_path / "MLmodel", 1 << 40)
    with pytest.raises(InvalidInput, match="more than 4194304 bytes"):
        load_directory(tmp_path, allow_pickle=False)
