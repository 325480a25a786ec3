"""The policy: strict at every depth, in plain words, without the traps of YAML."""

from __future__ import annotations

import contextlib
import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explain_step.errors import InvalidInput
from explain_step.gate import DEFAULT, Policy, folded, load_policy, matches
from explain_step.gate.policy import Drift, Protected

WAIVER = {
    "rules": ["GATE031"],
    "registered_model": "mortgage",
    "version": "3",
    "owner": "ann",
    "reason": "agreed in June",
    "expires": "2026-12-31",
}
FULL: dict[str, Any] = {
    "version": 1,
    "name": "house",
    "protected": {"aliases": ["champion", "live"], "stages": ["Production"], "registered_models": ["prod.*"]},
    "require": {
        "status": ["complete"],
        "sections": ["importance"],
        "binding": "declared",
        "exact": True,
        "max_age_days": 90,
        "min_rows": 200,
        "signature": {"required": True, "keys": ["k1"]},
    },
    "scores": [{"name": "masking_r2", "variant": "interventional", "min": 0.8, "max": 1}],
    "performance": [{"name": "roc_auc", "min": 0.7}],
    "assertions": [
        {"features": ["debt"], "direction": "increasing", "monotone": "increasing", "tolerance": 0.2},
        {"features": ["*"], "max_share": 0.6, "max_total_share": 0.9, "output": "yes"},
        {"features": ["leak"], "forbidden": True},
        {"features": ["group"], "levels": {"a": "positive"}},
    ],
    "segments": {
        "required": ["group"],
        "compared": ["group"],
        "max_performance_gap": 0.1,
        "max_importance_gap": 0.5,
        "max_rate_gap": {"tpr": 0.1},
        "allow_withheld": True,
    },
    "drift": {"alias": "live", "max_share_change": 0.1},
    "reviews": {"approvals": 1, "reviewers": ["bea", "cy*"], "authenticated": True},
    "waivers": [WAIVER],
    "max_waiver_days": 30,
    "break_glass": {"allowed": True, "owners": ["ann"], "max_hours": 2},
}
JARGON = ("Input should", "pydantic", "Value error", "type=", "https://", "Extra inputs", "tuple")


