"""`verify` on a machine with the standard library and ``cryptography`` alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from explain_step.snapshot.signing import generate, sign_directory

GOLDEN = Path(__file__).parents[1] / "snapshots" / "v1" / "loans"
OTHERS = """
import sys
from explain_step.snapshot.verify import main
code = main(sys.argv[1:])
known = sys.stdlib_module_names | {"explain_step", "cryptography", "cffi", "_cffi_backend", "__main__"}
print(sorted({name.partition(".")[0] for name in sys.modules} - known))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with this package and ``cryptography``, and what that needs."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("explain_step", "cryptography", "cffi", "_cffi_backend"):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            place = Path(spec.origin)
            place = place.parent if place.name == "__init__.py" else place
            (folder / place.name).symlink_to(place)
    return folder


def verified(packages: Path, *arguments: object) -> tuple[int, str]:
    command = [sys.executable, "-S", "-c", OTHERS, *map(str, arguments)]
    environment = {"PYTHONPATH": str(packages), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_a_whole_snapshot_passes_and_what_was_not_read_is_said(packages: Path) -> None:
    code, said = verified(packages, GOLDEN)
    assert code == 0, said
    assert "pass VER000 every byte of" in said
    assert "their values not read: that takes pandas and pyarrow" in said
    assert said.rstrip().endswith("[]")  # nothing else was imported


def test_a_changed_byte_is_named(packages: Path, tmp_path: Path) -> None:
    place = shutil.copytree(GOLDEN, tmp_path / "copy")
    table = place / "tables" / "importance.parquet"
    table.write_bytes(table.read_bytes()[:-1] + b"?")
    code, said = verified(packages, place)
    assert code == 1
    assert "fail VER007 tables/importance.parquet was changed" in said


def test_a_signature_is_checked(packages: Path, tmp_path: Path) -> None:
    place = shutil.copytree(GOLDEN, tmp_path / "copy")
    signer = generate(tmp_path / "key.pem")
    sign_directory(place, signer)
    keys = tmp_path / "allowed"
    keys.write_text(f"{signer.key_id} audit\n")
    code, said = verified(packages, place, "--allowed-keys", keys)
    assert code == 0, said
    assert "signed by audit (L2)" in said
    shutil.rmtree(place / "signatures")
    code, said = verified(packages, place, "--allowed-keys", keys)
    assert code == 1
    assert "fail VER016 L2 was asked for: it has no signature" in said
    keys.write_text("nobody\n")
    code, said = verified(packages, place, "--allowed-keys", keys)
    assert code == 2
    assert "Traceback" not in said
