"""Promotion in MLflow's own UI in front of the gated server: what a person clicks, and what they read."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from browser import Page, browser, executable

if TYPE_CHECKING:
    from gate_kit import World

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        executable() is None,
        reason="needs a Chromium (Debian: apt-get install chromium), which .ci/run installs",
    ),
]

WIDTH, HEIGHT = 1400, 900
SHOTS = os.environ.get("EXPLAIN_STEP_SCREENSHOTS")
"""A folder: with it the tests leave what they saw."""
DIALOG = (
    "[...document.querySelectorAll('[role=dialog]')].find(e => e.offsetParent || e.getClientRects().length)"
)
REMEMBER = """(() => {
  window.said = [];
  const note = nodes => nodes.forEach(n => n.textContent && window.said.push(n.textContent));
  new MutationObserver(all => all.forEach(m => note(m.addedNodes)))
    .observe(document.body, {childList: true, subtree: true});
  return true;
})()"""
"""A notification goes away after three seconds: keep what was said."""


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with browser() as tab:
        yield tab


def fresh(prefix: str = "mortgage") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


def visit(page: Page, world: World, name: str) -> None:
    """Open the page of version 1 afresh: a change behind '#' alone loads nothing."""
    page.open("about:blank")
    page.open(f"{world.server.url}/#/models/{quote(name)}/versions/1", width=WIDTH, height=HEIGHT)
    page.wait_for(f"!!{button('Promote model')}", seconds=90)
    page.evaluate(REMEMBER)


def keep(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(Path(SHOTS) / f"{name}.png", whole=False)


def button(text: str, *, within: str = "document") -> str:
    return f"[...({within})?.querySelectorAll('button') ?? []].find(e => e.textContent.trim() === {json.dumps(text)})"


def with_text(selector: str, text: str) -> str:
    """Find the last element of a kind that shows a text."""
    return (
        f"[...document.querySelectorAll({json.dumps(selector)})]"
        f".findLast(e => e.innerText.includes({json.dumps(text)}))"
    )


def beside(label: str) -> str:
    """Find what the head of the page says beside a label."""
    item = with_text("[data-testid=descriptions-item]", label)
    return f"{item}?.querySelector('[data-testid=descriptions-item-content]')"


def in_words(page: Page) -> str:
    """Return the notification that a refusal was told in."""
    text = page.wait_for("window.said.find(t => t.includes('PERMISSION_DENIED: models:/'))")
    return str(text).partition("PERMISSION_DENIED: ")[2]


def register(world: World, name: str, folder: Path) -> None:
    """Train and register a model, as a script would that forgets to explain it; leave rows for explaining."""
    import mlflow
    import tracking_kit

    with (
        contextlib.chdir(folder),
        tracking_kit.current_store(world.server.url, world.experiment_id),
        mlflow.start_run(),
    ):
        tracking_kit.log(tracking_kit.fitted(), registered=name)
    X, y = tracking_kit.rows(60)
    X.assign(deny=y).to_parquet(folder / "rows.parquet")


def run_as_told(command: str, world: World, folder: Path) -> None:
    """Run the command of a refusal: only the name of the label column is the reader's to fill in."""
    program, *arguments = shlex.split(command.replace("LABEL", "deny"))
    assert program == "explain-step"
    quiet = {"MLFLOW_TRACKING_URI": world.server.url, "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    done = subprocess.run(
        [sys.executable, "-m", "explain_step", *arguments],
        check=False,
        cwd=folder,
        env={**os.environ, **quiet},
        timeout=240,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_champion_is_refused_in_the_dialog_until_the_version_is_explained(
    world: World, page: Page, tmp_path: Path
) -> None:
    name = fresh("mortgage ui")
    register(world, name, tmp_path)
    visit(page, world, name)
    page.click(button("Add", within=beside("Aliases")))
    page.click(f"({DIALOG})?.querySelector('[role=combobox]')")
    page.type("champion")
    page.press_enter()
    page.click(button("Save aliases", within=DIALOG))

    told = page.wait_for(f"({DIALOG})?.querySelector('[role=alert]')?.innerText")
    keep(page, "gate_refusal")
    assert told.startswith(f"models:/{name}/1 may not get alias 'champion': it is not explained: ")
    assert "no finished explanation snapshot beside the model (GATE002)" in told
    command = told.partition("Explain it: ")[2]
    assert command == f"explain-step run 'models:/{name}/1' rows.parquet --target LABEL"
    assert world.aliases(name) == {}
    clipped = f"(e => e.scrollWidth > e.clientWidth + 1)(({DIALOG}).querySelector('[role=alert]'))"
    assert page.evaluate(clipped) is False

    run_as_told(command, world, tmp_path)
    page.click(button("Save aliases", within=DIALOG))
    page.wait_for(f"!({DIALOG}) && ({beside('Aliases')})?.innerText.includes('champion')", seconds=60)
    assert world.aliases(name) == {"champion": "1"}

    visit(page, world, name)
    page.wait_for(f"({beside('Aliases')})?.innerText.includes('champion')")
    page.wait_for("document.body.innerText.includes('Open the page')")
    keep(page, "gate_champion")


def test_the_promote_button_says_which_version_may_not_enter(world: World, page: Page) -> None:
    name, protected = fresh(), fresh("prod.")
    bad = world.unexplained(name)
    world.registered(protected)
    visit(page, world, name)
    page.click(button("Promote model"))
    page.click(f"({DIALOG})?.querySelector('[role=combobox]')")
    page.type(protected)
    page.click(f"document.querySelector('[title={json.dumps(protected)}]')")
    page.click(button("Promote", within=DIALOG))
    told = in_words(page)
    keep(page, "gate_promote_button")
    assert told.startswith(f"models:/{name}/{bad.version} may not enter {protected}: it is not explained: ")
    assert told.endswith(f"Explain it: explain-step run models:/{name}/1 rows.parquet --target LABEL")
    assert world.client.search_model_versions(f"name = '{protected}'") == []


def test_the_stage_menu_says_why_production_is_refused(world: World, page: Page) -> None:
    name = fresh()
    world.unexplained(name)
    visit(page, world, name)
    page.click("document.querySelector('[role=switch][aria-label=\"New model registry UI\"]')")
    page.click(button("Disable", within=DIALOG))
    page.click("document.querySelector('.mlflow-stage-transition-dropdown')")
    page.click(with_text("[role=menuitem]", "Production"))
    page.click(button("OK", within=with_text("[role=dialog]", "Stage transition")))
    told = in_words(page)
    keep(page, "gate_stage")
    assert told.startswith(f"models:/{name}/1 may not get stage 'Production': it is not explained: ")
    assert world.client.get_model_version(name, "1").current_stage == "None"
