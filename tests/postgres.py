"""A real PostgreSQL server for the tests, on loopback, in a folder of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BINARIES = "/usr/lib/postgresql/*/bin"
"""Where Debian's package keeps what is not on the PATH."""
USER = "tester"


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A running server."""

    port: int

    def database(self, name: str) -> str:
        """Create a database and return its URI for SQLAlchemy."""
        import psycopg2

        connection = psycopg2.connect(host="127.0.0.1", port=self.port, user=USER, dbname="postgres")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(f'CREATE DATABASE "{name}"')
        finally:
            connection.close()
        return f"postgresql+psycopg2://{USER}@127.0.0.1:{self.port}/{name}"


def why_not() -> str | None:
    """Say why no server can be started here; None where one can."""
    if _binary("initdb") is None:
        return "PostgreSQL is not installed (on Debian: apt-get install postgresql)"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL does not run as root, and there is no runuser to change to another user"
    try:
        import psycopg2  # noqa: F401
    except ImportError:
        return "psycopg2 is not installed"
    return None


def _binary(name: str) -> str | None:
    found = shutil.which(name)
    if found is not None:
        return found
    candidates = sorted(Path("/").glob(f"{BINARIES[1:]}/{name}"))
    return str(candidates[-1]) if candidates else None


def _as_server_user(command: list[str]) -> list[str]:
    """Change from root to the package's own user: the server refuses root."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(folder: Path) -> Iterator[Postgres]:
    """Start a server with its data in ``folder`` and stop it at the end."""
    data, port = folder / "data", _free_port()
    if os.geteuid() == 0:
        shutil.chown(folder, user="postgres")
    control = [str(_binary("pg_ctl")), "-D", str(data), "-w", "-t", "60"]
    make = [str(_binary("initdb")), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync"]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    _run(make, folder)
    _run([*control, "-o", options, "-l", str(folder / "log"), "start"], folder)
    try:
        yield Postgres(port=port)
    finally:
        _run([*control, "-m", "immediate", "stop"], folder)


def _run(command: list[str], folder: Path) -> None:
    # output to a file: the started server inherits a pipe and would keep it open
    with (folder.parent / f"{folder.name}.out").open("a+b") as output:
        done = subprocess.run(
            _as_server_user(command), stdout=output, stderr=output, cwd="/", timeout=120, check=False
        )
        if done.returncode:
            output.seek(0)
            msg = f"{Path(command[0]).name} failed as {getpass.getuser()}: {output.read()[-2000:].decode()}"
            raise RuntimeError(msg)
