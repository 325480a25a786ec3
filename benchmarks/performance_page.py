"""Write docs/performance.md from what the benchmarks saved: ``python benchmarks/performance_page.py [--check]``.

Every table is made of a file in ``results/``, which the command above it wrote with ``--save``; nothing is typed in. With
``--check`` nothing is written, and the exit code says whether the page is the one that the files make.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
Result = dict[str, Any]

TREE_BARS = (
    ("XGBoost 500 x 6, path-dependent", "shap.TreeExplainer", 60.0),
    ("XGBoost 500 x 6, path-dependent", "pred_contribs", 60.0),
    ("XGBoost 500 x 6, path-dependent", "pred_contribs, newer XGBoost", 20.0),
    ("XGBoost 500 x 6, path-dependent", "woodelf_explainer", 15.0),
    (
        "XGBoost 500 x 6, interventional, 30,000 background rows",
        "shap.TreeExplainer, 100 background rows",
        100.0,
    ),
    ("LightGBM 500 x 31", "shap.TreeExplainer", 40.0),
    ("LightGBM 500 x 31", "pred_contrib", 40.0),
    ("HistGradientBoosting 300 x 31", "shap.TreeExplainer", 40.0),
    ("random forest 100, min_samples_leaf 5", "shap.TreeExplainer", 4.0),
    ("interactions, XGBoost 100 x 6, path-dependent", "shap.TreeExplainer", 30.0),
    ("interactions, XGBoost 100 x 6, path-dependent", "pred_interactions", 30.0),
    ("interactions, XGBoost 100 x 6, path-dependent", "pred_interactions, newer XGBoost", None),
    ("interactions, XGBoost 100 x 6, path-dependent", "woodelf_explainer", None),
)
"""What, beside whom, and how many times faster it has to be; None where it is only told."""
PREDICT, MOST_PREDICT = "(its predict)", 6.0
SAMPLED_BARS = {"shap.PermutationExplainer": 5.0, "shap.KernelExplainer": 10.0}
PEER_BARS = {"mlflow_evaluate": 4.0, "shapash": 5.0, "explainerdashboard": 5.0}
PEERS = {
    "step": "`log_explanations`, margin (exact)",
    "step_probability": "`log_explanations`, probability (sampled)",
    "mlflow_evaluate": "`mlflow.models.evaluate` of MLflow {} with shap",
    "shapash": "shapash {}, `compile` and `generate_report`",
    "explainerdashboard": "explainerdashboard {}, `save_html`",
}
"""Names, with places for versions."""
MOST_SECONDS, MOST_MEMORY, MOST_TIMES, MOST_IMPORT = 7.0, 300.0, 12.0, 0.3


def read(name: str) -> Result:
    """Return what a benchmark saved."""
    found: Result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def page() -> str:
    """Return the page."""
    trees = read("tree_engine_15"), read("tree_engine_50")
    sampled, peers, memory = read("black_box_mlp"), read("peers"), read("memory")
    vectors = read("black_box_svm")
    parts = (
        _top([*trees, sampled, vectors, peers, memory]),
        _trees(*trees),
        _sampled("A neural network, at equal error", "mlp", sampled),
        _sampled("Support vectors", "svm", vectors),
        _step(peers),
        _stages(peers),
        _memory(memory),
        prose(
            "Written by hand: [why it is as fast, what was tried without gain, other data and earlier versions]"
            "(performance-notes.md), [Spark and beyond](scale.md)."
        ),
    )
    return "\n\n".join(parts) + "\n"


def _top(results: list[Result]) -> str:
    machine = results[0]["machine"]
    if any(one["machine"] != machine for one in results):
        raise SystemExit("the results come from several machines: measure all of them on one")
    versions = ", ".join(f"{name} {version}" for name, version in results[0]["versions"].items() if version)
    dates = sorted({one["date"] for one in results})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    told = prose(
        f"Made by `python benchmarks/performance_page.py` from what the benchmarks measured on {when}: "
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}; {versions}. A ratio compares what one run measured side by side; *bar* is what the "
        "project holds itself to. The rows are those of Adult census (48,842 real ones, which the wheel of shapiq ships). "
        "`make performance` repeats all of it; `P` is a Python that has the rival."
    )
    return f"# Performance\n\n{told}"


def prose(text: str) -> str:
    """Return a paragraph in lines of the documents' width."""
    return textwrap.fill(text, 130, break_long_words=False, break_on_hyphens=False)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bar(value: float, least: float | None) -> str:
    """Return the bar of a ratio, and whether it is met."""
    if least is None:
        return ""
    return f"{least:g}" if value >= least else f"{least:g}, **missed**"


