"""What the tests of the gate share: the server, a client of it, and an explained version."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from server_kit import Gated

GATE_POLICY = """\
version: 1
name: tests of the gate
protected:
  aliases: [champion, "live-*"]
  stages: [Production]
  registered_models: ["prod.*"]
"""
FILES = {"MLmodel": b"flavors:\n  python_function:\n    loader_module: nowhere\n", "model.bin": b"weights"}


@dataclass(frozen=True, kw_only=True)
class Version:
    """A registered version, its logged model, and the places of its files."""

    name: str
    version: str
    model_id: str
    run_id: str
    path: str
    folder: Path
    snapshot_id: str = ""

    @property
    def evidence(self) -> Path:
        """The directory of its snapshot on the server's disk."""
        return self.folder / "explanations" / self.snapshot_id


@dataclass(frozen=True, kw_only=True)
class World:
    """What the tests share: the server, a client of it, and an explained version ``good``."""

    server: Gated
    client: MlflowClient
    experiment_id: str
    good: Version

    def unexplained(self, name: str, *, files: dict[str, bytes] = FILES, ready: bool = True) -> Version:
        """Log a model with a few bytes, and register it under ``name``."""
        run = self.client.create_run(self.experiment_id)
        model = self.client.create_logged_model(self.experiment_id, source_run_id=run.info.run_id)
        path = model.artifact_location.removeprefix("mlflow-artifacts:/")
        for file, content in files.items():
            assert self.server.put(f"{path}/{file}", content).status_code == 200
        if ready:
            self.client.finalize_logged_model(model.model_id, "READY")
        self.registered(name)
        source = f"models:/{model.model_id}"
        body = {"name": name, "source": source, "run_id": run.info.run_id, "model_id": model.model_id}
        made = self.server.api("POST", "model-versions/create", **body)
        number = made.json()["model_version"]["version"] if made.status_code == 200 else ""
        return Version(
            name=name,
            version=str(number),
            model_id=model.model_id,
            run_id=run.info.run_id,
            path=path,
            folder=self.server.artifacts / path,
        )

    def registered(self, name: str) -> None:
        """Create a registered model where there is none of the name."""
        self.server.api("POST", "registered-models/create", name=name)

    def another_version(self, name: str) -> str:
        """Register the explained model once more, under another name; return the version."""
        self.registered(name)
        body = {"source": f"models:/{self.good.model_id}", "model_id": self.good.model_id}
        made = self.server.api("POST", "model-versions/create", name=name, run_id=self.good.run_id, **body)
        assert made.status_code == 200, made.text
        return str(made.json()["model_version"]["version"])

    def aliases(self, name: str) -> dict[str, str]:
        """Return the aliases of a registered model as the server has them."""
        found = self.server.api("GET", "registered-models/get", name=name).json()["registered_model"]
        return {entry["alias"]: str(entry["version"]) for entry in found.get("aliases", [])}

    @contextlib.contextmanager
    def changed(self, place: Path) -> Iterator[Path]:
        """Let a test change a file or directory on the server's disk, and put it back afterwards."""
        kept = place.parent / f"{place.name}.kept-by-the-test"
        copy: Callable[..., Any] = shutil.copytree if place.is_dir() else shutil.copy2
        copy(place, kept)
        outside = self.server.folder / "kept-by-the-test"
        kept.rename(outside)
        try:
            yield place
        finally:
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
            outside.rename(place)


def explained_in(experiment: str, server: Gated, client: MlflowClient, *, name: str = "mortgage") -> World:
    """Create an experiment with one explained model in it, registered as ``name``."""
    import tracking_kit

    experiment_id = client.create_experiment(experiment)
    with contextlib.chdir(server.folder), tracking_kit.current_store(server.url, experiment_id):
        logged = log_explained(server.url, name)
    assert logged.status == "complete", logged.reason
    path = client.get_logged_model(logged.model_id).artifact_location.removeprefix("mlflow-artifacts:/")
    good = Version(
        name=name,
        version="1",
        model_id=logged.model_id,
        run_id=logged.run_id,
        path=path,
        folder=server.artifacts / path,
        snapshot_id=logged.id,
    )
    return World(server=server, client=client, experiment_id=experiment_id, good=good)


def log_explained(url: str, name: str) -> Any:
    """Train, log, register and explain a small model, as a training script would."""
    import mlflow
    import tracking_kit

    import explain_step

    X, y = tracking_kit.rows(60)
    with mlflow.start_run():
        tracking_kit.log(tracking_kit.fitted(), registered=name)
    return explain_step.log_explanations(f"models:/{name}/1", X, y, allow_pickle=True)
