"""Fixtures for tests that speak to MLflow: a store for each test, and no global URI stays changed."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # it imports MLflow, which takes seconds and most tests do not need
    from postgres import Postgres
    from tracking_kit import Store

SERVER_START_SECONDS = 180
THIRD_PARTY_WARNINGS = (
    # MLflow's store uses a loader strategy that SQLAlchemy 2.1 deprecates; nothing of ours can change it.
    "ignore:The ``noload`` loader strategy:DeprecationWarning",
    # Importing mlflow.pyfunc warns about type hints in MLflow's own source.
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",
    # MLflow's import hooks, once an evaluation has set them, have a loader of the old protocol.
    "ignore:_ImportHookChainedLoader:ImportWarning",
)


def pytest_configure(config: pytest.Config) -> None:
    """Keep warnings errors, but for those that MLflow causes by itself; keep out of the user's own spool."""
    # Idle threads of OpenMP and OpenBLAS wait by spinning. Two test processes have twice as many threads as there are
    # processors, so that spinning is half of the time of a fit; it changes no number. Read when the libraries load.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    if "EXPLAIN_STEP_SPOOL" not in os.environ:
        spool = os.environ["EXPLAIN_STEP_SPOOL"] = tempfile.mkdtemp(prefix="explain_step_test_spool_")
        config.add_cleanup(lambda: shutil.rmtree(spool, ignore_errors=True))
    for line in THIRD_PARTY_WARNINGS:
        config.addinivalue_line("filterwarnings", line)


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of every later collection of garbage."""
    gc.freeze()


@pytest.fixture(scope="session")
def _migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the tables once: it takes seconds, a copy takes milliseconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "migrated.db"
    client = MlflowClient(tracking_uri=f"sqlite:///{path}")
    client.search_experiments()
    _dispose(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(_migrated: Path, tmp_path: Path) -> Iterator[Store]:
    """Return an own SQLite store with local artifacts."""
    from mlflow import MlflowClient
    from tracking_kit import Store

    shutil.copyfile(_migrated, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    artifacts = tmp_path / "artifacts"
    client = MlflowClient(tracking_uri=uri)
    experiment_id = client.create_experiment("tests", artifact_location=artifacts.as_uri())
    yield Store(uri=uri, client=client, experiment_id=experiment_id, artifacts=artifacts)
    _dispose(uri)


@pytest.fixture
def active_store(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Make the store MLflow's current one, as in a training script, and take it back afterwards."""
    from tracking_kit import current_store

    monkeypatch.chdir(tmp_path)  # MLflow looks for project files (uv.lock) in the working directory
    with current_store(store.uri, store.experiment_id):
        yield store


def _dispose(uri: str) -> None:
    """Close the connections that MLflow keeps for a store, so that none is found open later."""
    from mlflow.tracking._model_registry.utils import _get_store as registry_store
    from mlflow.tracking._tracking_service.utils import _get_store as tracking_store

    for found in (tracking_store(uri), registry_store(uri)):
        engine: Any = getattr(found, "engine", None)
        if engine is not None:
            engine.dispose()


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running ``mlflow server`` on loopback, and its folder."""

    url: str
    folder: Path
    log: Path


@pytest.fixture(scope="session")
def mlflow_server(_migrated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a real server with proxied artifacts; it is stopped by its own process group."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(_migrated, folder / "mlflow.db")
    port = _free_port()
    log = folder / "server.log"
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"),
        *("--artifacts-destination", (folder / "artifacts").as_uri()),
    ]
    quiet = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    quiet["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven more processes that nothing here needs
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, stdout=sink, stderr=subprocess.STDOUT, cwd=folder, env=quiet, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_up(url, process, log)
            yield Server(url=url, folder=folder, log=log)
        finally:
            _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SERVER_START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"mlflow server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers: they are in a session of their own."""
    for sign, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    process.wait(10)


@pytest.fixture
def server_store(mlflow_server: Server, request: pytest.FixtureRequest) -> Store:
    """Return an own experiment on the server."""
    from mlflow import MlflowClient
    from tracking_kit import Store

    client = MlflowClient(tracking_uri=mlflow_server.url)
    name = f"{request.node.name[:80]}-{time.monotonic_ns()}"
    experiment_id = client.create_experiment(name)
    return Store(
        uri=mlflow_server.url,
        client=client,
        experiment_id=experiment_id,
        artifacts=mlflow_server.folder / "artifacts",
    )


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Return a real PostgreSQL server; tests that ask for it are skipped only where it cannot be started."""
    import tempfile

    from postgres import running, why_not

    reason = why_not()
    if reason is not None:
        assert not os.environ.get("CI"), f"continuous integration has to run these: {reason}"
        pytest.skip(reason)
    # pytest's own folders are closed to the user that the server runs as
    with tempfile.TemporaryDirectory(prefix="explain_step_postgres_") as folder:
        Path(folder).chmod(0o755)
        place = Path(folder) / "server"
        place.mkdir()
        with running(place) as server:
            yield server
