"""The whole step beside its peers: ``python benchmarks/peers/run.py [--shapash-python P] [--dashboard-python P]``.

Adult census, 15 columns as numbers, XGBoost with 500 trees of depth 6, trained on 30,000 rows; 10,000 others are explained
(``--rows``, ``--trees``). Every peer runs in a process and, where a Python is named for it, an environment of its own (with
shapash or explainerdashboard, and the same xgboost and pyarrow). Bytecode is cached before, and every peer works on 100 rows
first, which is not counted:

- the step: every row and section, figures, page and MLflow logging to SQLite, with the margin (exact values) and with the
  probability (sampled);
- ``mlflow.models.evaluate`` with shap: three figures of 2,000 rows, logged to SQLite;
- shapash: ``compile`` on all rows and ``generate_report``;
- explainerdashboard: the explainer on all rows and ``save_html``.

Wall seconds and processor seconds of all threads, and the ratio of the wall times to the step's. A peer that has not ended
after ``--limit`` seconds, its first 100 rows and the start of its process included, is ended.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from xgboost import XGBClassifier

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import recorded  # noqa: E402  scripts beside this folder
from tree_engine import adult  # noqa: E402

TRAINED = 30_000


def prepare(folder: Path, *, rows: int, trees: int) -> None:
    """Write the model, the rows it was trained on and the rows to explain."""
    X, y = adult()
    X.columns = [str(name).replace("-", "_") for name in X.columns]
    order = np.random.default_rng(0).permutation(len(X))
    train, test = order[:TRAINED], order[TRAINED:][:rows]
    if len(test) < rows:  # more rows than there are: the same ones, a little moved
        test = np.resize(order[TRAINED:], rows)
    held = X.iloc[test].reset_index(drop=True)
    held["age" if "age" in held else held.columns[0]] += np.arange(rows) // max(len(X) - TRAINED, 1) * 1e-3
    X.iloc[train].to_parquet(folder / "train.parquet", index=False)
    held.assign(label=y[test]).to_parquet(folder / "test.parquet", index=False)
    XGBClassifier(n_estimators=trees, max_depth=6, n_jobs=2).fit(X.iloc[train], y[train]).save_model(
        folder / "model.ubj"
    )


def cache_bytecode(python: str) -> None:
    """Compile the modules that a Python has installed, and ours, so that no peer is charged for its compiler."""
    script = (
        "import compileall, sys, sysconfig\n"
        "for folder in (sysconfig.get_path('purelib'), sys.argv[1]): compileall.compile_dir(folder, quiet=2, workers=0)"
    )
    subprocess.run([python, "-c", script, str(HERE.parents[1] / "explain_step")], check=True)


def measure(python: str, peer: str, folder: Path, *, rows: int, limit: float) -> dict[str, object] | None:
    """Run one peer in a process of its own and return what it printed last; nothing where it has not ended in time."""
    command = [python, "-W", "ignore", str(HERE / "peer.py"), peer, str(folder), str(rows)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise SystemExit(f"{peer} failed:\n{done.stderr[-3000:]}")
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def import_seconds() -> float:
    """Return how long ``import explain_step`` takes, the quickest of five processes."""
    script = "import time; t = time.perf_counter(); import explain_step; print(time.perf_counter() - t)"
    command = [sys.executable, "-c", script]
    return min(
        float(subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE.parents[1]).stdout)
        for _ in range(5)
    )


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--trees", type=int, default=500)
    parser.add_argument("--shapash-python")
    parser.add_argument("--dashboard-python")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which a peer is ended")
    parser.add_argument(
        "--cached", action="store_true", help="leave the bytecode of what is installed as it is"
    )
    parser.add_argument("--save", help="file for the numbers")
    given = parser.parse_args()
    peers = {"step": sys.executable, "step_probability": sys.executable, "mlflow_evaluate": sys.executable}
    more = {"shapash": given.shapash_python, "explainerdashboard": given.dashboard_python}
    peers |= {name: python for name, python in more.items() if python}
    sys.stdout.write("| | wall | processor | of the step's wall time | what |\n|---|---|---|---|---|\n")
    with tempfile.TemporaryDirectory(prefix="benchmark_") as name:
        prepare(Path(name), rows=given.rows, trees=given.trees)
        for python in () if given.cached else dict.fromkeys(peers.values()):
            cache_bytecode(python)
        first = 0.0
        lines: list[dict[str, object]] = []
        for peer, python in peers.items():
            found = measure(python, peer, Path(name), rows=given.rows, limit=given.limit)
            if found is None:
                more_than = f"more than {given.limit:.0f} s"
                sys.stdout.write(
                    f"| {peer} | {more_than} | | more than {given.limit / first:.0f} | ended by us |\n"
                )
                lines.append({"peer": peer, "wall": None, "limit": given.limit})
                continue
            wall, processor = float(str(found["wall"])), float(str(found["processor"]))
            first = first or wall
            sys.stdout.write(
                f"| {peer} | {wall:.1f} s | {processor:.1f} s | {wall / first:.1f} | {found['what']} |\n"
            )
            sys.stdout.flush()
            lines.append({"peer": peer, **found})
    imported = import_seconds()
    sys.stdout.write(f"\nimport explain_step: {imported:.2f} s (the quickest of five)\n")
    recorded.save(given.save, {"rows": given.rows, "trees": given.trees, "lines": lines, "import": imported})


if __name__ == "__main__":
    main()
