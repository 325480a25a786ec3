"""The command line: arguments to the Python functions, results to text or JSON, outcomes to exit codes.

Exit codes: 0 yes; 1 no (incomplete, no snapshot, does not verify, another model); 2 wrong usage; 3 could not
decide (a server does not answer); 4 failed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from explain_step import __version__
from explain_step.cli_audit import audit
from explain_step.cli_base import (
    FAILED,
    INTERRUPTED,
    NO,
    UNDECIDED,
    USAGE,
    YES,
    common,
    harmless,
    print_json,
    working,
)
from explain_step.cli_export import export
from explain_step.cli_gate import gate, promote, review
from explain_step.cli_replay import replay
from explain_step.cli_resume import resume
from explain_step.cli_sign import keygen, sign
from explain_step.cli_verify import verify
from explain_step.cli_warm import warm
from explain_step.errors import (
    BindingError,
    InvalidInput,
    MissingDependency,
    SnapshotError,
)
from explain_step.secret_masking import mask_text

if TYPE_CHECKING:
    from explain_step.snapshot import Snapshot
    from explain_step.tracking import LoggedSnapshot

URI_SCHEMES = ("models:/", "runs:/")
COLOURS = {"complete": "green", "degraded": "yellow", "incomplete": "red", "failed": "red"}
NO_ANSWER = {("requests", "RequestException"), ("urllib3", "HTTPError"), ("sqlalchemy", "OperationalError")}


def exit_code(error: BaseException) -> int:
    """Return the exit code of an error: the one place where errors become exit codes."""
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, click.UsageError | InvalidInput | MissingDependency):
        return USAGE
    if isinstance(error, SnapshotError | BindingError):
        return NO
    return UNDECIDED if _no_answer(error) else FAILED


def _no_answer(error: BaseException) -> bool:
    """Tell whether an error, or one it came from, is a server or database that gave no answer."""
    from explain_step.tracking.marks import unreachable

    cause: BaseException | None = error
    while cause is not None:
        kinds = {(t.__module__.partition(".")[0], t.__name__) for t in type(cause).__mro__}
        if kinds & NO_ANSWER or str(cause).startswith("API request to "):
            return True
        cause = cause.__cause__ or cause.__context__
    return unreachable(error)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="explain-step")
@click.pass_context
def cli(context: click.Context) -> None:
    """Explain trained models, show and verify the explanations, and promote what is explained.

    Exit codes: 0 yes, 1 no (incomplete, does not verify, refused), 2 wrong usage, 3 could not decide (server
    unreachable), 4 failed.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False


@cli.command()
@click.argument("model")
@click.argument("data")
@click.option(
    "--target", help="Column of DATA with the labels. Without it, performance is missing: degraded."
)
@click.option(
    "--segments", multiple=True, metavar="A,B", help="Columns or expressions, e.g. 'afam,age < 30'."
)
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False), help="YAML or JSON file with options."
)
@click.option(
    "--background", type=click.Path(exists=True, dir_okay=False), help="Reference rows (Parquet, CSV)."
)
@click.option("--sample-weight", metavar="COLUMN", help="Column of DATA with weights.")
@click.option(
    "--output", type=click.Choice(["probability", "margin", "prediction"]), help="Explained quantity."
)
@click.option(
    "--feature-perturbation",
    type=click.Choice(["interventional", "correlation_dependent"]),
    help="Which Shapley values; the second is of linear models only.",
)
@click.option("--positive-class", help="Class whose probability is explained.")
@click.option("--metrics", multiple=True, metavar="A,B", help="Performance metrics; the first one leads.")
@click.option("--redact", multiple=True, metavar="A,B", help="Columns whose values are published nowhere.")
@click.option(
    "--privacy", type=click.Choice(["standard", "strict"]), help="strict: no raw row, no rare level."
)
@click.option("--max-rows", type=click.IntRange(min=1), help="Explain at most this many rows.")
@click.option("--budget", metavar="SECONDS", help="Time for estimated work, e.g. 60 or 5m.")
@click.option(
    "--precision",
    type=float,
    help="Estimated work goes on until leading intervals are within this part of the largest mean, e.g. 0.05.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of everything random.")
