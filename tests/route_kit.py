"""The routes of the installed MLflow server, asked of its two routers: ``python route_kit.py`` prints them as JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LIST = Path(__file__).parent / "integration" / "judged_routes.txt"
READS = frozenset({"GET", "HEAD", "OPTIONS"})


def judged() -> dict[str, str]:
    """Return the routes of the list (``POST /api/…``), each with its class."""
    lines = [line.split("#")[0].split() for line in LIST.read_text().splitlines()]
    return {f"{method} {path}": kind for kind, method, path in (line for line in lines if line)}


def writing_routes() -> set[str]:
    """Return every route of the server, also under ``basic-auth``, that is not for reading alone.

    Call it in a process of its own: it makes the server's app. ``/ajax-api`` is ``/api`` by another name.
    """
    import mlflow.server
    from mlflow.server import auth
    from mlflow.server.fastapi_app import create_fastapi_app

    native = create_fastapi_app(mlflow.server.app).openapi()["paths"]
    auth.create_app(mlflow.server.app)  # adds its routes to the same app
    found = {(m, str(rule)) for rule in mlflow.server.app.url_map.iter_rules() for m in rule.methods or ()}
    found |= {(m.upper(), path) for path, operations in native.items() for m in operations}
    return {f"{method} {_plain(path)}" for method, path in found if method not in READS}


def unlisted_native_routes() -> list[str]:
    """Return the routes of FastAPI that its own description leaves out: they would escape `writing_routes`."""
    import mlflow.server
    from mlflow.server.fastapi_app import create_fastapi_app

    routes = _leaves(create_fastapi_app(mlflow.server.app))
    return [
        str(route.path)
        for route in routes
        if set(route.methods or ()) - READS and not getattr(route, "include_in_schema", True)
    ]


def _leaves(router: Any) -> Iterator[Any]:
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if inner is not None:
            yield from _leaves(inner)
        elif hasattr(route, "methods"):
            yield route


def _plain(path: str) -> str:
    path = re.sub(r"<[^>]*>|\{[^}]*\}", "{}", path)
    return re.sub(r"^/ajax-api(?=/)", "/api", path)


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"writing": sorted(writing_routes()), "unlisted": unlisted_native_routes()}))
