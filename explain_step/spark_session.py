"""A Spark session for the command line, and what must be there for one."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from explain_step.errors import MissingDependency, require

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

    A session that was started here is stopped at the end.

    Raises
    ------
    MissingDependency
        pyspark is not installed, or Java is missing.
    """
    require("pyspark", extra="spark")
    check_java()
    from pyspark.sql import SparkSession

    before = SparkSession.getActiveSession()
    builder = SparkSession.builder.appName("explain-step").config("spark.ui.showConsoleProgress", "false")
    if "PYSPARK_PYTHON" not in os.environ:
        builder = builder.config("spark.pyspark.python", sys.executable)
    found = before or builder.getOrCreate()
    try:
        yield found
    finally:
        if before is None:
            found.stop()