@click.option(
    "--allow-pickle", is_flag=True, help="Also load models whose format runs code; only if you trust it."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "spark"]),
    default="local",
    show_default=True,
    help="Where rows are explained; spark reads DATA as Parquet (a file, a directory or a URI).",
)
@click.option("--run-id", help="MLflow run to log to. Default: the run of the model.")
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the snapshot. Default: 'explanations'; none for a model in MLflow.",
)
@click.option("--dry-run", is_flag=True, help="Explain, report the status, and write nothing.")
@common
def run(
    model: str,
    data: str,
    *,
    dry_run: bool,
    as_json: bool,
    tracking_uri: str | None,
    verbose: bool,
    **given: Any,
) -> int:
    """Explain MODEL on the rows of DATA (Parquet or CSV).

    MODEL is models:/name/1, models:/name@alias, models:/m-…, runs:/…/model, or the directory of an MLflow
    model. A model in MLflow gets its explanation logged there. A model whose format runs code when it is
    loaded, such as a pickle, is refused without --allow-pickle.
    """
    options = _options(given)
    arguments = {"config": given["config"], **options}
    if given["run_id"] is not None and not model.startswith(URI_SCHEMES):
        msg = "--run-id needs a model in MLflow (models:/… or runs:/…); a model directory is not logged."
        raise click.UsageError(msg)
    if dry_run:
        with working(verbose=verbose), _rows(data, engine=given["engine"]) as rows:
            facts = _tried(model, rows, given, tracking_uri=tracking_uri, arguments=arguments)
        _report_run(facts, as_json=as_json)
        return NO if facts["status"] == "incomplete" else YES
    _check_folder(given["output_dir"])
    if model.startswith(URI_SCHEMES):
        with working(verbose=verbose), _rows(data, engine=given["engine"]) as rows:
            logged = _log(model, rows, given, tracking_uri=tracking_uri, arguments=arguments)
        _report_run(_logged_facts(logged, given["output_dir"]), as_json=as_json)
        return NO if logged.status == "incomplete" else YES
    with working(verbose=verbose), _rows(data, engine=given["engine"]) as rows:
        shot = _explain(model, rows, given, arguments=arguments)
    facts = {"status": shot.status, "reason": shot.reason, "snapshot_id": shot.id, "path": str(shot.path)}
    _report_run(facts, as_json=as_json)
    return NO if shot.status == "incomplete" else YES


PLAIN_OPTIONS = (
    "background",
    "sample_weight",
    "output",
    "feature_perturbation",
    "positive_class",
    "privacy",
    "max_rows",
    "budget",
    "precision",
    "seed",
)
LIST_OPTIONS = ("segments", "metrics", "redact")


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """Return the given options only: what is not given is left to the config file and the defaults."""
    options = {key: given[key] for key in PLAIN_OPTIONS if given[key] is not None}
    for key in LIST_OPTIONS:
        parts = [part.strip() for text in given[key] for part in text.split(",")]
        if any(parts):
            options[key] = tuple(part for part in parts if part)
    return options


@contextmanager
def _rows(data: str, *, engine: str) -> Iterator[Any]:
    """Give the path of the rows, or a Spark DataFrame of them."""
    if engine == "local":
        if not Path(data).is_file():
            problem = "is a directory" if Path(data).is_dir() else "does not exist"
            msg = f"DATA must be a file, but {data!r} {problem}; --engine spark also reads directories and URIs."
            raise click.UsageError(msg)
        yield data
        return
    from explain_step.spark_session import read_parquet, session

    with session() as spark:
        yield read_parquet(spark, data)


def _log(
    model: str, rows: Any, given: dict[str, Any], *, tracking_uri: str | None, arguments: dict[str, Any]
) -> LoggedSnapshot:
    from explain_step import step

    return step.log_explanations(
        model,
        rows,
        given["target"],
        run_id=given["run_id"],
        tracking_uri=tracking_uri,
        on_error="raise",
        allow_pickle=given["allow_pickle"],
        **arguments,
    )


def _explain(model: str, rows: Any, given: dict[str, Any], *, arguments: dict[str, Any]) -> Snapshot:
    from explain_step import step

    fitted = _fitted(model, given)
    folder = given["output_dir"] or Path("explanations")
    return step.explain(fitted, rows, given["target"], directory=folder, **arguments)


def _fitted(model: str, given: dict[str, Any]) -> Any:
    from explain_step.tracking import load_directory

    place = Path(model)
    if not place.is_dir():
        msg = f"MODEL must be models:/…, runs:/… or the directory of an MLflow model, got {model!r}."
        raise click.UsageError(msg)
    return load_directory(place, allow_pickle=given["allow_pickle"])


def _tried(
    model: str, rows: Any, given: dict[str, Any], *, tracking_uri: str | None, arguments: dict[str, Any]
) -> dict[str, Any]:
    """Explain into a folder that is removed again; the model of a URI is loaded as if it were to be logged."""
    from explain_step import step, tracking

    if model.startswith(URI_SCHEMES):
        asked = tracking.asked_for(run_id=given["run_id"], model_uri=model, tracking_uri=tracking_uri)
        with tracking.within():
            fitted = tracking.load_model(tracking.find(asked), allow_pickle=given["allow_pickle"])
    else:
        fitted = _fitted(model, given)
    with tempfile.TemporaryDirectory(prefix="explain_step_dry_run_") as folder:
        shot = step.explain(fitted, rows, given["target"], directory=folder, **arguments)
    return {
        **{"status": shot.status, "reason": shot.reason, "snapshot_id": shot.id},
        **{"path": None, "dry_run": True},
    }