def refused(content: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        Policy.parse(content)
    message = str(caught.value)
    assert not any(word in message for word in JARGON), message
    return message


def changed(place: str, value: Any) -> dict[str, Any]:
    """Return the full policy with another value at a place such as ``scores.0.min``."""
    content = json.loads(json.dumps(FULL))
    *way, last = place.split(".")
    at: Any = content
    for part in way:
        at = at[int(part)] if part.isdigit() else at[part]
    at[int(last) if last.isdigit() else last] = value
    return content  # type: ignore[no-any-return]


def places(value: Any, way: str = "") -> list[str]:
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in places(v, f"{way}.{k}" if way else k)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [p for i, v in enumerate(value) for p in places(v, f"{way}.{i}")]
    return [way]


OTHER: dict[str, Any] = {
    "name": "other",
    "require.status": ["degraded"],
    "require.sections": ["segments"],
    "require.binding": "verified",
    "scores.0.max": 0.9,
    "assertions.0.direction": None,
    "assertions.0.monotone": None,
    "assertions.3.levels.a": "negative",
    "protected.stages": ["Staging", "arch*"],
    "waivers.0.rules": ["GATE032"],
    "waivers.0.version": "12",
    "waivers.0.expires": "2027-01-01",
    "max_waiver_days": 60,
    "reviews.reviewers": ["dee", "cy*"],
    "drift.alias": "champion",
    "protected.aliases": ["live"],
}
FIXED = {"version", "assertions.2.forbidden", "require.signature.required"}


def test_a_stage_that_mlflow_does_not_have_would_protect_nothing() -> None:
    message = refused(changed("protected.stages", ["Prodution"]))
    assert "protected.stages[0]" in message
    assert "the nearest is `Production`" in message


@pytest.mark.parametrize("version", ["*", "new", "01", "1.0", "-1", "latest", " ", True])
def test_a_waiver_is_for_the_number_of_one_version(version: Any) -> None:
    assert "waivers[0].version" in refused(changed("waivers.0.version", version))


def test_the_default_is_a_policy_of_its_own() -> None:
    assert load_policy(None) is DEFAULT
    assert load_policy(DEFAULT) is DEFAULT
    assert DEFAULT.protected.aliases == ("champion",)
    assert Policy.parse({"version": 1, "name": DEFAULT.name}).digest == DEFAULT.digest


def test_a_policy_round_trips_with_its_digest() -> None:
    made = Policy.parse(FULL)
    for again in (made.model_dump(mode="json"), made.model_dump()):
        assert Policy.parse(again) == made
        assert Policy.parse(again).digest == made.digest


@pytest.mark.parametrize("place", [p for p in places(FULL) if p not in FIXED])
def test_the_digest_changes_with_every_value(place: str) -> None:
    old: Any = FULL
    for part in place.split("."):
        old = old[int(part)] if part.isdigit() else old[part]
    new = OTHER.get(place)
    if place not in OTHER:
        new = {bool: lambda v: not v, str: lambda v: f"{v}2", list: lambda v: [*v, "x"]}.get(
            type(old), lambda v: v * 0.5 if v > 1 else v / 2
        )(old)
        new = 400 if place == "require.min_rows" else 2 if place == "reviews.approvals" else new
    assert Policy.parse(changed(place, new)).digest != Policy.parse(FULL).digest


def test_the_digest_does_not_depend_on_how_a_value_is_written() -> None:
    one = Policy.parse({"version": 1, "assertions": [{"features": "a", "max_share": 1}]})
    two = Policy.parse({"assertions": ({"max_share": 1.0, "features": ("a",)},), "version": 1})
    assert one.digest == two.digest


@pytest.mark.parametrize(
    ("place", "key", "hint"),
    [
        ("", "asertions", "assertions"),
        ("require", "max_age_day", "max_age_days"),
        ("require.signature", "key", "keys"),
        ("scores.0", "minimum", "min"),
        ("assertions.1", "max_shares", "max_share"),
        ("segments", "max_rates_gap", "max_rate_gap"),
        ("drift", "max_share_chang", "max_share_change"),
        ("waivers.0", "expire", "expires"),
        ("break_glass", "owner", "owners"),
    ],
)
def test_an_unknown_key_is_refused_at_every_depth_with_the_nearest(place: str, key: str, hint: str) -> None:
    message = refused(changed(f"{place}.{key}" if place else key, 1))
    assert repr(hint) in message
    assert key in message
    if "." in place:
        assert f"{place.split('.', maxsplit=1)[0]}" in message


def test_a_key_that_is_like_nothing_gets_the_known_ones() -> None:
    assert "known here: name, variant, min, max" in refused(changed("scores.0.zzz", 1))


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("require.max_age_days", True, "a number, got true"),
        ("require.max_age_days", "90", "a number, got '90'"),
        ("require.max_age_days", 0, "above 0"),
        ("require.max_age_days", float("inf"), "finite"),
        ("require.max_age_days", float("nan"), "finite"),
        ("require.min_rows", 2.5, "whole number"),
        ("require.min_rows", 1, "at least 2"),
        ("require.exact", "yes", "true or false"),
        ("require.exact", 1, "true or false"),
        ("require.status", ["complete", "failed"], "require.status[1]"),
        ("require.status", [], "not be empty"),
        ("require.sections", ["importance", "charts"], "'importance', 'dependence'"),
        ("require.signature", "k1", "a mapping"),
        ("scores", {"name": "x"}, "a list"),
        ("scores.0", "masking_r2", "a mapping"),
        ("scores.0.min", 2, "min below max"),
        ("scores.0.variant", "control_random", "random control"),
        ("performance.0.variant", "x", "no variant"),
        ("assertions.0.features", [], "not be empty"),
        ("assertions.0.features", [True], "put it in quotes"),
        ("assertions.0.features", [2024], "put it in quotes"),
        ("assertions.0.features", None, "a list, got nothing"),
        ("assertions.0.features", ["a[z-a]"], "can match something"),
        ("assertions.0.features", [" "], "can match something"),
        ("assertions.0.direction", "decreasing", "increasing"),
        ("assertions.0.tolerance", 1, "below 1"),
        ("assertions.1.max_share", -0.1, "at least 0"),
        ("assertions.1.max_share", 60, "at most 1"),
        ("assertions.2.max_share", 0.2, "nothing else"),
        ("assertions.3.levels.a", "up", "'positive' or 'negative'"),
        ("segments.max_rate_gap", {"fnr": 0.1}, "'selection_rate'"),
        ("segments.max_rate_gap.tpr", True, "a number"),
        ("segments.max_performance_gap", -1, "at least 0"),
        ("segments.required", ["", "a"], "can match something"),
        ("drift.max_share_change", 0, "above 0"),
        ("drift.max_share_change", 1.01, "at most 1"),
        ("drift.alias", "", "can match something"),
        ("reviews.approvals", 3, None),
        ("reviews.approvals", -1, "at least 0"),
        ("reviews.approvals", True, "whole number"),
        ("protected.aliases", ["champ[z-a]"], "can match something"),
        ("break_glass.max_hours", 1e9, "at most"),
        ("max_waiver_days", 0, "at least 1"),
        ("max_waiver_days", 10_000, "at most 3660"),
        ("max_waiver_days", 30.5, "whole number"),
        ("require.signature.keys", [], "by any other key proves nothing"),
        ("require.signature.required", False, "required: true"),
        ("waivers.0.rules", ["GATE31"], "GATE031"),
        ("waivers.0.rules", ["GATE003"], "cannot be waived"),
        ("waivers.0.rules", ["GATE006"], "cannot be waived"),
        ("waivers.0.rules", ["*"], "no '*'"),
        ("waivers.0.rules", [], "not be empty"),
        ("waivers.0.owner", " ", "blank"),
        ("waivers.0.reason", "", "blank"),
        ("waivers.0.expires", "31.12.2026", "a day such as"),
        ("waivers.0.expires", "2026-02-30", "a day such as"),
        ("waivers.0.expires", datetime(2026, 1, 1, 8), "a day such as"),
        ("waivers.0.expires", 20261231, "a day such as"),
        ("waivers.0.version", True, "text"),
        ("waivers.0.version", 3.0, "text"),
        ("version", 2, "must be 1"),
        ("version", True, "must be 1"),
        ("version", "1", "must be 1"),
        ("version", 1.0, "must be 1"),
        ("name", None, "text"),
    ],
)
def test_wrong_values_are_refused_in_plain_words(place: str, value: Any, words: str | None) -> None:
    if words is None:
        assert Policy.parse(changed(place, value)).reviews.approvals == value
        return
    message = refused(changed(place, value))
    assert words in message
    assert place.split(".", maxsplit=1)[0] in message or place == "version"


