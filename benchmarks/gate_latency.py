"""Latency of alias calls on a gated and on a plain MLflow server, and fifty clients at once.

Run from a checkout: ``python benchmarks/gate_latency.py``. It starts two real servers on loopback, explains one
model, adds evidence files up to 60, and prints p50 and p95 in milliseconds. On a busy machine the ratios say more
than the milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))

import server_kit  # noqa: E402

EVIDENCE_FILES = 60


def explained(server: Any, folder: Path) -> None:
    """Train, register and explain a small model, then fill its evidence up to the stated number of files."""
    import mlflow
    import tracking_kit
    from mlflow import MlflowClient

    import explain_step
    from explain_step.snapshot.manifest import dump, seal

    client = MlflowClient(tracking_uri=server.url, registry_uri=server.url)
    experiment = client.create_experiment("latency")
    X, y = tracking_kit.rows(200)
    with contextlib.chdir(folder), tracking_kit.current_store(server.url, experiment):
        with mlflow.start_run():
            tracking_kit.log(tracking_kit.fitted(), registered="mortgage")
        logged = explain_step.log_explanations("models:/mortgage/1", X, y)
    path = client.get_logged_model(logged.model_id).artifact_location.removeprefix("mlflow-artifacts:/")
    evidence = server.artifacts / path / "explanations" / logged.id
    manifest = json.loads((evidence / "manifest.json").read_bytes())
    for number in range(len(manifest["files"]), EVIDENCE_FILES):
        data = f"{number}".encode() * 2048
        (evidence / "figures" / f"more_{number}.txt").write_bytes(data)
        entry = {"path": f"figures/more_{number}.txt", "size": len(data), "role": "figure"}
        manifest["files"].append({**entry, "sha256": hashlib.sha256(data).hexdigest()})
    data = dump(seal(manifest))
    (evidence / "manifest.json").write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    client.set_model_version_tag("mortgage", "1", "explain_step.manifest_sha256", digest)


def say(text: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{text}\n")


def timed(call: Callable[[], Any], rounds: int) -> list[float]:
    """Return the milliseconds of each call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        answer = call()
        times.append((time.perf_counter() - start) * 1_000)
        assert answer.status_code == 200, answer.text
    return times


def line(name: str, times: list[float]) -> float:
    """Print p50 and p95; return p50."""
    p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
    say(f"{name:<52} p50 {p50:7.1f} ms   p95 {p95:7.1f} ms")
    return p50


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--calls", type=int, default=200, help="judged calls of 50 clients at once")
    given = parser.parse_args()
    rounds, calls_at_once = given.rounds, given.calls
    with tempfile.TemporaryDirectory(prefix="gate_latency_") as root, contextlib.ExitStack() as stack:
        gated_folder, plain_folder = Path(root) / "gated", Path(root) / "plain"
        for folder in (gated_folder, plain_folder):
            folder.mkdir()
        gated = stack.enter_context(server_kit.serving(gated_folder))
        plain = stack.enter_context(server_kit.serving(plain_folder, gated=False))
        for server, folder in ((gated, gated_folder), (plain, plain_folder)):
            explained(server, folder)
        calls = {
            "plain server, champion": lambda: plain.alias("mortgage", "1"),
            "gated server, unprotected alias": lambda: gated.alias("mortgage", "1", "dev"),
            "gated server, champion (judged)": lambda: gated.alias("mortgage", "1"),
        }
        for call in calls.values():
            timed(call, 5)  # imports and connections
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):  # in turn, so that a busy moment hits all of them
            for name, call in calls.items():
                times[name] += timed(call, 1)
        plain50, dev50, champion50 = (line(name, found) for name, found in times.items())
        say(
            f"added by the gate: {champion50 - plain50:.1f} ms for {EVIDENCE_FILES} evidence files "
            f"(x{champion50 / plain50:.2f}); unprotected alias x{dev50 / plain50:.2f}"
        )
        with ThreadPoolExecutor(50) as pool:
            start = time.perf_counter()
            answers = list(pool.map(lambda _: gated.alias("mortgage", "1").status_code, range(calls_at_once)))
            seconds = time.perf_counter() - start
        wrong = sum(code != 200 for code in answers)
        say(
            f"50 clients, {calls_at_once} judged calls: {wrong} errors, {len(answers) / seconds:.1f} calls per second"
        )


if __name__ == "__main__":
    main()
