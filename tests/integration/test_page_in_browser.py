"""The page in a real browser: nothing sticks out, nothing is asked for, nothing is complained about."""

from __future__ import annotations

import functools
import http.server
import io
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from browser import Page, browser, executable
from page_fixture import CONTEXTS
from sklearn.linear_model import LinearRegression

import explain_step
from explain_step.report import page

pytestmark = pytest.mark.skipif(
    executable() is None,
    reason="needs a Chromium (Debian: apt-get install chromium), which .ci/run installs; the page itself is tested without",
)
WIDTHS = (360, 560, 1280)
CONTRAST = """
(() => {
  const channel = v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const light = c => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const rgb = s => s.match(/[\\d.]+/g).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility()) continue;
    const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push([e.tagName, e.className, ratio]);
  }
  return bad;
})()
"""
STICKING_OUT = """
[...document.querySelectorAll('body *')].filter(e => {
  if (e.closest('.scroll, figure, pre, .skip, .spoken') || !e.checkVisibility()) return false;
  const box = e.getBoundingClientRect();
  return box.width > 0 && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map(e => e.tagName + ' ' + e.className + ' ' + e.textContent.slice(0, 40))
"""


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pages")
    for name, make in CONTEXTS.items():
        (directory / f"{name}.html").write_text(page(make()), encoding="utf-8")
    return directory


@pytest.mark.parametrize("name", CONTEXTS)
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_and_is_quiet(tab: Page, folder: Path, name: str, width: int) -> None:
    url = (folder / f"{name}.html").as_uri()
    tab.open(url, width=width)
    assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert tab.evaluate(STICKING_OUT) == []
    assert tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert tab.evaluate("document.querySelectorAll('#importance table tbody tr').length") >= 13
    assert tab.console() == []
    assert tab.requests() == [url]


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(tab: Page, folder: Path, dark: bool) -> None:
    tab.dark(dark)
    try:
        tab.open((folder / "normal.html").as_uri(), width=560)
        tab.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert tab.evaluate(CONTRAST) == []
        ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") is not dark
        mat = tab.evaluate("getComputedStyle(document.images[0]).backgroundColor")
        assert not dark or mat == "rgb(255, 255, 255)"
    finally:
        tab.dark(False)


def test_the_contents_lead_to_the_sections_and_stand_beside_them_only_when_wide(
    tab: Page, folder: Path
) -> None:
    tab.open((folder / "normal.html").as_uri(), width=1280)
    beside = (
        "document.querySelector('.contents').getBoundingClientRect().left"
        " > document.querySelector('main').getBoundingClientRect().right"
    )
    assert tab.evaluate(beside)
    tab.resize(560)
    assert not tab.evaluate(beside)
    tab.evaluate("document.documentElement.style.scrollBehavior = 'auto'")
    tab.evaluate("document.querySelector('a[href=\"#segments\"]').click()")
    tab.wait_for("Math.abs(document.querySelector('#segments').getBoundingClientRect().top) < 60")


def test_the_column_is_about_68_characters_wide(tab: Page, folder: Path) -> None:
    tab.open((folder / "normal.html").as_uri(), width=1280)
    width = tab.evaluate(
        "(() => { const s = document.createElement('span'); s.textContent = '0'.repeat(68);"
        "s.style.position = 'absolute';"
        "document.body.append(s); const w = s.getBoundingClientRect().width; s.remove();"
        "return document.querySelector('main').getBoundingClientRect().width / w; })()"
    )
    assert width == pytest.approx(1.0, abs=0.02)


def test_nothing_of_the_data_runs_even_without_the_policy(tab: Page, folder: Path) -> None:
    """The policy is the second wall; the first one, escaping, must hold alone."""
    html = (folder / "hostile.html").read_text(encoding="utf-8")
    bare = folder / "bare.html"
    bare.write_text(html.replace("Content-Security-Policy", "X-Nothing"), encoding="utf-8")
    tab.open(bare.as_uri(), width=560)
    assert tab.evaluate("document.scripts.length") == 0
    assert tab.evaluate("document.querySelectorAll('[onerror], [onload], [onclick]').length") == 0
    assert not any(e["method"] == "Page.javascriptDialogOpening" for e in tab.events)
    assert tab.console() == []