def _check_folder(folder: Path | None) -> None:
    """Refuse a folder that cannot be written before the work; afterwards the explanation would be stored already."""
    if folder is None:
        return
    absolute = folder.absolute()
    there = next(place for place in (absolute, *absolute.parents) if place.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".explain_step_"):
            pass
    except OSError as error:
        msg = f"--output-dir must be a folder that can be written; {str(folder)!r} cannot: {error.strerror}."
        raise click.UsageError(msg) from error


def _logged_facts(logged: LoggedSnapshot, output_dir: Path | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "status": logged.status,
        "reason": logged.reason,
        "snapshot_id": logged.id,
        "path": None,
        "run_id": logged.run_id,
        "model_id": logged.model_id,
        "versions": [list(version) for version in logged.versions],
        "url": logged.url,
    }
    if logged.snapshot is not None:
        written = logged.snapshot.path
        if output_dir is not None:
            kept = output_dir / logged.snapshot.id
            shutil.copytree(written, kept, dirs_exist_ok=True)
            facts["path"] = str(kept)
        if written.parent.name.startswith("explain_step_"):  # the step's own temporary folder
            shutil.rmtree(written.parent, ignore_errors=True)
    return facts


def _report_run(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    from explain_step.terminal import clean

    _print_status(facts["status"], clean(facts["reason"]))
    if facts.get("dry_run"):
        click.echo("dry run: nothing was written")
    for label, key in (("snapshot", "snapshot_id"), ("directory", "path"), ("page", "url")):
        if facts.get(key):
            click.echo(f"{label:<10}{facts[key]}")
    for name, version in facts.get("versions", []):
        click.echo(f"{'version':<10}models:/{clean(name)}/{clean(version)}")


@cli.command()
@click.argument("source")
@click.option(
    "--top", type=click.IntRange(min=1), default=12, show_default=True, help="Features shown per output."
)
@common
def show(source: str, *, top: int, as_json: bool, tracking_uri: str | None, verbose: bool) -> int:
    """Summarise a snapshot: status, importances with intervals and shared ranks, performance, scores.

    SOURCE is a snapshot directory, runs:/…, models:/name/1 or models:/name@alias.
    """
    from explain_step import snapshot

    with working(verbose=verbose), _fetched(source, tracking_uri) as path:
        shot = snapshot.read_directory(path)
    if as_json:
        summary = {**_summary_of(shot, top=top), "created_at": shot.manifest["created_at"]}
        print_json(summary)
        return YES
    from explain_step import terminal

    first, _, rest = terminal.summary(shot, top=top).partition("\n")
    status, _, reason = first.partition(": ")
    _print_status(status, reason)
    click.echo(rest)
    return YES


def _summary_of(shot: Snapshot, *, top: int) -> dict[str, Any]:
    from explain_step.snapshot import summarise

    return summarise(
        snapshot_id=shot.id,
        status=shot.status,
        reason=shot.reason,
        model=shot.model,
        quantity=shot.manifest["quantity"],
        tables=shot.tables,
        scores=shot.scores,
        caveats=shot.caveats,
        missing={k: v["reason"] for k, v in shot.manifest["sections"].items() if v.get("state") == "missing"},
        top=top,
    )


@contextmanager
def _fetched(source: str, tracking_uri: str | None) -> Iterator[Path]:
    """Give the directory of a source; what had to be downloaded is removed at the end."""
    from explain_step import tracking

    with tempfile.TemporaryDirectory(prefix="explain_step_fetched_") as folder:
        yield tracking.fetch(source, tracking_uri=tracking_uri, destination=folder)


def _print_status(status: str, reason: str) -> None:
    click.echo(f"{click.style(status, fg=COLOURS.get(status), bold=True)}: {reason}")


for command in (verify, keygen, sign, replay, export, gate, promote, review, audit, resume, warm):
    cli.add_command(command)


def invoke(arguments: list[str]) -> int:
    """Run one command line and return its exit code; nothing is raised.

    Examples
    --------
    >>> invoke(["verify", "/no/such/place"])
    1
    """
    try:
        result = cli.main(args=arguments, prog_name="explain-step", standalone_mode=False)
    except click.exceptions.Exit as done:
        return done.exit_code
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - every error gets its exit code
        return _report_error(error, arguments)
    return result if isinstance(result, int) else YES


def _report_error(error: BaseException, arguments: list[str]) -> int:
    number = exit_code(error)
    said = error.format_message() if isinstance(error, click.ClickException) else str(error)
    message = mask_text(harmless(said))
    if "--json" in arguments:
        print_json({"error": type(error).__name__, "message": message, "exit_code": number})
    if number == INTERRUPTED:
        message = "interrupted"
    if number == FAILED and {"-v", "--verbose"} & set(arguments):
        click.echo("".join(traceback.format_exception(error)), err=True)
    click.echo(f"explain-step: {message or type(error).__name__}", err=True)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        click.echo(f"Try '{error.ctx.command_path} --help'.", err=True)
    return number


def main() -> None:
    """Run the command line of this process."""
    # this process is ours: an unreachable server is reported in seconds, not minutes, and downloads are quiet
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    if not sys.stderr.isatty():
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    sys.exit(invoke(sys.argv[1:]))
