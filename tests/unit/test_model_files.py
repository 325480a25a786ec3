"""What an ``MLmodel`` file may point to: everything that is loaded must be under the model's digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from explain_step.digests import directory_digest
from explain_step.errors import InvalidInput, SnapshotError
from explain_step.tracking.checked import CheckedModel, load_directory
from explain_step.tracking.loading import describe, unsafe
from explain_step.tracking.mlmodel_file import MAX_MLMODEL_BYTES
from explain_step.tracking.model_files import model_problem

SKLEARN = {"pickled_model": "model.skops", "serialization_format": "skops", "code": None}
PYFUNC = {"loader_module": "mlflow.sklearn", "model_path": "model.skops", "env": {"conda": "conda.yaml"}}


def problem(folder: Path, **flavors: Any) -> str | None:
    (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    return model_problem(folder)


@pytest.mark.parametrize(
    "flavors",
    [
        {"sklearn": SKLEARN, "python_function": PYFUNC},
        {"sklearn": {**SKLEARN, "code": "code"}, "python_function": {**PYFUNC, "code": "code"}},
        {"xgboost": {"data": "model.ubj"}},
        {
            "python_function": {
                "loader_module": "mlflow.pyfunc.model",
                "python_model": "python_model.pkl",
                "artifacts": {"a": {"path": "artifacts/a.txt", "uri": "/tmp/explanations/../a.txt"}},
                "model_code_path": "/home/ann/explanations.py",
                "config": {"path": "/data", "note": "explanations/are.here"},
            }
        },
    ],
)
def test_what_mlflow_writes_is_accepted(tmp_path: Path, flavors: dict[str, Any]) -> None:
    assert problem(tmp_path, **flavors) is None


@pytest.mark.parametrize(
    "path",
    [
        *("explanations/weights.skops", "./explanations/w", "x/../explanations/w", "explanations\\w"),
        *("explanations", "explanations.loader", "registered_model_meta", "registered_model_meta/w"),
        *("/etc/passwd", "../other/model.skops", "a/../../b", "C:\\model", "\\\\host\\share"),
    ],
)
def test_a_path_outside_the_digest_is_named(tmp_path: Path, path: str) -> None:
    for flavors in (
        {"sklearn": {**SKLEARN, "pickled_model": path}},
        {"python_function": {"loader_module": "m", "artifacts": {"a": {"path": path}}}},
        {"python_function": {"loader_module": "m", "code": path}},
    ):
        found = problem(tmp_path, **flavors)
        assert found is not None, flavors
        assert "points to" in found


@pytest.mark.parametrize(
    "served",
    [
        {**PYFUNC, "model_path": "other.skops"},
        {**PYFUNC, "data": "other.pkl"},
        {**PYFUNC, "loader_module": "code.other"},
        {"model_path": "model.skops"},
        "model.skops",
    ],
)
def test_a_pyfunc_of_another_model_is_named(tmp_path: Path, served: Any) -> None:
    found = problem(tmp_path, sklearn=SKLEARN, python_function=served)
    assert found is not None
    assert "pyfunc" in found or "without settings" in found


@pytest.mark.parametrize("name", ["sub/model.skops", "sub"])
def test_a_second_description_beside_the_model_file_is_named(tmp_path: Path, name: str) -> None:
    """MLflow's pyfunc reads an ``MLmodel`` that lies beside the model's file, and may load another model by it."""
    (tmp_path / "sub").mkdir()
    flavors = {
        "sklearn": {**SKLEARN, "pickled_model": name},
        "python_function": {**PYFUNC, "model_path": name},
    }
    assert problem(tmp_path, **flavors) is None
    (tmp_path / "sub" / "MLmodel").write_text("flavors: {}")
    assert "described by sub/MLmodel, not by the file that was read" in str(problem(tmp_path, **flavors))


@pytest.mark.parametrize("path", ["../other.skops", "explanations/w.skops"])
def test_a_recorded_digest_does_not_vouch_for_files_that_it_does_not_cover(tmp_path: Path, path: str) -> None:
    assert problem(tmp_path, sklearn={**SKLEARN, "pickled_model": path}) is not None
    digest = directory_digest(tmp_path)
    with pytest.raises(SnapshotError, match=r"was not loaded: .* points to"):
        CheckedModel(directory=tmp_path, digest=digest).load(digest)


@pytest.mark.parametrize("value", [7, ["model.skops"], {"path": "model.skops"}, True])
def test_a_model_file_that_is_no_text_is_named(tmp_path: Path, value: Any) -> None:
    for flavors in (
        {"sklearn": {**SKLEARN, "pickled_model": value}, "python_function": PYFUNC},
        {"sklearn": SKLEARN, "python_function": {**PYFUNC, "model_path": value}},
    ):
        assert "by something that is no text" in str(problem(tmp_path, **flavors))


def test_two_native_flavors_are_two_models(tmp_path: Path) -> None:
    assert "sklearn and xgboost" in str(problem(tmp_path, sklearn=SKLEARN, xgboost={"data": "m"}))


def test_an_mlmodel_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    assert "no MLmodel" in str(model_problem(tmp_path))
    for content in (b"[" * 5_000, b"a: b: c", b"\xff\xfe\x00", b"null", b"flavors: 3", b"{}"):
        (tmp_path / "MLmodel").write_bytes(content)
        assert model_problem(tmp_path) is not None
    (tmp_path / "MLmodel").unlink()
    (tmp_path / "MLmodel").symlink_to("/etc/hostname")
    assert "regular file" in str(model_problem(tmp_path))


def test_a_few_lines_that_stand_for_billions_are_read_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"] + [
        f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}, *a{i - 1}, *a{i - 1}]" for i in range(1, 30)
    ]
    (tmp_path / "MLmodel").write_text("\n".join([*lines, "flavors: {python_function: {data: *a29}}"]))
    assert model_problem(tmp_path) is None


def test_a_folder_named_like_mlflow_s_note_of_a_download_is_digested(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}")
    plain = directory_digest(tmp_path)
    (tmp_path / "registered_model_meta").write_text("model_name: x")
    assert directory_digest(tmp_path) == plain
    (tmp_path / "registered_model_meta").unlink()
    (tmp_path / "registered_model_meta").mkdir()
    (tmp_path / "registered_model_meta" / "w").write_text("1")
    assert directory_digest(tmp_path) != plain


@pytest.mark.parametrize(
    ("flavor", "settings"),
    [
        ("lightgbm", {"data": "model.bin", "model_class": "lightgbm.sklearn.LGBMClassifier"}),
        ("lightgbm", {"data": "model.skops", "model_class": "lightgbm.sklearn.LGBMClassifier"}),
        ("lightgbm", {"data": "model.lgb", "model_class": "os.system"}),
        ("xgboost", {"data": "model.ubj", "model_class": "xgboost.compat.os.system"}),
        ("xgboost", {"data": "model.ubj", "model_class": "os.system"}),
        ("sklearn", {"pickled_model": "model.skops"}),
        ("sklearn", {"pickled_model": "m", "serialization_format": "skops", "skops_trusted_types": ["os.x"]}),
    ],
)
def test_a_model_whose_settings_hide_a_pickle_is_not_safe(
    tmp_path: Path, flavor: str, settings: dict[str, Any]
) -> None:
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": {flavor: settings}}))
    assert unsafe(describe(tmp_path)) is not None


LGBM = {"data": "model.skops", "model_class": "lightgbm.sklearn.LGBMClassifier"}


@pytest.mark.parametrize(
    ("flavor", "settings"),
    [
        ("lightgbm", {"data": "model.lgb", "model_class": "lightgbm.basic.Booster"}),
        ("lightgbm", {**LGBM, "serialization_format": "skops"}),
        ("xgboost", {"data": "model.ubj", "model_class": "xgboost.sklearn.XGBClassifier"}),
    ],
)
def test_formats_that_hold_data_only_stay_safe(tmp_path: Path, flavor: str, settings: dict[str, Any]) -> None:
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": {flavor: settings}}))
    assert unsafe(describe(tmp_path)) is None


@pytest.mark.parametrize(
    "content",
    [
        *("[1]", "a: b: c", "flavors: {sklearn: [1]}", "signature: 3", "[" * 5_000),
        *("flavors: {}\nflavors: {sklearn: {}}", "flavors: {sklearn: {data: a, data: b}}"),
        *("flavors: !!python/object/apply:os.getcwd []", "\ufeffflavors: {}".encode("utf-16-le"), b"\xff: 1"),
    ],
)
def test_an_mlmodel_of_another_form_is_named(tmp_path: Path, content: str | bytes) -> None:
    (tmp_path / "MLmodel").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(InvalidInput, match="not an MLmodel file"):
        describe(tmp_path)


@pytest.mark.parametrize(
    "use", ["{sklearn: {pickled_model: *a11}, python_function: {}}", "{<<: *m}", "[*a11]"]
)
def test_an_mlmodel_that_stands_for_billions_is_a_problem_at_once(tmp_path: Path, use: str) -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    lines += ["m0: &m0 {k: v}"] + [f"m{i}: &m {{<<: [{', '.join(['*m0'] * 10)}]}}" for i in range(1, 3)]
    (tmp_path / "MLmodel").write_text("\n".join([*lines[: None if "<<" in use else 12], f"flavors: {use}"]))
    assert model_problem(tmp_path) is not None


@pytest.mark.parametrize(
    "flavor",
    [
        *(
            "statsmodels",
            "pytorch",
            "keras",
            "tensorflow",
            "langchain",
            "prophet",
            "pmdarima",
            "spacy",
            "onnx",
        ),
        *("h2o", "transformers", "spark", "dspy", "shap", "paddle", "python_function", "one_of_the_future"),
    ],
)
def test_other_flavors_load_by_running_code_and_are_not_loaded(tmp_path: Path, flavor: str) -> None:
    """Their library need not be installed to see that; neither a loader nor a code path is imported."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "loader_of_mine.py").write_text("raise SystemExit('was run')")
    (tmp_path / "model.pkl").write_bytes(b"cos\n_exit\n(I7\ntR.")
    served = {"loader_module": "loader_of_mine", "code": "code", "data": "model.pkl"}
    flavors = {flavor: {"data": "model.pkl", "pickle_module_name": "pickle"}, "python_function": served}
    (tmp_path / "MLmodel").write_text(yaml.safe_dump({"flavors": flavors}))
    with pytest.raises(SnapshotError, match="loads by running its code"):
        load_directory(tmp_path, allow_pickle=False)


def test_an_mlmodel_with_more_values_than_a_model_has_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}\nmore:\n" + "- x\n" * 30_000)
    assert "more than 20000 values" in str(model_problem(tmp_path))
    (tmp_path / "MLmodel").write_bytes(b"flavors: {}\n#" + b"x" * MAX_MLMODEL_BYTES)
    assert "regular file" in str(model_problem(tmp_path))