def test_the_policy_stops_a_script_that_someone_puts_in(tab: Page, folder: Path) -> None:
    html = (folder / "normal.html").read_text(encoding="utf-8")
    tampered = folder / "tampered.html"
    tampered.write_text(html.replace("</main>", "<script>window.ran = 1</script></main>"), encoding="utf-8")
    tab.open(tampered.as_uri(), width=560)
    assert tab.evaluate("window.ran === undefined")
    assert any("Content Security Policy" in line for line in tab.console())


def test_it_works_in_a_sandboxed_frame(tab: Page, folder: Path) -> None:
    """As artifact viewers show it: a blob in a frame that may run scripts and nothing else."""
    html = json.dumps((folder / "normal.html").read_text(encoding="utf-8")).replace("</", "<\\/")
    outer = folder / "viewer.html"
    outer.write_text(
        "<!doctype html><iframe sandbox='allow-scripts' style='width:560px;height:800px'></iframe><script>"
        f"const page = new Blob([{html}], {{type: 'text/html'}});"
        "document.querySelector('iframe').src = URL.createObjectURL(page)</script>",
        encoding="utf-8",
    )
    tab.open(outer.as_uri(), width=1280)
    found = tab.in_frame(
        "document.images.length && [document.querySelectorAll('#importance table').length,"
        "document.images[0].naturalWidth, innerWidth]"
    )
    assert found[0] >= 1
    assert found[1] > 0
    assert found[2] == 560
    assert tab.console() == []


def test_over_http_nothing_else_is_asked_for(tab: Page, folder: Path) -> None:
    seen: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            seen.append(self.path)

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        tab.open(f"http://127.0.0.1:{server.server_port}/normal.html", width=560)
        tab.evaluate("new Promise(r => setTimeout(r, 300))")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert seen == ["/normal.html"]
    assert tab.console() == []


def test_printing_opens_the_tables_on_white(tab: Page, folder: Path) -> None:
    tab.dark()
    try:
        tab.open((folder / "normal.html").as_uri(), width=800)
        tab.call(
            "Emulation.setEmulatedMedia",
            media="print",
            features=[{"name": "prefers-color-scheme", "value": "dark"}],
        )
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert tab.evaluate(
            "document.querySelector('#importance table').checkVisibility({contentVisibilityAuto: true})"
        )
        assert (
            tab.evaluate("document.querySelector('#importance table').getBoundingClientRect().height") > 100
        )
        assert tab.evaluate("document.querySelector('#importance details').open") is False
        assert tab.evaluate("getComputedStyle(document.querySelector('.contents')).display") == "none"
    finally:
        tab.call("Emulation.setEmulatedMedia", media="")
        tab.dark(False)
    printed = tab.pdf()
    assert printed.startswith(b"%PDF")


def test_the_keyboard_reaches_the_sections_first(tab: Page, folder: Path) -> None:
    tab.open((folder / "normal.html").as_uri(), width=560)
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert tab.evaluate("document.activeElement.className") == "skip"
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0


def test_a_screenshot_is_a_picture_of_the_width(tab: Page, folder: Path) -> None:
    from PIL import Image

    tab.open((folder / "normal.html").as_uri(), width=560)
    assert Image.open(io.BytesIO(tab.screenshot())).width == 560


def test_a_real_explanation_makes_such_a_page(tab: Page, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(120, 3)), columns=["income", "debt", "<b>age</b>"])
    y = 3 * X["income"] - 2 * X["debt"]
    snapshot = explain_step.explain(
        LinearRegression().fit(X, y), X, y, directory=tmp_path, segments=["income > 0"]
    )
    url = (Path(snapshot.path) / "report.html").as_uri()
    tab.open(url, width=560)
    assert tab.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    assert tab.evaluate("document.images.length >= 6 && [...document.images].every(i => i.naturalWidth > 0)")
    assert tab.evaluate("document.querySelectorAll('.absent').length") == 0
    shown = tab.evaluate(
        "[...document.querySelectorAll('#importance tbody tr')].map(r => r.cells[0].textContent)"
    )
    assert shown[:3] == list(snapshot.tables["importance"]["feature"])
    words = tab.evaluate("document.body.textContent")
    assert not re.search(r"\b(nan|NaN|NaT)\b", words)
    cells = tab.evaluate("[...document.querySelectorAll('td, th, dd')].map(c => c.textContent)")
    assert not {"None", "nan", "inf"} & set(cells)
    assert str(snapshot.id)[:12] in words
    assert tab.console() == []
    assert tab.requests() == [url]
