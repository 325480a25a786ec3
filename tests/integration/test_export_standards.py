"""Snapshots in the terms of CycloneDX, RO-Crate and Croissant, read back by the libraries of these standards."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

import explain_step
from explain_step.cli import invoke
from explain_step.errors import MissingDependency
from explain_step.exporting import describe

GOLDEN = Path(__file__).parents[1] / "snapshots" / "v1" / "loans"
LIBRARIES = {"cyclonedx": "cyclonedx", "ro-crate": "rocrate", "croissant": "mlcroissant"}
FORMS = list(LIBRARIES)


def export(form: str, folder: Path) -> Path:
    """Export the stored snapshot and return where to."""
    pytest.importorskip(LIBRARIES[form], reason="the extra is not installed")
    to = folder / ("bom.json" if form == "cyclonedx" else "out")
    assert invoke(["export", str(GOLDEN), "--to", str(to), "--format", form]) == 0
    return to


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a snapshot of a model whose columns have names that are no identifiers."""
    names = ['größe "q" €', "a b", "tab\there", "column-1", "http://x/?y#z", "-", "plain"]
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(40, len(names))), columns=names)
    y = X.sum(axis=1)
    made = explain_step.explain(
        LinearRegression().fit(X, y), X, y, seed=1, dataset={"licence": "our terms, 2 <b>"}
    )
    return Path(shutil.copytree(made.path, tmp_path_factory.mktemp("awkward") / "snapshot"))


def test_cyclonedx_is_valid_and_names_model_rows_and_performance(tmp_path: Path) -> None:
    place = export("cyclonedx", tmp_path)
    from cyclonedx.model.bom import Bom
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = place.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    plain: dict[str, Any] = json.loads(text)
    card = plain["metadata"]["component"].pop("modelCard")
    metrics = {m["type"]: m for m in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert float(metrics["r2"]["value"]) == pytest.approx(0.981931, abs=1e-6)
    assert float(metrics["r2"]["confidenceInterval"]["lowerBound"]) < 0.98
    bom = Bom.from_json(plain)
    assert bom.metadata.component.name == "LinearRegression"
    (rows,) = [c for c in bom.components if c.name == "explained rows"]
    digest = json.loads((GOLDEN / "manifest.json").read_text())["data"]["digest"]
    assert {p.name: p.value for p in rows.properties}["explain_step:frame-v1"] == digest


def test_a_crate_names_every_file_with_its_digest(tmp_path: Path) -> None:
    place = export("ro-crate", tmp_path)
    from rocrate.rocrate import ROCrate

    crate = ROCrate(str(place))
    found = {e.id: e for e in crate.get_entities() if str(e.id).startswith("snapshot/")}
    manifest = json.loads((GOLDEN / "manifest.json").read_text())
    assert set(found) == {f"snapshot/{e['path']}" for e in manifest["files"]} | {"snapshot/manifest.json"}
    for name, entity in found.items():
        if name != "snapshot/manifest.json":
            assert entity["sha256"] == hashlib.sha256((place / name).read_bytes()).hexdigest()
    action = crate.get("#explanation")
    assert action["instrument"]["name"] == "explain-step"
    assert len(action["result"]) == len(found)


# the standard's own reader uses old parts of rdflib and pandas
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_croissant_is_read_and_its_records_are_the_tables(tmp_path: Path) -> None:
    place = export("croissant", tmp_path)
    import mlcroissant as mlc
    import pandas as pd

    dataset = mlc.Dataset(jsonld=str(place / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    table = pd.read_parquet(GOLDEN / "tables" / "importance.parquet")
    records = list(dataset.records("importance"))
    assert len(records) == len(table)
    assert [r["importance/mean_abs_shap"] for r in records] == table["mean_abs_shap"].tolist()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_croissant_gives_back_every_cell_of_every_table_whatever_the_names(
    awkward: Path, tmp_path: Path
) -> None:
    mlc = pytest.importorskip("mlcroissant", reason="the extra is not installed")
    describe(awkward, tmp_path / "out", form="croissant")
    dataset = mlc.Dataset(jsonld=str(tmp_path / "out" / "croissant.json"))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    filled = {p.stem for p in (awkward / "tables").glob("*.parquet") if len(pd.read_parquet(p))}
    assert {found.id for found in dataset.metadata.record_sets} == filled
    for found in dataset.metadata.record_sets:
        table = pd.read_parquet(awkward / "tables" / f"{found.id}.parquet")
        assert [field.description for field in found.fields] == list(table.columns)
        records = list(dataset.records(found.id))
        for field in found.fields:
            read = [r[field.id].decode() if isinstance(r[field.id], bytes) else r[field.id] for r in records]
            expected = table[field.description].tolist()
            assert all(a == b or (pd.isna(a) and pd.isna(b)) for a, b in zip(read, expected, strict=True))


def test_a_crate_keeps_the_rules_of_its_specification(awkward: Path, tmp_path: Path) -> None:
    """What the validator of RO-Crate 1.3 requires and recommends, apart from a publisher."""
    pytest.importorskip("rocrate", reason="the extra is not installed")
    describe(awkward, tmp_path / "out", form="ro-crate")
    graph = json.loads((tmp_path / "out" / "ro-crate-metadata.json").read_text())["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    assert entities["#tool"].keys() >= {"name", "url", "version"}
    assert "SoftwareSourceCode" not in entities["#model"]["@type"]  # would have to be a file of the crate
    assert entities[entities["./"]["license"]["@id"]]["name"] == "our terms, 2 <b>"
    assert entities["./"]["mentions"] == {"@id": "#explanation"}
    files = [entity for entity in graph if entity["@type"] == "File"]
    assert len(files) > 20
    for file in files:
        assert file.keys() >= {"name", "description", "contentSize", "encodingFormat"}
        assert int(file["contentSize"]) == (tmp_path / "out" / file["@id"]).stat().st_size


@pytest.mark.parametrize("form", FORMS)
def test_the_same_snapshot_gives_the_same_bytes(form: str, tmp_path: Path) -> None:
    first, second = export(form, tmp_path / "a"), export(form, tmp_path / "b")
    files = [first] if first.is_file() else sorted(p for p in first.rglob("*") if p.is_file())
    for file in files:
        other = second if first.is_file() else second / file.relative_to(first)
        assert file.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_without_its_library_a_form_says_what_to_install(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, LIBRARIES[form], None)
    with pytest.raises(MissingDependency, match="install"):
        describe(GOLDEN, tmp_path / "out", form=form)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten_and_nothing_changed_is_described(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx", reason="the extra is not installed")
    (tmp_path / "bom.json").write_text("mine")
    arguments = ["--to", str(tmp_path / "bom.json"), "--format", "cyclonedx"]
    assert invoke(["export", str(GOLDEN), *arguments]) == 2
    assert (tmp_path / "bom.json").read_text() == "mine"
    copy = Path(shutil.copytree(GOLDEN, tmp_path / "loans"))
    (copy / "card.md").write_text("better")
    assert invoke(["export", str(copy), "--to", str(tmp_path / "other.json"), "--format", "cyclonedx"]) == 1
