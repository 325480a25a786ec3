"""The page: what is in it, in which order, and that nothing of the data becomes markup."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from itertools import pairwise

import pandas as pd
import pytest
from page_fixture import CONTEXTS, HOSTILE, degraded, hostile, incomplete, multiclass, normal, regression
from page_parser import parsed
from page_tables import artifact, dependence_table, examples_table, importance_table

from explain_step.report import PageContext, card, page
from explain_step.report.format import number, percent
from explain_step.report.view import BYTES, QUOTA, choose_figures
from explain_step.types import Figure

ALLOWED = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "link",
        "style",
        "body",
        "a",
        "div",
        "header",
        "nav",
        "main",
        "section",
    ),
    *(
        "footer",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
        "span",
        "strong",
        "bdi",
        "code",
    ),
    *(
        "pre",
        "figure",
        "figcaption",
        "img",
        "details",
        "summary",
        "table",
        "caption",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
    ),
}
ATTRIBUTES = {
    *(
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "rel",
        "href",
        "class",
        "id",
        "role",
        "tabindex",
        "title",
    ),
    *("aria-label", "aria-labelledby", "aria-hidden", "scope", "src", "alt", "width", "height", "open"),
}
SECTIONS = [
    *(
        "explained",
        "fidelity",
        "importance",
        "dependence",
        "segments",
        "examples",
        "quality",
        "reproducibility",
    ),
    "limits",
]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: page(make()) for name, make in CONTEXTS.items()}


@pytest.mark.parametrize("name", CONTEXTS)
def test_only_known_elements_and_attributes_and_nothing_from_outside(pages, name):
    html = parsed(pages[name])
    assert {tag for tag, _ in html.tags} <= ALLOWED
    used = {key for _, attributes in html.tags for key in attributes}
    assert used <= ATTRIBUTES
    links = [a["href"] for a in html.all("a")]
    assert all(link and link.startswith("#") for link in links)
    assert all(i["src"].startswith("data:image/png;base64,") for i in html.all("img"))
    assert [link["href"] for link in html.all("link")] == ["data:,"]
    style = pages[name].split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


@pytest.mark.parametrize("name", CONTEXTS)
def test_the_policy_of_the_page_forbids_scripts_and_requests(pages, name):
    policies = [
        m for m in parsed(pages[name]).all("meta") if m.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policies == [
        {
            "http-equiv": "Content-Security-Policy",
            "content": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
        }
    ]


@pytest.mark.parametrize("name", CONTEXTS)
def test_sections_stand_in_order_and_the_contents_lead_to_them(pages, name):
    html = parsed(pages[name])
    assert [s["id"] for s in html.all("section")] == SECTIONS
    ids = [attributes["id"] for _, attributes in html.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [a["href"][1:] for a in html.all("a")]
    assert targets == ["main", *SECTIONS]
    assert set(targets) <= set(ids)
    assert all(s["aria-labelledby"] in ids for s in html.all("section"))


@pytest.mark.parametrize("name", [n for n in CONTEXTS if n != "hostile"])
def test_no_word_of_python_for_nothing_is_shown(pages, name):
    text = parsed(pages[name]).text
    assert not re.search(r"\b(nan|NaN|None|NaT|inf|<NA>|Markup)\b", text)
    assert "{{" not in text
    assert "{%" not in text


@pytest.mark.parametrize("name", CONTEXTS)
def test_pictures_have_a_text_a_size_and_a_caption(pages, name):
    html = parsed(pages[name])
    assert html.all("img")
    for image in html.all("img"):
        assert image["alt"]
        assert int(image["width"]) > 0
        assert int(image["height"]) > 0
    assert len(html.all("figure")) == len(html.all("img")) == len(html.all("figcaption"))


@pytest.mark.parametrize("name", CONTEXTS)
def test_tables_have_captions_and_scopes(pages, name):
    html = parsed(pages[name])
    assert len(html.all("caption")) == len(html.all("table"))
    assert all(th["scope"] in ("col", "row") for th in html.all("th"))
    assert all(len(row) == len(rows[0]) for rows in html.tables for row in rows)


@pytest.mark.parametrize("name", CONTEXTS)
def test_headings_do_not_skip_a_level(pages, name):
    levels = [int(tag[1]) for tag, _ in parsed(pages[name]).tags if re.fullmatch(r"h[1-4]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_every_number_of_importance_is_that_of_the_table(pages):
    stored = normal().artifacts["importance"].table
    shown = parsed(pages["normal"]).table("Input", "Rank", "Average effect")
    names = {"lvrat": "loan to value", "pirat": "payments to income"}
    assert [row["Input"] for row in shown] == [names.get(f, f) for f in stored["feature"]]
    assert [row["Average effect"] for row in shown] == [number(v, places=4) for v in stored["mean_abs_shap"]]
    assert [row["Share"] for row in shown] == [percent(v, places=1) for v in stored["share"]]
    bounds = zip(stored["ci_low"], stored["ci_high"], strict=True)
    assert [row["95% interval"] for row in shown] == [f"{low:.4f} to {high:.4f}" for low, high in bounds]
    assert shown[2]["Rank"] == "3 to 6"
    assert shown[6]["Rank"] == "7"
    assert shown[0]["Loss when shuffled"] == "0.0585"


def test_every_number_of_groups_is_that_of_the_table_and_withheld_ones_say_why(pages):
    html = parsed(pages["normal"])
    shown = {(r["Group"], r["Level"]): r for r in html.table("Group", "Level", "Rows", "ROC AUC")}
    assert shown["afam", "yes"]["ROC AUC"] == "0.771"
    assert shown["afam", "yes"]["95% interval"] == "0.731 to 0.811"
    assert shown["afam", "yes"]["Difference to the rest"] == "+0.0711"
    assert shown["All rows", ""]["Rows"] == "714"
    assert shown["pirat > 0.4", "yes"]["ROC AUC"] == "\u2013"
    assert "withheld: fewer than 20 rows" in html.text


def test_decisions_stand_side_by_side(pages):
    shown = {r["Level"]: r for r in parsed(pages["normal"]).table("Group", "Level", "Of all rows")}
    assert shown["yes"]["Of all rows"] == "23.1%"
    assert shown["no"]["Of actual ones"] == "31.0%"
    assert shown["yes"]["Of the others"] == "\u2013"
    assert shown["largest gap"]["Of all rows"] == "17.0%"


def test_scores_stand_beside_their_controls(pages):
    shown = {r["Score"]: r for r in parsed(pages["normal"]).table("Score", "Value", "Random control")}
    fidelity = shown["Changes explained when inputs are hidden (R\u00b2)"]
    assert (fidelity["Value"], fidelity["Random control"]) == ("0.874", "\u22120.930")
    assert shown["Ranking kept on resampled rows, all inputs (tau-b)"]["Random control"] == "\u2013"
    assert shown["Concentration on few inputs, over all rows"]["Value"] == "\u2013"
    assert "all attributions are equal" in parsed(pages["normal"]).text
    average = shown["Gap between summed contributions and prediction, average"]
    assert average["Value"] == "<10\u207b\u00b9\u00b2"


def test_contributions_and_the_rest_add_up_to_the_prediction():
    many = tuple(f"f{i}" for i in range(13))
    context = replace(
        normal(), artifacts={**normal().artifacts, "examples": artifact("examples", examples_table(many))}
    )
    html = parsed(page(context))
    rows = html.table("Input", "Value", "Contribution")
    shown = sum(float(r["Contribution"].replace("\u2212", "-")) for r in rows)
    rest, start, end = re.search(
        r"3 other inputs together (\S+)\. From (\S+) on average to (\S+) for this row", html.text
    ).groups()
    total = float(start) + shown + float(rest.replace("\u2212", "-"))
    assert total == pytest.approx(float(end), abs=0.003)


def test_a_section_that_is_missing_says_why_in_its_place(pages):
    html = pages["incomplete"]
    for name, reason in incomplete().missing.items():
        part = html.split(f'<section id="{"quality" if name == "scores" else name}"')[1].split("</section>")[
            0
        ]
        assert "Not here." in part
        assert parsed(f"<p>{part}".split("<h2")[0] + "</p>").stack == []
        assert reason.split(":")[0].split("'")[0][1:20] in parsed_text(part)


def parsed_text(part: str) -> str:
    return re.sub(r"<[^>]+>", " ", part)


def test_a_part_without_a_place_is_among_what_was_not_checked():
    html = parsed(page(replace(normal(), missing={"sensitivity": "it takes two models"})))
    assert "Sensitivity: it takes two models." in html.text


def test_the_status_is_a_word_with_its_reason_and_a_shape(pages):
    for name, mark in {"normal": "\u25cf", "degraded": "\u25d0", "incomplete": "\u25cb"}.items():
        assert mark in pages[name]
    text = parsed(pages["degraded"]).text
    assert "Degraded. Performance: no labels were given" in text
    assert "Performance \u2013 not available: no labels were given" in text


def test_estimates_and_samples_are_named(pages):
    assert "for 200 of 714 held-out rows" in parsed(pages["degraded"]).text
    text = parsed(pages["degraded"]).text
    assert "estimated by sampling, typically to within \u00b10.0021" in text
    assert "intervals of the average effects allow for that" in text


def test_the_data_never_becomes_markup(pages):
    html = pages["hostile"]
    body = html.split("</style>")[1]
    assert "<script" not in body
    assert "<img src=x" not in body
    assert "49" not in re.findall(r"<bdi[^>]*>\s*(\d+)\s*</bdi>", body)
    shown = parsed(html)
    assert "<script>alert(1)</script>" in shown.text
    assert "{{ 7*7 }}" in shown.text
    assert not set(html) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    html.encode("utf-8")


def test_a_long_name_is_shortened_and_whole_in_its_title(pages):
    html = parsed(pages["hostile"])
    assert any(attributes.get("title") == HOSTILE[2] for _, attributes in html.tags)
    names = re.findall(r"<bdi[^>]*>([^<]*)</bdi>", pages["hostile"])
    assert max(map(len, names)) < 120


def test_names_are_isolated_in_direction(pages):
    body = pages["hostile"].split("<body>")[1]
    hebrew = HOSTILE[7].strip()
    assert re.search(rf"<bdi[^>]*>{re.escape(hebrew)}", body)


def test_the_page_is_a_function_of_its_context(pages):
    assert all(page(CONTEXTS[name]()) == html for name, html in pages.items())


def noise(size: int, kind: str) -> Figure:
    return Figure(kind=kind, slug=f"{kind}-{size}", png=bytes(size), alt="noise", width=835, height=400)


def test_thirty_features_with_large_figures_stay_below_three_megabytes():
    features = tuple(f"feature_{i}_with_a_rather_long_name" for i in range(30))
    ranks = [(i + 1, i + 1) for i in range(30)]
    figures = tuple(noise(120_000, kind) for kind in QUOTA for _ in range(12))
    importance = importance_table((*features[:13],), ranks=ranks)
    wide = pd.concat(
        [importance.assign(feature=[f"{f}_{k}" for f in importance["feature"]]) for k in range(3)]
    )
    dependence = pd.concat(
        [dependence_table(features[8 * k : 8 * k + 8]) for k in range(4)], ignore_index=True
    )
    made = {
        **normal().artifacts,
        "importance": artifact("importance", wide),
        "dependence": artifact("dependence", dependence),
        "examples": artifact("examples", examples_table(features[:13])),
    }
    html = page(replace(normal(), artifacts=made, figures=figures))
    assert len(html.encode()) <= 3_000_000
    assert "more figures are in the folder" in html


def test_figures_are_chosen_in_turn_so_that_no_section_starves():
    figures = [noise(400_000, "importance")] * 9 + [
        noise(400_000, kind) for kind in ("dependence", "segments", "examples")
    ]
    chosen = choose_figures(figures)
    assert all(len(chosen[kind]) >= 1 for kind in QUOTA)
    assert sum(len(f.png) for part in chosen.values() for f in part) <= BYTES


def test_the_figures_are_the_bytes_that_were_drawn(pages):
    images = parsed(pages["normal"]).all("img")
    drawn = {base64.b64encode(f.png).decode() for f in normal().figures}
    assert {i["src"].split(",")[1] for i in images} == drawn


def test_digests_are_short_with_the_whole_one_at_hand(pages):
    digest = normal().reproducibility["snapshot_id"]
    html = parsed(pages["normal"])
    assert f"{digest[:12]}\u2026" in html.text
    assert html.table("Of", "Digest")[0] == {"Of": "Snapshot id", "Digest": digest}


def test_integrity_is_not_oversold(pages):
    text = parsed(pages["normal"]).text
    assert "explain-step verify" in text
    assert "level L0, self-consistent" in text
    assert "tamper" not in text.lower()


def test_the_command_names_the_stored_snapshot_where_there_is_one():
    """The page is read on the run, and the folder there is a copy without tables and provenance: it does not verify."""
    stored = replace(normal(), identity={**normal().identity, "uri": "models:/m-1"})
    loose = replace(normal(), identity={k: v for k, v in normal().identity.items() if k != "uri"})
    assert "explain-step verify models:/m-1" in parsed(page(stored)).text
    assert "`explain-step verify models:/m-1`" in card(stored)
    for text in (parsed(page(loose)).text, card(loose)):
        assert "explain-step verify <this folder>" in text


def test_caveats_are_listed_by_section_once():
    context = normal()
    html = parsed(page(replace(context, caveats=(*context.caveats, *context.caveats))))
    for caveat in context.caveats:
        assert html.text.count(caveat.message.rstrip(".")) == 1


def test_the_smallest_context_makes_a_page():
    bare = PageContext(title="", identity={}, status="failed", reason="", quantity={}, artifacts={})
    html = parsed(page(bare))
    assert "Failed." in html.text
    assert html.text.count("Not here.") == 7


@pytest.mark.parametrize("make", [normal, degraded, multiclass, regression, hostile])
def test_builders_tables_are_not_changed(make):
    context = make()
    before = {name: a.table.copy(deep=True) for name, a in context.artifacts.items()}
    page(context)
    for name, table in before.items():
        pd.testing.assert_frame_equal(context.artifacts[name].table, table)