def limit(value: float, most: float, *, unit: str = "") -> str:
    """Return the limit of a value, and whether it is kept to."""
    return f"at most {most:g}{unit}" + ("" if value <= most else ", **missed**")


def number(value: float) -> str:
    """Return a number with two or three leading digits."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _trees(narrow: Result, wide: Result) -> str:
    lines = [
        {(one["what"], one["rival"]): one for one in result["found"]["lines"]} for result in (narrow, wide)
    ]
    rows = []
    for what, rival, least in TREE_BARS:
        both = [line.get((what, rival)) for line in lines]
        if None in both:
            raise SystemExit(f"the results lack {rival} beside {what}")
        few, many = both
        assert few is not None
        assert many is not None
        ratios = [one["theirs"] / one["ours"] for one in (few, many)]
        named = rival if few["version"] is None else f"{rival} ({few['version']})"
        rows.append(
            (
                what,
                named,
                *(f"{number(one['ours'])} and {number(one['theirs'])} µs" for one in (few, many)),
                *(number(ratio) for ratio in ratios),
                bar(min(ratios), least),
            )
        )
    off = [
        one["off"] for line in lines for one in line.values() if one["off"] is not None and _is_double(one)
    ]
    shares = [line[TREE_BARS[0][0], PREDICT] for line in lines]
    times = [one["ours"] / one["theirs"] for one in shares]
    widths = [result["found"]["columns"] for result in (narrow, wide)]
    command = prose(
        f"`{narrow['command']}`, and with `--features {widths[1]}`: {shares[0]['rows']:,} rows, processor time of all "
        "threads per row, ours and theirs."
    )
    head = ("what", "beside", *(f"{k} columns" for k in widths), *(f"times, {k}" for k in widths), "bar")
    more = prose(
        f"Values take {times[0]:.1f} and {times[1]:.1f} times XGBoost's own `predict` ({limit(max(times), MOST_PREDICT)}). "
        "The largest difference to shap's double-precision values (LightGBM, HistGradientBoosting, forest) is "
        f"{max(off):.1e} standard deviations of the output ({limit(max(off), 1e-6)})."
    )
    return f"## The tree engine\n{command}\n\n{table(head, rows)}\n\n{more}"


def _is_double(line: Result) -> bool:
    """Return whether the rival adds in double precision: XGBoost's own values, and what is made of them, do not."""
    return line["rival"].startswith("shap") and "XGBoost" not in line["what"]


def _sampled(title: str, kind: str, result: Result) -> str:
    found = result["found"][kind]
    rows = []
    for line in found["lines"]:
        sampled, exact = line["seconds"] / line["ours"], line["seconds"] / found["exact"]["seconds"]
        least = SAMPLED_BARS[line["rival"].split(",")[0]]
        rows.append(
            (
                f"`{line['rival'].replace(',', '`,', 1)}",
                f"{100 * line['error']:.1f} %",
                f"{line['seconds']:.2f} s",
                f"{number(sampled)} ({number(line['predicted'] / line['our_predicted'])} in predicted rows)",
                number(exact),
                bar(max(sampled, exact), least),
            )
        )
    curve = ", ".join(
        f"{100 * one['error']:.1f} % in {one['seconds']:.2f} s ({one['predicted']:,})"
        for one in found["curve"]
    )
    exact = found["exact"]
    told = prose(
        f"`{result['command']}`: {found['rows']} rows, {found['columns']} columns behind one-hot codes, 100 background "
        f"rows; processor time of all threads. Exact values take {exact['seconds']:.2f} s; by all coalitions of each pair "
        f"of rows, {exact['predicted']:,} predicted rows, {exact['enumeration']:.2f} s. Ours sampled, error, time and "
        "predicted rows: "
        f"{curve}. A predicted row costs {found['floor_us']:.1f} µs."
    )
    head = (
        "rival",
        "its error",
        "its time",
        "times ours, sampled, at its error",
        "times our exact values",
        "bar",
    )
    return f"## {title}\n{told}\n\n{table(head, rows)}"


