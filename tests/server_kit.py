"""A real ``mlflow server`` behind the gate, as a process of its own, and requests to it without MLflow's client."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

START_SECONDS = 180


@dataclass(frozen=True, kw_only=True)
class Gated:
    """A running server: where it answers, and where it keeps its things."""

    url: str
    folder: Path
    log: Path
    audit: Path
    policy: Path
    auth: tuple[str, str] | None = None
    session: requests.Session = field(default_factory=requests.Session)

    @property
    def artifacts(self) -> Path:
        """The directory of the proxied artifacts."""
        return self.folder / "artifacts"

    @property
    def database(self) -> str:
        """The URI of the database without the gate."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def request(self, method: str, path: str, **settings: Any) -> requests.Response:
        """Send a request as it is: the path is not normalised."""
        prepared = requests.Request(
            method, self.url, auth=settings.pop("auth", self.auth), **settings
        ).prepare()
        prepared.url = f"{self.url}{path}"
        return self.session.send(prepared, timeout=60)

    def api(
        self, method: str, path: str, *, prefix: str = "/api/2.0/mlflow", **body: Any
    ) -> requests.Response:
        """Call MLflow's REST API."""
        if method == "GET":
            return self.request(
                "GET", f"{prefix}/{path}?{requests.models.RequestEncodingMixin._encode_params(body)}"
            )
        return self.request(method, f"{prefix}/{path}", json=body)

    def put(self, path: str, content: bytes = b"evil", *, prefix: str = "/api/2.0") -> requests.Response:
        """Upload an artifact through the proxy."""
        return self.request("PUT", f"{prefix}/mlflow-artifacts/artifacts/{path}", data=content)

    def delete(self, path: str) -> requests.Response:
        """Delete an artifact through the proxy."""
        return self.request("DELETE", f"/api/2.0/mlflow-artifacts/artifacts/{path}")

    def alias(self, name: str, version: str, alias: str = "champion", **settings: Any) -> requests.Response:
        """Set an alias."""
        body = {"name": name, "alias": alias, "version": version}
        return self.api("POST", "registered-models/alias", **body, **settings)


def command(
    folder: Path,
    port: int,
    *options: str,
    gated: bool = True,
    workers: int = 1,
    database: str | None = None,
    destination: str | None = None,
) -> list[str]:
    """Return the command line of the documentation."""
    gate = "explain-gate+" if gated else ""
    database = database or f"sqlite:///{folder / 'mlflow.db'}"
    destination = destination or (folder / "artifacts").as_uri()
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", str(workers), "--backend-store-uri", database),
        *("--registry-store-uri", f"{gate}{database}"),
        *("--artifacts-destination", f"{gate}{destination}"),
        *options,
    ]


def environment(folder: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of the server: nothing of MLflow's from outside."""
    quiet = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "_MLFLOW", "EXPLAIN_STEP_"))}
    quiet |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    quiet |= {"EXPLAIN_STEP_AUDIT_LOG": str(folder / "audit.jsonl")}
    quiet |= {"EXPLAIN_STEP_POLICY": str(folder / "policy.yaml")}
    return quiet | dict(extra or {})


@contextlib.contextmanager
def serving(
    folder: Path,
    *options: str,
    policy: str = "version: 1\n",
    migrated: Path | None = None,
    env: Mapping[str, str] | None = None,
    gated: bool = True,
    workers: int = 1,
    auth: tuple[str, str] | None = None,
    database: str | None = None,
    destination: str | None = None,
) -> Iterator[Gated]:
    """Run a server until the block ends; it is stopped by its own process group."""
    (folder / "policy.yaml").write_text(policy)
    if migrated is not None:
        shutil.copyfile(migrated, folder / "mlflow.db")
    port = free_port()
    log = folder / "server.log"
    places = {"database": database, "destination": destination}
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command(folder, port, *options, gated=gated, workers=workers, **places),
            **{"stdout": sink, "stderr": subprocess.STDOUT, "cwd": folder},
            env=environment(folder, env),
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, log)
            yield Gated(
                url=url,
                folder=folder,
                log=log,
                audit=folder / "audit.jsonl",
                policy=folder / "policy.yaml",
                auth=auth,
            )
        finally:
            stop(process)


def refused_to_start(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run ``mlflow server`` with options that must not serve; return exit code and output."""
    port = str(free_port())
    line: Sequence[str] = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, *arguments)
    ]
    process = subprocess.Popen(
        line,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "cwd": folder, "text": True},
        env=environment(folder, env),
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=90)
        return process.returncode, output
    finally:
        stop(process)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    message = f"mlflow server did not start:\n{log.read_text(errors='replace')[-3000:]}"
    raise AssertionError(message)


def stop(process: subprocess.Popen[Any]) -> None:
    """End a server and its workers: they are in a session of their own."""
    for sign, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    process.wait(10)