@pytest.mark.parametrize("key", ["owner", "reason", "expires", "rules", "version", "registered_model"])
def test_a_waiver_needs_every_part(key: str) -> None:
    message = refused({"version": 1, "waivers": [{k: v for k, v in WAIVER.items() if k != key}]})
    assert f"waivers[0].{key}" in message


def test_other_contradictions_are_refused() -> None:
    assert "needs" not in refused({"version": 1, "scores": [{"name": "masking_r2"}]})
    assert "min or max" in refused({"version": 1, "scores": [{"name": "masking_r2"}]})
    assert "say something of a" in refused({"version": 1, "assertions": [{"features": "a"}]})
    assert "at least as many" in refused({"version": 1, "reviews": {"approvals": 2, "reviewers": "bea"}})
    assert "2 more" in refused({"version": 1, "a1": 1, "b1": 2, "c1": 3})
    assert "'version' must be given" in refused({})


def test_a_key_that_is_no_text_is_refused_with_its_cause() -> None:
    message = refused({"version": 1, "assertions": [{"features": "group", "levels": {True: "positive"}}]})
    assert "assertions[0].levels" in message
    assert "unquoted yes" in message
    assert "got 1" in refused({"version": 1, 1: 2})


def written(tmp_path: Path, text: str | bytes, name: str = "policy.yaml") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- version: 1\n", "a list"),
        ("champion", "text"),
        ("version: 1\nversion: 1\n", "there twice"),
        ("version: 1\nsegments:\n  required: a\n  required: b\n", "'required' is there twice"),
        ("version: 1\n---\nversion: 1\n", "single document"),
        ("version: 1\nname: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        ("version: [", "YAML or JSON"),
        ("version: 1\nname: \x07\n", "YAML or JSON"),
        (b"version: 1\nname: \xff\n", "UTF-8"),
        ("version: 1\nassertions:\n- features: [no, yes]\n  max_share: 0.1\n", "got false"),
        ("version: 1\nassertions:\n- features: grp\n  levels: {yes: positive}\n", "must be text, got true"),
        ("version: 1\nassertions:\n- features: [2024-01-01]\n  max_share: 0.1\n", "put it in quotes"),
        ("version: 1\nassertions:\n- features: a\n  max_share: no\n", "a number, got false"),
        ("version: 1\nassertions:\n- features: a\n  max_share: 6e-1\n", "a number, got '6e-1'"),
        ("version: 1\n? [a, b]\n: 1\n", "YAML or JSON"),
        ("version: 1\nname: &a [*a]\n", "nested at most"),
        ("version: 1\nwaivers:\n- {expires: 2026-13-45}\n", "YAML or JSON"),
        ("[" * 1200, "YAML or JSON"),
        ("version: 1\nname: x" + " " * 2**20, "at most 1048576 bytes"),
    ],
)
def test_traps_of_yaml(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_policy(written(tmp_path, text))
    assert words in str(caught.value)
    assert not any(word in str(caught.value) for word in JARGON)


def test_a_few_lines_that_stand_for_billions_are_refused(tmp_path: Path) -> None:
    lines = ["version: 1", "a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{n}: &{n} [{', '.join([f'*{p}'] * 10)}]" for p, n in zip("abcdefghi", "bcdefghij", strict=True)
    ]
    with pytest.raises(InvalidInput, match="at most 100000 values"):
        load_policy(written(tmp_path, "\n".join(lines)))


def test_merge_keys_whose_every_level_multiplies_are_refused(tmp_path: Path) -> None:
    levels = [f"a{i + 1}: &a{i + 1} {{<<: [*a{i}, *a{i}, *a{i}], k{i}: 1}}" for i in range(40)]
    many = f"a1: {{<<: [{', '.join(['*a0'] * 200_000)}]}}"
    for lines, told in ((levels, "100000 values"), ([many], "more than 20 mappings")):
        file = tmp_path / "policy.yaml"
        file.write_text("\n".join(["version: 1", "a0: &a0 {k: v}", *lines]))
        with pytest.raises(InvalidInput, match=told):
            load_policy(file)


@pytest.mark.parametrize("written", ["010", "1:30", "0x10", "0b11", "-02"])
def test_whole_numbers_that_yaml_reads_as_others_are_refused(written: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f"version: 1\nrequire: {{min_rows: {written}}}\n")
    with pytest.raises(InvalidInput, match=f"decimal, got {written}"):
        load_policy(file)


@pytest.mark.parametrize("written", ["1:30.0", "0:30.", "!!float '1:30'"])
def test_numbers_that_yaml_counts_in_sixties_are_refused(written: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(f"version: 1\nrequire: {{max_age_days: {written}}}\n")
    with pytest.raises(InvalidInput, match="written in decimal"):
        load_policy(file)


def test_anchors_and_merge_keys_are_fine(tmp_path: Path) -> None:
    text = (
        "version: 1\nassertions:\n- &cap {features: [a], max_share: 0.5}\n- {<<: *cap, features: [b]}\n"
        "waivers:\n- {rules: GATE031, registered_model: m, version: 3, owner: o, reason: r, expires: 2026-12-31}\n"
    )
    found = load_policy(str(written(tmp_path, text)))
    assert [a.features for a in found.assertions] == [("a",), ("b",)]
    assert [a.max_share for a in found.assertions] == [0.5, 0.5]
    assert found.waivers[0].version == "3"
    assert found.waivers[0].expires == date(2026, 12, 31)


def test_json_is_read_as_strictly(tmp_path: Path) -> None:
    path = written(tmp_path, json.dumps(FULL), "p.json")
    assert load_policy(path) == Policy.parse(FULL)
    for text in ('{"version": 1, "version": 1}', "{", "[" * 100_000, '{"version": 1, "name": NaN}', "null"):
        with pytest.raises(InvalidInput):
            load_policy(written(tmp_path, text, "p.json"))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for source in (tmp_path / "none.yaml", tmp_path, 5):
        with pytest.raises(InvalidInput, match="policy"):
            load_policy(source)  # type: ignore[arg-type]


def test_drift_is_measured_from_a_protected_alias_only() -> None:
    with pytest.raises(InvalidInput, match=r"'staging' of drift among protected.aliases"):
        Policy.parse({"version": 1, "drift": {"alias": "staging", "max_share_change": 0.1}})
    folded = {
        "version": 1,
        "protected": {"aliases": "LIVE*"},
        "drift": {"alias": "live-eu", "max_share_change": 1.0},
    }
    assert Policy.parse(folded).drift is not None


def test_a_waiver_is_for_a_name_as_it_is_written() -> None:
    waiver = Policy.parse({"version": 1, "waivers": [WAIVER]}).waivers[0]
    name, version = WAIVER["registered_model"], WAIVER["version"]
    assert waiver.covers(name, str(version))
    assert not waiver.covers(name.upper(), str(version))
    assert not waiver.covers(f"{name}\u0301", str(version))


def test_parts_may_be_made_in_python() -> None:
    drift = Drift(alias="live", max_share_change=0.1)
    made = Policy(version=1, protected=Protected(aliases=("live",)), drift=drift)
    assert made.drift is not None
    assert Policy.parse(made.model_dump()).digest == made.digest
    with pytest.raises(ValueError, match="frozen"):
        made.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "name",
    [
        *("CHAMPION", "Chámpion", " champion ", "\uff23\uff28ampion", "cham\u200bpion", "champ\u00adion"),
        *("champ\u115fion", "champ\u1160ion", "champ\u3164ion", "champ\uffa0ion"),  # letters drawn as nothing
    ],
)
def test_names_are_folded_as_loosely_as_a_database_does(name: str) -> None:
    assert folded(name) == "champion"
    assert matches(name, ("champ*",))
    assert not matches(name, ("prod*", "champio"))


@pytest.mark.parametrize(
    "name",
    [
        *("\u03f2hampion", "\u03f9HAMPION", "c\u04baampion", "champi\u2c9fn", "champio\u0578"),
        *("\u13dfhampion", "\uabafhampion", "\ua4da\ua4e7\ua4ee\ua4df\ua4d1\ua4f2\ua4f3\ua4e0"),
    ],
)
def test_letters_of_any_script_that_are_drawn_as_latin_ones_are_folded(name: str) -> None:
    """Lunate sigmas, of which the compatible form is another sigma; a capital of which the list has the small one;
    Coptic, Armenian, Cherokee of both cases, and Lisu."""
    assert folded(name) == "champion"


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*FULL, "x", ""]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=5) | st.booleans(), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_anything_is_parsed_or_refused_in_plain_words(content: dict[str, Any]) -> None:
    made = None
    with contextlib.suppress(InvalidInput):
        made = Policy.parse(content)
    if made is None:
        refused(content)
    else:
        assert Policy.parse(made.model_dump(mode="json")).digest == made.digest
