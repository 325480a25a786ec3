"""The page inside MLflow's own UI: a real server, a headless Chromium, and what a person would click."""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import websocket
from browser import Page, browser, executable
from mlflow import MlflowClient
from tracking_kit import current_store, fitted, log, rows

import explain_step

pytestmark = pytest.mark.skipif(
    executable() is None, reason="needs a Chromium (Debian: apt-get install chromium), which .ci/run installs"
)

WIDTH, HEIGHT = 1400, 900
SHOTS = os.environ.get("EXPLAIN_STEP_SCREENSHOTS")
"""A folder: with it the tests leave what they saw."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An explained and an unexplained run on the server."""

    url: str
    experiment_id: str
    logged: explain_step.LoggedSnapshot
    empty_run: str
    name: str


@pytest.fixture(scope="module")
def shown(mlflow_server, tmp_path_factory: pytest.TempPathFactory) -> Shown:  # type: ignore[no-untyped-def]
    client = MlflowClient(tracking_uri=mlflow_server.url)
    experiment_id = client.create_experiment("mortgages")
    X, y = rows(160)
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("script"))  # MLflow looks for project files in the working directory
    try:
        with current_store(mlflow_server.url, experiment_id):
            with mlflow.start_run(run_name="explained", description="Trained by Ann."):
                model = fitted()
                log(model, registered="mortgage ui")
                logged = explain_step.log_explanations(model, X, y, on_error="raise")
            with mlflow.start_run(run_name="empty") as empty:
                mlflow.log_text("nothing", "note.txt")
    finally:
        os.chdir(here)
    return Shown(
        url=mlflow_server.url,
        experiment_id=experiment_id,
        logged=logged,
        empty_run=empty.info.run_id,
        name="mortgage ui",
    )


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as tab:
        yield tab


def visit(page: Page, url: str, *, until: str) -> None:
    """Open a route of the UI afresh: it is one script, a change behind '#' alone loads nothing."""
    page.open("about:blank")
    page.open(url, width=WIDTH, height=HEIGHT)
    page.wait_for(until, seconds=90)


def keep(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(Path(SHOTS) / f"{name}.png", whole=False)


def frame_targets(page: Page) -> list[dict[str, str]]:
    port = page._socket.sock.getpeername()[1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
        return [t for t in json.load(answer) if t["type"] == "iframe" and t["url"].startswith("blob:")]


@contextlib.contextmanager
def inner(page: Page) -> Iterator[Page]:
    """Look into the sandboxed frame of the viewer: the browser runs it as a target of its own."""
    frames = frame_targets(page)
    for _ in range(300):  # the target appears some time after the element, later on a busy machine
        if frames:
            break
        time.sleep(0.1)
        frames = frame_targets(page)
    assert len(frames) == 1
    socket = websocket.create_connection(frames[0]["webSocketDebuggerUrl"], timeout=60)
    try:
        yield Page(socket)
    finally:
        socket.close()


def text_present(text: str) -> str:
    return f"document.body.innerText.includes({json.dumps(text)})"


def test_the_page_renders_in_the_artifact_viewer_of_the_run(shown: Shown, page: Page) -> None:
    assert shown.logged.url is not None
    visit(page, shown.logged.url, until="document.querySelector('iframe[src^=\"blob:\"]') !== null")
    frame = page.evaluate(
        "(f => ({sandbox: f.getAttribute('sandbox'), width: f.getBoundingClientRect().width}))"
        "(document.querySelector('iframe[src^=\"blob:\"]'))"
    )
    assert 500 <= frame["width"] <= 700  # the pane that the page is designed for
    with inner(page) as report:
        report.wait_for("document.readyState === 'complete'")
        table = report.evaluate(
            "[...document.querySelectorAll('#importance table')].map(t => t.textContent).join(' ')"
        )
        for feature in ("income", "debt", "age"):
            assert feature in table
        assert report.evaluate("document.querySelector('h1').textContent").split()[0] == "mortgage"
        assert report.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert report.evaluate("document.images.length") >= 5
        assert report.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert report.evaluate("document.scripts.length") == 0
        assert report.console() == []
    keep(page, "run_report")


def test_the_console_says_nothing_that_an_empty_run_does_not_say(shown: Shown, page: Page) -> None:
    empty = f"{shown.url}/#/experiments/{shown.experiment_id}/runs/{shown.empty_run}/artifacts/note.txt"
    visit(page, empty, until=text_present("nothing"))
    usual = set(page.console())
    assert shown.logged.url is not None
    visit(page, shown.logged.url, until="document.querySelector('iframe[src^=\"blob:\"]') !== null")
    assert set(page.console()) <= usual
    foreign = [url for url in page.requests() if not url.startswith((shown.url, "blob:", "about:"))]
    assert foreign == []


def test_the_run_page_tells_the_status_and_keeps_the_description(shown: Shown, page: Page) -> None:
    route = f"{shown.url}/#/experiments/{shown.experiment_id}/runs/{shown.logged.run_id}"
    visit(page, route, until=text_present("Explanation: complete"))
    said = page.evaluate("document.body.innerText")
    assert "Trained by Ann." in said
    assert "explained rows" in said
    assert "explain_step.status" in said
    page.wait_for("[...document.querySelectorAll('a')].some(a => a.textContent === 'Open the page')")
    keep(page, "run_overview")


def test_the_link_of_the_version_page_opens_the_report(shown: Shown, page: Page) -> None:
    visit(
        page,
        f"{shown.url}/#/models/{shown.name}/versions/1".replace(" ", "%20"),
        until="[...document.querySelectorAll('a')].some(a => a.textContent === 'Open the page')",
    )
    keep(page, "version")
    address = page.evaluate(
        "[...document.querySelectorAll('a')].find(a => a.textContent === 'Open the page').href"
    )
    assert address == shown.logged.url
    assert "explain_step.snapshot_id" in page.evaluate("document.body.innerText")


def test_the_logged_model_lists_the_evidence(shown: Shown, page: Page) -> None:
    logged = shown.logged
    folder = "document.evaluate(\"//*[text()='{}']\", document, null, 9, null).singleNodeValue"
    visit(
        page,
        f"{shown.url}/#/experiments/{shown.experiment_id}/models/{logged.model_id}/artifacts",
        until=f"{folder.format('explanations')} !== null",
    )
    page.evaluate(f"{folder.format('explanations')}.click()")
    page.wait_for(f"{folder.format(logged.id)} !== null")
    page.evaluate(f"{folder.format(logged.id)}.click()")
    for name in ("report.html", "manifest.json", "tables", "figures", "provenance"):
        page.wait_for(f"{folder.format(name)} !== null")
    page.evaluate(f"{folder.format('report.html')}.click()")
    page.wait_for("document.querySelector('iframe[src^=\"blob:\"]') !== null", seconds=60)
    keep(page, "model_report")