def _step(result: Result) -> str:
    found = result["found"]
    lines = {line["peer"]: line for line in found["lines"]}
    first = lines["step"]["wall"]
    rows = []
    for peer, named in PEERS.items():
        line = lines.get(peer)
        if line is None:
            raise SystemExit(f"the results lack {peer}")
        what = named.format(line.get("version") or "")
        if line["wall"] is None:
            least = line["limit"] / first
            rows.append(
                (
                    what,
                    f"more than {line['limit']:.0f} s",
                    "",
                    f"more than {number(least)}",
                    "",
                    "ended by us",
                )
            )
            continue
        ratio = line["wall"] / first
        held = (
            bar(ratio, PEER_BARS[peer]) if peer in PEER_BARS else limit(line["wall"], MOST_SECONDS, unit=" s")
        )
        rows.append(
            (what, f"{line['wall']:.1f} s", f"{line['processor']:.1f} s", number(ratio), held, line["what"])
        )
    told = prose(
        f"`{result['command']}`: {found['rows']:,} held-out rows of 15 columns, XGBoost {found['trees']} x 6, MLflow on "
        "SQLite; each in a process of its own, after a first call on 100 rows."
    )
    head = ("what", "wall", "processor, all processes", "of the step's wall time", "bar", "what was made")
    imported = f"`import explain_step` takes {found['import']:.2f} s ({limit(found['import'], MOST_IMPORT, unit=' s')})."
    return f"## The whole step\n{told}\n\n{table(head, rows)}\n\n{imported}"


def _stages(result: Result) -> str:
    lines = {line["peer"]: line for line in result["found"]["lines"]}
    step, sampled = ({s["step"]: s for s in lines[name]["stages"]} for name in ("step", "step_probability"))
    rows = [
        (name, *(f"{one.get(name, {}).get('wall_s', 0.0):.2f} s" for one in (step, sampled)))
        for name in dict.fromkeys([*step, *sampled])
    ]
    told = prose(
        "Wall seconds of each stage, as the snapshots of the first two lines record them (`provenance/log.jsonl`). What a "
        "second process makes at the same time counts as long as the first one waits for it."
    )
    return f"### Where the time goes\n{told}\n\n{table(('stage', 'margin', 'probability'), rows)}"


def _memory(result: Result) -> str:
    few, many = result["found"]["lines"]
    rows = [
        (
            f"{one['rows']:,}",
            f"{one['input_mb']:.0f} MiB",
            f"{one['peak_above_mb']:.0f} MiB",
            f"{one['together_above_mb']:.0f} MiB",
            f"{one['cpu_s']:.1f} s",
        )
        for one in (few, many)
    ]
    times = many["cpu_s"] / few["cpu_s"]
    most = limit(max(one["peak_above_mb"] for one in (few, many)), MOST_MEMORY, unit=" MiB")
    told = prose(
        f"`{result['command']}`: the whole step without MLflow on repeated rows with noise, XGBoost 500 x 6, margin, 30,000 "
        f"background rows. Peak of the resident memory above what the process held with the input in it ({most})."
    )
    head = ("rows", "input", "peak above it", "of both processes", "processor time")
    more = f"A hundred times the rows take {times:.1f} times the time ({limit(times, MOST_TIMES)})."
    return f"## Many rows\n{told}\n\n{table(head, rows)}\n\n{more}"


def main() -> None:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    made = page()
    if not parser.parse_args().check:
        PAGE.write_text(made, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != made:
        raise SystemExit(
            f"{PAGE.name} is not what the results make: run python benchmarks/performance_page.py"
        )
    sys.stdout.write(f"{PAGE.name}: {len(made.splitlines())} lines\n")


if __name__ == "__main__":
    main()
