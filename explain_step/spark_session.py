"""A Spark session for the command line, and what must be there for one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from explain_step.errors import InvalidInput, MissingDependency, require

JAVA = "Spark needs Java 17 or newer"


def check_java() -> None:
    """Raise `MissingDependency` where no Java is found that Spark could start.

    A remote Spark Connect server (``SPARK_REMOTE``) needs none here.
    """
    if os.environ.get("SPARK_REMOTE"):
        return
    home = os.environ.get("JAVA_HOME")
    if home:
        if (Path(home) / "bin" / "java").exists() or (Path(home) / "bin" / "java.exe").exists():
            return
        msg = f"{JAVA}, but JAVA_HOME is {home!r}, where there is no bin/java; set JAVA_HOME to a Java installation."
        raise MissingDependency(msg)
    if shutil.which("java") is None:
        msg = f"{JAVA}, and there is no java on the PATH; install it (Debian: openjdk-17-jre-headless) or set JAVA_HOME."
        raise MissingDependency(msg)


@contextmanager
def session() -> Iterator[Any]:
    """Give the session that Spark's own configuration describes (spark-submit, ``SPARK_CONF_DIR``), else a local one.

    A session that was started here is stopped at the end. Its workers run this Python, where ``PYSPARK_PYTHON`` does not
    name another one.

    Raises
    ------
    MissingDependency
        pyspark is not installed, or Java is missing.
    """
    require("pyspark", extra="spark")
    check_java()
    from pyspark.sql import SparkSession

    before = SparkSession.getActiveSession()
    found = before or _started(SparkSession.builder)
    try:
        yield found
    finally:
        if before is None:
            found.stop()


def _started(builder: Any) -> Any:
    """Start a session. Spark reads the workers' Python from the environment alone, once, when it starts."""
    given = os.environ.get("PYSPARK_PYTHON")
    os.environ["PYSPARK_PYTHON"] = given or sys.executable
    try:
        return builder.appName("explain-step").config("spark.ui.showConsoleProgress", "false").getOrCreate()
    finally:
        if given is None:
            del os.environ["PYSPARK_PYTHON"]


def read_parquet(session: Any, place: str) -> Any:
    """Return the Spark DataFrame of a Parquet file, directory or URI.

    Raises
    ------
    InvalidInput
        Spark finds nothing there, or no Parquet.
    """
    from pyspark.errors import AnalysisException

    try:
        return session.read.parquet(place)
    except AnalysisException as error:
        msg = f"DATA must be Parquet that Spark can read; {place!r} is not: {str(error)[:300]}"
        raise InvalidInput(msg) from error
