"""Write, identity, read back."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from snapshot_kit import SPEC, attributions, copied, frame, importance, parts, subject

from explain_step.canonical import canonical_json
from explain_step.config import Config
from explain_step.errors import InvalidInput, SnapshotError
from explain_step.snapshot import (
    ModelRef,
    identify,
    read_directory,
    read_manifest,
    snapshot_id,
    verify_directory,
    write,
)
from explain_step.snapshot.manifest import check_schema, dump, seal
from explain_step.snapshot.tables import (
    attributions_table,
    csv_bytes,
    parquet_bytes,
    plain_table,
    read_parquet,
)
from explain_step.types import Artifact, Figure, Score

# shap builds its colour maps with a call that Matplotlib will deprecate; it happens when shap is imported
SHAP_IMPORT = pytest.mark.filterwarnings("ignore:The set_(bad|over|under) function:PendingDeprecationWarning")


def test_the_layout_is_the_contract(tmp_path) -> None:
    shot = write(tmp_path, parts=parts())
    files = {p.relative_to(shot.path).as_posix() for p in shot.path.rglob("*") if p.is_file()}
    assert files == {
        "manifest.json",
        "summary.json",
        "report.html",
        "card.md",
        "tables/importance.parquet",
        "tables/importance.csv",
        "tables/attributions.parquet",
        "figures/importance_bar.png",
        "provenance/environment.json",
        "provenance/data.json",
        "provenance/code.json",
        "provenance/config.json",
        "provenance/log.jsonl",
    }
    assert shot.path == tmp_path / shot.id
    assert [p.name for p in tmp_path.iterdir()] == [shot.id]
    assert {e["path"] for e in shot.manifest["files"]} == files - {"manifest.json"}
    assert shot.id in (shot.path / "report.html").read_text()


def test_json_is_strict_sorted_and_ends_with_a_newline(tmp_path) -> None:
    table = importance().assign(share=[np.nan, np.inf])
    shot = write(tmp_path, parts=parts(table=table))
    for path in shot.path.rglob("*.json"):
        text = path.read_text(encoding="utf-8")

        def refuse(name: str, path=path) -> None:
            raise AssertionError((path, name))

        value = json.loads(text, parse_constant=refuse)
        assert text == json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def test_what_was_written_is_read_back(tmp_path) -> None:
    given = parts()
    shot = write(tmp_path, parts=given)
    again = read_directory(shot.path)
    assert (again.id, again.status, again.reason) == (shot.id, "degraded", given.reason)
    assert again.scores == given.scores
    assert again.caveats == given.caveats
    assert again.model == given.model
    assert set(again.artifacts) == {"importance"}
    assert set(again.tables) == {"importance", "attributions"}
    assert again.artifacts["importance"].meta == given.artifacts[0].meta
    pd.testing.assert_frame_equal(again.tables["importance"], given.artifacts[0].table, check_dtype=False)
    assert again.manifest["sections"]["segments"] == {
        "state": "missing",
        "reason": "nothing to cut by",
        "tables": [],
    }
    assert again.manifest["sections"]["importance"] == {"state": "present", "tables": ["importance"]}


def test_the_same_content_has_the_same_id_whatever_the_rest(tmp_path) -> None:
    first = identify(parts())
    assert identify(parts(created_at="1999-01-01T00:00:00Z", events=(), page=None, card=None)) == first
    assert identify(parts(figures=())) == first
    assert identify(parts(model=ModelRef(model_class="Repeater", name="m", version="3", run_id="r"))) == first
    noise = importance()
    noise["mean_abs_shap"] *= 1 + 2e-16
    assert identify(parts(table=noise)) == first
    assert write(tmp_path / "a", parts=parts()).id == write(tmp_path / "b", parts=parts()).id == first


def test_every_kind_of_content_changes_the_id() -> None:
    base = parts()
    X = frame(30)
    cell = X.copy()
    cell.iloc[3, 0] += 1e-9
    spec = base.scores[0]
    others = [
        parts(model=ModelRef(model_class="Other")),
        parts(model=ModelRef(model_class="Repeater", digest="0" * 64)),
        parts(subject=subject(cell)),
        parts(config=Config(seed=1)),
        parts(table=importance().assign(rank=[2, 1])),
        parts(scores=(replace(spec, value=0.5),)),
        parts(scores=()),
        parts(artifacts=()),
        parts(attributions=None),
    ]
    ids = [identify(p) for p in [base, *others]]
    assert len(set(ids)) == len(ids)


def test_snapshot_id_ignores_the_order_of_scores_and_where_data_came_from() -> None:
    scores = [
        {"name": n, "variant": "", "value": v, "ci_low": None, "ci_high": None, "direction": "lower", "n": 3}
        for n, v in (("a", 1.0), ("b", None))
    ]
    base = {"model": {"digest": "d"}, "config": {}, "tables": {"t": "x"}}
    first = snapshot_id(data={"digest": "1"}, scores=scores, **base)
    assert snapshot_id(data={"digest": "1", "origin": "s3://a"}, scores=scores[::-1], **base) == first
    assert snapshot_id(data={"digest": "2"}, scores=scores, **base) != first


def test_additivity_noise_changes_no_id_in_any_unit() -> None:
    base = parts().scores[0]

    def scores(noise: float, unit: float) -> tuple[Score, ...]:
        control = replace(base, variant="control_random", value=0.8 * unit)
        return (replace(base, value=noise * unit), control)

    for unit in (1.0, 1e7):
        one, other = (identify(parts(scores=scores(noise, unit))) for noise in (1.6e-16, 3.1e-15))
        assert one == other
        assert identify(parts(scores=scores(1e-3, unit))) != one


def test_writing_again_returns_what_is_there(tmp_path) -> None:
    shot = write(tmp_path, parts=parts())
    before = {p: p.stat().st_mtime_ns for p in shot.path.rglob("*")}
    again = write(tmp_path, parts=parts())
    assert again.id == shot.id
    assert {p: p.stat().st_mtime_ns for p in shot.path.rglob("*")} == before


def test_other_content_is_never_written_over(tmp_path) -> None:
    shot = write(tmp_path, parts=parts())
    with pytest.raises(SnapshotError, match="another status"):
        write(tmp_path, parts=parts(status="complete"))
    (shot.path / "card.md").write_text("changed")
    with pytest.raises(SnapshotError, match=r"does not verify \(card\.md was changed"):
        write(tmp_path, parts=parts())
    assert (shot.path / "card.md").read_text() == "changed"


def test_a_failure_leaves_nothing_behind(tmp_path) -> None:
    def broken(identity: str) -> str:
        raise RuntimeError(identity)

    with pytest.raises(RuntimeError):
        write(tmp_path / "new", parts=parts(page=broken))
    (figure,) = parts().figures()
    with pytest.raises(SnapshotError, match=r"Two parts want the file 'figures/importance_bar\.png'"):
        write(tmp_path / "new", parts=parts(figures=(figure, replace(figure, png=b"2"))))
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").iterdir())


@pytest.mark.parametrize("slug", ["../x", "a/b", "A", "", "a b", "x" * 200, "a\n", ".."])
def test_no_file_name_comes_from_data(tmp_path, slug: str) -> None:
    figure = Figure(kind="importance", slug=slug, png=b"", alt="", width=1, height=1)
    if slug in ("", ".."):  # harmless after the prefix and before the ending
        assert (
            write(tmp_path, parts=parts(figures=(figure,))).path / f"figures/importance_{slug}.png"
        ).exists()
        return
    with pytest.raises(SnapshotError, match="slug"):
        write(tmp_path, parts=parts(figures=(figure,)))
    with pytest.raises(SnapshotError, match="Artifact names"):
        write(tmp_path, parts=parts(artifacts=(Artifact(name=slug, kind="k", table=importance()),)))
    assert not list(tmp_path.iterdir())


def test_the_parent_keeps_ordinary_permissions(tmp_path) -> None:
    shot = write(tmp_path / "shared", parts=parts())
    umask = os.umask(0)
    os.umask(umask)
    assert shot.path.stat().st_mode & 0o777 == 0o777 & ~umask


def test_summary_names_the_leaders_with_their_intervals(tmp_path) -> None:
    table = importance(tuple(f"f{i}" for i in range(40)))
    shot = write(tmp_path, parts=parts(table=table))
    summary = json.loads((shot.path / "summary.json").read_text())
    assert [row["feature"] for row in summary["importance"]] == [f"f{i}" for i in range(10)]
    assert (summary["importance"][0]["ci_low"], summary["importance"][1]["ci_low"]) == (0.7, None)
    assert (summary["status"], summary["scores"][0]["name"]) == ("degraded", "additivity_error")


def test_the_log_is_one_canonical_line_per_event(tmp_path) -> None:
    shot = write(tmp_path, parts=parts())
    lines = (shot.path / "provenance/log.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["step"] for line in lines] == ["data", "attributions"]
    assert all(canonical_json(json.loads(line)) == line for line in lines)


# --- reading refuses


def test_reading_refuses_what_is_not_a_snapshot(tmp_path) -> None:
    with pytest.raises(SnapshotError, match=r"no snapshot in .*manifest\.json cannot be read"):
        read_directory(tmp_path)


def test_reading_refuses_a_newer_schema(tmp_path) -> None:
    shot = write(tmp_path, parts=parts())
    newer = seal({**shot.manifest, "schema_version": 2})
    (shot.path / "manifest.json").write_bytes(dump(newer))
    with pytest.raises(
        SnapshotError, match=r"schema_version 2; this explain_step reads up to 1\. Install a newer"
    ):
        read_directory(shot.path)
    assert [f.code for f in verify_directory(shot.path)] == ["VER003"]


def test_reading_refuses_changed_tables_and_manifests(tmp_path) -> None:
    shot = write(tmp_path, parts=parts())
    place = shot.path / "tables/importance.parquet"
    good = place.read_bytes()
    place.write_bytes(parquet_bytes(plain_table(importance().assign(rank=[2, 1]))))
    with pytest.raises(SnapshotError, match=r"tables/importance\.parquet .* was changed"):
        read_directory(shot.path)
    place.write_bytes(good)
    manifest = shot.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"status": "degraded"', '"status": "complete"'))
    with pytest.raises(SnapshotError, match="was changed after it was written"):
        read_directory(shot.path)


# --- attributions and shap


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes in folders are of POSIX systems")
@pytest.mark.parametrize("name", ["manifest.json", "tables/importance.parquet"])
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path, name: str) -> None:
    shot = copied(tmp_path / "shot")
    (shot / name).unlink()
    os.mkfifo(shot / name)
    with pytest.raises(SnapshotError, match=r"cannot be read \(not a regular file\)"):
        read_directory(shot)
    (shot / name).unlink()
    (shot / name).symlink_to("/dev/zero")
    with pytest.raises(SnapshotError, match=r"cannot be read \(not a regular file\)"):
        read_directory(shot)


def test_what_grows_without_end_is_read_to_its_size(tmp_path) -> None:
    shot = copied(tmp_path / "shot")
    with (shot / "tables" / "importance.parquet").open("r+b") as table:
        table.truncate(2**40)  # takes no room on the disk
    with pytest.raises(SnapshotError, match="was changed"):
        read_directory(shot)


def test_a_manifest_that_names_more_than_a_disk_holds_is_refused(tmp_path) -> None:
    shot = copied(tmp_path / "shot")
    manifest = read_manifest(shot)
    manifest["files"][0]["size"] = 2**40
    with pytest.raises(SnapshotError, match="bytes together"):
        check_schema(manifest)


@SHAP_IMPORT
def test_explanation_has_the_stored_attributions(tmp_path) -> None:
    X = frame(25)
    of = subject(X)
    shot = write(tmp_path, parts=parts(subject=of, attributions=attributions(of)))
    bare = shot.explanation()
    assert bare.data is None
    assert bare.feature_names == ["income", "town"]
    assert bare.output_names == "price"
    np.testing.assert_array_equal(bare.values[:, 0], X["income"])
    np.testing.assert_array_equal(bare.base_values, np.zeros(25))
    shuffled = X.sample(frac=1, random_state=1).assign(further=1)
    full = shot.explanation(shuffled[["further", "town", "income"]])
    np.testing.assert_array_equal(full.data[:, 0].astype(float), X["income"])
    assert list(full.data[:, 1]) == list(X["town"])


@SHAP_IMPORT
def test_explanation_of_several_outputs_keeps_the_errors(tmp_path) -> None:
    of = subject(frame(6), outputs=("a", "b", "c"))
    given = attributions(of, standard_error=True)
    shot = write(tmp_path, parts=parts(subject=of, attributions=given))
    found = shot.explanation()
    assert found.output_names == ["a", "b", "c"]
    np.testing.assert_array_equal(found.values, given.values)
    np.testing.assert_array_equal(found.base_values, given.base_values)
    np.testing.assert_array_equal(found.error_std, given.standard_error)


@SHAP_IMPORT
def test_explanation_names_what_does_not_fit(tmp_path) -> None:
    X = frame(5)
    of = subject(X)
    shot = write(tmp_path, parts=parts(subject=of, attributions=attributions(of)))
    with pytest.raises(InvalidInput, match=r"missing: \['town'\]"):
        shot.explanation(X[["income"]])
    with pytest.raises(InvalidInput, match="row-4"):
        shot.explanation(X.iloc[:4])
    with pytest.raises(InvalidInput, match="unique index"):
        shot.explanation(X.set_axis(["a"] * 5, axis=0))
    strict = write(tmp_path, parts=parts(subject=of, config=Config(privacy="strict")))
    with pytest.raises(SnapshotError, match="privacy is strict"):
        strict.explanation()


def test_no_row_and_no_raw_value_is_published_under_strict_privacy(tmp_path) -> None:
    X = frame(20).assign(town="CANARY-town").set_axis([f"CANARY-row-{i}" for i in range(20)], axis=0)
    X["income"] = 987654.25 + np.arange(20)
    of = subject(X)
    for privacy, row_hidden in (("standard", False), ("strict", True)):
        shot = write(
            tmp_path / privacy,
            parts=parts(subject=of, attributions=attributions(of), config=Config(privacy=privacy)),
        )
        everything = b"".join(p.read_bytes() for p in shot.path.rglob("*") if p.is_file())
        tables = "".join(t.to_csv() for t in shot.tables.values())
        assert b"CANARY-town" not in everything
        assert "CANARY-town" not in tables
        assert ("CANARY-row" not in tables) is row_hidden
        assert ("attributions" in shot.tables) is not row_hidden


def test_attributions_are_bounded_and_chosen_by_content() -> None:
    X = frame(500)
    order = np.random.default_rng(1).permutation(500)
    tables = []
    for rows in (X, X.iloc[order]):
        of = subject(rows)
        tables.append(attributions_table(attributions(of), subject=of, seed=0, rows=100))
    assert [len(t) for t in tables] == [100, 100]
    assert set(tables[0]["row_id"]) == set(tables[1]["row_id"])
    assert list(tables[0]["row_id"]) == sorted(tables[0]["row_id"], key=lambda r: int(r.split("-")[1]))
    of = subject(X)
    other = attributions_table(attributions(of), subject=of, seed=1, rows=100)
    assert set(other["row_id"]) != set(tables[0]["row_id"])


# --- tables


def test_tables_of_any_columns_survive_parquet() -> None:
    table = pd.DataFrame(
        {
            "text": ["a", None, "\u00e9"],
            "mixed": [1, "x", 2.5],
            "category": pd.Categorical(["u", None, "v"]),
            "nullable": pd.array([1, None, 3], dtype="Int64"),
            "small": pd.Series([1, 2, 3], dtype="int16"),
            "single": pd.Series([0.5, np.nan, 1.0], dtype="float32"),
            "flag": [True, False, True],
            "maybe": pd.array([True, None, False], dtype="boolean"),
            "numbers": pd.Series([1, 2.5, None], dtype=object),
            "nothing": [None, None, None],
            "lone": pd.Series(["\ud800", "b", "c"], dtype=object),
        }
    ).set_axis([5, 6, 7], axis=0)
    plain = plain_table(table)
    back = plain_table(read_parquet(parquet_bytes(plain)))
    pd.testing.assert_frame_equal(back, plain)
    assert plain["mixed"].tolist() == ["1", "x", "2.5"]
    assert plain["numbers"].dtype == plain["nullable"].dtype == plain["single"].dtype == np.float64
    assert plain["lone"][0] == "\\ud800"
    assert parquet_bytes(plain) == parquet_bytes(plain_table(table))


def test_csv_is_deterministic_and_runs_no_formula(tmp_path) -> None:
    cells = [
        "=1+1",
        "+cmd",
        "-2+3",
        "@x",
        "\tt",
        "\r=1",
        " =1",
        "\uff1d1",
        "-1.5e3",
        "plain",
        'a,"b"\nc',
        None,
    ]
    table = plain_table(pd.DataFrame({"=name": cells, "n": np.linspace(-1, 1, len(cells))}))
    data = csv_bytes(table)
    assert data == csv_bytes(table)
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    assert rows[0] == ["'=name", "n"]
    assert [r[0] for r in rows[1:]] == [
        *(f"'{c}" for c in cells[:8]),
        "-1.5e3",
        "plain",
        'a,"b"\nc',
        "",
    ]
    assert [float(r[1]) for r in rows[1:]] == table["n"].tolist()


def test_long_tables_have_no_csv_twin(tmp_path) -> None:
    long = pd.DataFrame({"x": np.arange(2001.0)})
    short = pd.DataFrame({"x": np.arange(2000.0)})
    artifacts = (Artifact(name="long", kind="k", table=long), Artifact(name="short", kind="k", table=short))
    shot = write(tmp_path, parts=parts(artifacts=artifacts))
    assert not (shot.path / "tables/long.csv").exists()
    assert (shot.path / "tables/short.csv").exists()


def test_scores_without_a_value_survive(tmp_path) -> None:
    score = Score(
        name="masking_r2",
        variant="interventional",
        value=None,
        ci_low=None,
        ci_high=None,
        direction="higher",
        n=0,
        method=SPEC,
        reason="one feature only",
    )
    shot = write(tmp_path, parts=parts(scores=(score,)))
    assert shot.scores == (score,)
    assert [f.verdict for f in verify_directory(shot.path)] == ["pass"]
