"""What is packed for others: the package, and nothing that lies beside or inside it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECRET = "CANARY-5c1e88-token"
PLANTED = (
    ".env",
    "secrets.txt",
    "explain_step/.env",
    "explain_step/server/settings.local",
    "explain_step/report/x.yaml",
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Build wheel and source distribution of a checkout with secrets in it; return their files."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert uv is not None, "uv is installed by make"
    place = tmp_path_factory.mktemp("checkout")
    shutil.copytree(
        ROOT / "explain_step", place / "explain_step", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md"):
        shutil.copy2(ROOT / name, place)
    for name in PLANTED:
        (place / name).write_text(f"TOKEN={SECRET}\n")
    built = subprocess.run(
        [uv, "build", "--python", sys.executable, "--out-dir", str(place / "dist"), str(place)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
        env=os.environ | {"MLFLOW_TRACKING_PASSWORD": SECRET},
    )
    assert built.returncode == 0, built.stderr
    (wheel,), (source,) = ((place / "dist").glob(pattern) for pattern in ("*.whl", "*.tar.gz"))
    files = {}
    with zipfile.ZipFile(wheel) as archive:
        files |= {f"wheel/{name}": archive.read(name) for name in archive.namelist()}
    with tarfile.open(source) as archive:
        members = (m for m in archive.getmembers() if m.isfile())
        files |= {f"source/{m.name}": archive.extractfile(m).read() for m in members}  # type: ignore[union-attr]
    return files


def test_no_planted_secret_is_packed(packed: dict[str, bytes]) -> None:
    assert [name for name, content in packed.items() if SECRET.encode() in content] == []


def test_everything_of_the_package_is_packed(packed: dict[str, bytes]) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "explain_step"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {f"wheel/{name}" for name in listed.stdout.splitlines()}
    assert tracked <= set(packed)
    assert {name for name in packed if name.startswith("wheel/explain_step/")} == tracked


def test_no_file_names_the_machine_that_built_it(packed: dict[str, bytes]) -> None:
    """Neither folders of a home or checkout, nor the host and the user."""
    words = [str(ROOT), str(Path.home()), f"@{platform.node()}"]
    words = [word for word in words if len(word) > len("/root")]
    found = {(name, word) for name, content in packed.items() for word in words if word.encode() in content}
    assert found == set()
    odd = [
        name for name in packed if name.endswith((".pyc", ".so", ".db", ".log", "~")) or "__pycache__" in name
    ]
    assert odd == []
