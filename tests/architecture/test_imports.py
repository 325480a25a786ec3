"""The directions of the rooms, and the house rules that can be read off the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import explain_step

ROOT = Path(explain_step.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MAX_LINES = 450
LAZY = {
    *("shap", "xgboost", "lightgbm", "catboost", "sklearn", "matplotlib", "polars", "torch", "mlflow"),
    *("pyspark", "skops", "joblib", "pyarrow", "numba", "llvmlite"),
}
FORBIDDEN = {"pickle", "dill", "cloudpickle", "marshal", "shelve"}

BASE = {
    *(
        "types",
        "errors",
        "canonical",
        "canonical_columns",
        "digests",
        "hashes",
        "config",
        "seeds",
        "secret_masking",
        "dataset",
        "row_sums",
        "spark_session",
        "stages",
        "heartbeat",
        "threads",
        "written",
    ),
}
MATHS = {"dates", "intervals", "metrics", "quantity", "privacy", "ties"}
MODELS = {
    *("models", "model_answers", "model_boosters", "model_callables", "model_families", "model_inputs"),
    *("model_options", "preprocessing", "data", "frames", "labels", "backgrounds"),
    *("spark_frames", "spark_sampling"),
}
ROOMS: dict[str, set[str]] = {
    # room: what it may import besides itself; a new room or file at the top needs a line here
    **dict.fromkeys(BASE, BASE),
    **dict.fromkeys(MATHS, BASE | MATHS),
    **dict.fromkeys(MODELS, BASE | MATHS | MODELS),
    "explainers": BASE | MATHS | MODELS,
    "artifacts": BASE | MATHS | MODELS | {"explainers"},
    "scores": BASE | MATHS | MODELS | {"explainers"},
    "plots": {"types", "errors"},
    "report": {"types", "errors"},
    "snapshot": BASE,
    "gate": BASE,
    "streaming": BASE | MATHS | MODELS | {"explainers", "artifacts"},
    "compute": BASE | MATHS | MODELS | {"explainers", "artifacts", "scores", "streaming"},
    "spark_work": BASE | MATHS | MODELS | {"explainers", "streaming"},
    "spark_areas": BASE | MATHS | MODELS | {"spark_work", "streaming"},
    "spark": BASE | MATHS | MODELS | {"compute", "explainers", "spark_areas", "spark_work", "streaming"},
    "pages": BASE | MATHS | {"compute", "report", "snapshot"},
    "tracking": BASE
    | MATHS
    | MODELS
    | {"explainers", "artifacts", "scores", "plots", "report", "snapshot", "gate"},
    "server": BASE | {"gate", "snapshot", "tracking"},
    "aside": BASE | {"compute", "explainers", "plots"},
    "step": BASE
    | MATHS
    | {
        "aside",
        "compute",
        "spark",
        "spark_frames",
        "pages",
        "plots",
        "report",
        "snapshot",
        "tracking",
        "gate",
    },
    "terminal": {"types", "snapshot"},
    "promotion": BASE | {"gate", "snapshot", "tracking"},
    "cli_base": BASE,
    "cli_audit": BASE | {"cli_base", "terminal", "tracking"},
    "loading": BASE | {"gate", "tracking"},
    "resuming": BASE | {"pages", "report", "snapshot", "tracking"},
    "cli_resume": BASE | {"cli_base", "resuming", "terminal", "tracking"},
    "cli_sign": BASE | {"cli_base", "snapshot", "tracking"},
    "cli_verify": BASE | {"cli_base", "snapshot", "terminal", "tracking"},
    "cli_warm": BASE | {"cli_base", "explainers"},
    "cli_gate": BASE | {"cli_base", "gate", "promotion", "snapshot", "terminal", "tracking"},
    "replay_result": BASE | {"gate", "snapshot"},
    "replay_inputs": BASE | {"replay_result"},
    "replay_recreate": BASE | {"frames", "gate", "replay_inputs", "replay_result", "snapshot", "tracking"},
    "replay_answers": BASE | {"replay_inputs", "replay_result", "snapshot"},
    "replay_comparing": BASE | {"gate", "replay_answers", "replay_inputs", "replay_result", "snapshot"},
    "replaying": BASE
    | {
        "compute",
        "frames",
        "gate",
        "replay_comparing",
        "replay_recreate",
        "replay_result",
        "snapshot",
        "spark_frames",
        "step",
        "tracking",
    },
    "exporting": BASE
    | {"replay_inputs", "replay_recreate", "replay_result", "replaying", "snapshot", "tracking"},
    "cli_export": BASE | {"cli_base", "exporting"},
    "cli_replay": BASE | {"cli_base", "replay_result", "replaying", "terminal"},
    "cli": BASE
    | {
        "cli_audit",
        "cli_base",
        "cli_export",
        "cli_gate",
        "cli_replay",
        "cli_resume",
        "cli_sign",
        "cli_verify",
        "cli_warm",
        "step",
        "tracking",
        "snapshot",
        "terminal",
        "gate",
    },
    "evaluator": BASE | {"step", "tracking", "snapshot"},
    "__main__": {"cli"},
    "__init__": BASE | {"loading", "promotion", "replaying", "resuming", "step", "snapshot", "tracking"},
}
MLFLOW_ROOMS = {"tracking", "server", "evaluator"}
KERNELS = {"explainers/product_game_kernels.py"} | {
    f"explainers/tree_{name}.py"
    for name in (
        "kernels",
        "patterns",
        "units",
        "deep",
        "paths",
        "programs",
        "answers",
        "vectors",
        "mask_kernels",
        "walk_kernels",
    )
}
PLUGINS = {
    "evaluator.py": {"mlflow"},
    "plots/canvas.py": {"matplotlib"},
    "plots/panel.py": {"matplotlib"},
    **{name: {"numba", "llvmlite"} for name in KERNELS},
}
"""Modules that subclass a library's classes, and modules whose functions a decorator compiles: they cannot import these
late, and are imported late themselves."""


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def _imports(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the full dotted names that a statement imports."""
    if isinstance(node, ast.Import):
        yield from ((alias.name, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}: write the whole name"
        yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def _at_import_time(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield what runs when the module is imported: not functions, not blocks for type checkers."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        for block in ("body", "orelse", "finalbody"):
            yield from _at_import_time(getattr(node, block, []))
        for handler in getattr(node, "handlers", []):
            yield from _at_import_time(handler.body)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_room_has_its_directions() -> None:
    rooms = {_room(path) for path in FILES}
    assert rooms <= set(ROOMS), f"say in ROOMS what these may import: {sorted(rooms - set(ROOMS))}"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_imports_go_down_only(path: Path) -> None:
    allowed = ROOMS[_room(path)] | {_room(path)}
    for node in ast.walk(_tree(path)):
        for name, line in _imports(node):
            parts = name.split(".")
            if parts[0] != "explain_step" or len(parts) == 1 or parts[1] == "__version__":
                continue
            assert parts[1] in allowed, f"line {line}: {_room(path)} may not import {name}"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_mlflow_is_imported_in_its_rooms_only(path: Path) -> None:
    names = {name.split(".")[0] for node in ast.walk(_tree(path)) for name, _ in _imports(node)}
    dynamic = {
        str(argument.value).split(".")[0]
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }
    if _room(path) not in MLFLOW_ROOMS:
        assert "mlflow" not in names | dynamic


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_heavy_libraries_are_imported_late(path: Path) -> None:
    early = {
        name.split(".")[0]: line
        for node in _at_import_time(_tree(path).body)
        for name, line in _imports(node)
    }
    lazy = LAZY - PLUGINS.get(_name(path), set())
    assert not lazy & set(early), {k: v for k, v in early.items() if k in lazy}


@pytest.mark.parametrize("path", [path for path in FILES if _name(path) not in KERNELS], ids=_name)
def test_compiled_kernels_are_imported_late(path: Path) -> None:
    kernels = {"explain_step." + name.removesuffix(".py").replace("/", ".") for name in KERNELS}
    early = {name for node in _at_import_time(_tree(path).body) for name, _ in _imports(node)}
    assert not kernels & early


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_no_pyplot_no_pickle_no_printing(path: Path) -> None:
    for node in ast.walk(_tree(path)):
        for name, line in _imports(node):
            assert not name.startswith("matplotlib.pyplot"), f"line {line}: use matplotlib.figure.Figure"
            assert name.split(".")[0] not in FORBIDDEN, f"line {line}: {name}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print":
            pytest.fail(f"line {node.lineno}: a library does not print")


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, f"{lines} lines: a file has one reason to exist"


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_public_names_have_docstrings(path: Path) -> None:
    tree = _tree(path)
    if path.read_text(encoding="utf-8").strip():
        assert ast.get_docstring(tree), "the module has no docstring"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_"):
            continue
        assert ast.get_docstring(node), f"line {node.lineno}: {node.name} has no docstring"
        for inner in getattr(node, "body", []):
            if isinstance(node, ast.ClassDef) and isinstance(inner, ast.FunctionDef):
                public = not inner.name.startswith("_")
                assert not public or ast.get_docstring(inner), (
                    f"line {inner.lineno}: {node.name}.{inner.name}"
                )


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_no_caches_that_compute_and_no_global_randomness(path: Path) -> None:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef):
            marks = {ast.unparse(d).split("(")[0].split(".")[-1] for d in node.decorator_list}
            assert "cached_property" not in marks, f"line {node.lineno}: {node.name}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            unseeded = called.endswith("random.default_rng") and not node.args and not node.keywords
            assert not unseeded, f"line {node.lineno}: a generator without a seed"
            if called in ("np.random.seed", "numpy.random.seed"):
                assert path.name == "seeds.py", (
                    f"line {node.lineno}: the global generator belongs to the caller"
                )


def test_the_rules_would_notice() -> None:
    text = "import mlflow\nif True:\n    import shap\nfrom typing import TYPE_CHECKING\n"
    text += "if TYPE_CHECKING:\n    import sklearn\ndef f():\n    import polars\n"
    early = {name for node in _at_import_time(ast.parse(text).body) for name, _ in _imports(node)}
    assert early == {"mlflow", "shap", "typing.TYPE_CHECKING"}
