"""The report in a real browser, headless Chromium, over its DevTools protocol: points show their frames, names stay
text, and nothing is asked of the network.

    .venv/bin/python -m pytest -m browser          # Debian: apt-get install -y --no-install-recommends chromium
"""

import base64
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pytest
from PIL import Image

import analysis
from analysis.tables import Options

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
INSTALL = "no Chromium here; Debian: apt-get install -y --no-install-recommends chromium"
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason=INSTALL)]
FLAGS = ("--headless", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--remote-debugging-pipe",
         "--no-first-run", "--disable-background-networking", "--window-size=1280,900")  # fmt: skip
PAYLOADS = [
    "<script>alert(1)</script>&\"'",
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "<a href='https://example.invalid'>x</a>",
    "%{x} <b>bold</b> ${alert(1)} {{ 7*7 }}",
]


class Browser:
    """One page; what it complains of, asks of the network and pops up is kept."""

    def __init__(self, profile: Path) -> None:
        (there, self._send), (self._receive, back) = os.pipe(), os.pipe()
        program = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        shell = ["bash", "-c", f'exec "$0" "$@" 3<&{there} 4>&{back}', *program]
        log = (profile.parent / "chromium.log").open("wb")
        self._process = subprocess.Popen(shell, pass_fds=(there, back), stdout=log, stderr=log, start_new_session=True)
        log.close()
        os.close(there)
        os.close(back)
        self._buffer, self._number = b"", 0
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """One command and its answer; events on the way are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._receive, 1 << 16)
            assert data, "Chromium ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        event = json.loads(message)
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown" | "Page.javascriptDialogOpening":
                self.complaints.append(json.dumps(params)[:500])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(params)[:500])
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.complaints.append(json.dumps(params)[:500])
            case "Network.requestWillBeSent":
                self.asked.append(params["request"]["url"])
        return event

    def open(self, path: Path) -> None:
        """Load a page and wait until its scripts have run."""
        self.call("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete' && typeof Plotly === 'object'")

    def run(self, code: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, code: str) -> None:
        """Wait until an expression is true; fails after two minutes, which a busy machine may need."""
        end = monotonic() + 120
        while not self.run(code):
            assert monotonic() < end, f"never true: {code}"

    def point_at(self, x: float, y: float) -> None:
        """Move the mouse."""
        for dx in (-2, 0):
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + dx, y=y)

    def screenshot(self, x: float, y: float, width: float, height: float) -> np.ndarray:
        """Pixels (height, width, 3) of a part of the page."""
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        data = self.call("Page.captureScreenshot", format="png", clip=clip)["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))

    def close(self) -> None:
        """End it."""
        self._session = ""
        self.call("Browser.close")
        self._process.wait(60)
        os.close(self._send)
        os.close(self._receive)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A fresh Chromium."""
    found = Browser(tmp_path / "profile")
    yield found
    found.close()


def _requests(browser: Browser) -> list[str]:
    """What was asked for, apart from the page itself and what lies inside of it."""
    return [url for url in browser.asked if not url.startswith(("data:", "blob:", "file:", "about:"))]


def _place(browser: Browser, index: int) -> tuple[float, float]:
    """Where a point of the explorer is in the window."""
    code = f"""(() => {{
      const plot = document.getElementById("points"), layout = plot._fullLayout, box = plot.getBoundingClientRect();
      return [box.left + layout.xaxis._offset + layout.xaxis.d2p(plot.data[0].x[{index}]),
              box.top + layout.yaxis._offset + layout.yaxis.d2p(plot.data[0].y[{index}])];
    }})()"""
    x, y = browser.run(code)
    return x, y


def test_pointing_at_a_latent_shows_its_frame(make_run: Any, add_frames: Any, browser: Browser, tmp_path: Path) -> None:
    """Frames are of one colour each, which says episode and step."""
    run = make_run("one", parts=("latents",))
    add_frames(run)
    page = analysis.write_report([run], tmp_path / "out", options=Options(max_points=60))["page"]
    browser.open(page)
    browser.run("document.getElementById('explorer').scrollIntoView()")
    assert "Point at a dot" in browser.run("document.getElementById('frame').textContent")
    with np.load(run / "latents.npz") as stored:
        frames, reward = stored["frame"], stored["reward_true"]
    for index in (0, 17, 59):
        episode, step = browser.run(f"[cloud.episode[{index}], cloud.time[{index}]]")
        browser.point_at(*_place(browser, index))
        shown = f"document.querySelector('#frame img')?.alt === 'frame of episode {episode}, step {step}'"
        browser.until(f"{shown} && document.querySelector('#frame img').complete")
        corner = "(({x, y, width, height}) => [x + scrollX, y + scrollY, width, height])"
        box = browser.run(f"{corner}(document.querySelector('#frame img').getBoundingClientRect())")
        colour = browser.screenshot(*box)[100:150, 100:150].mean(axis=(0, 1))
        np.testing.assert_allclose(colour, frames[episode, step, 0, 0], atol=6)
        written = float(browser.run("document.getElementById('shown-reward').textContent"))
        assert written == pytest.approx(reward[episode, step], rel=1e-3)
    buttons = "[...document.querySelectorAll('#points .modebar-btn')].map((button) => button.dataset.title).join()"
    assert "Share" not in browser.run(buttons) and "PNG" in browser.run(buttons)
    for menu, value in (("projection", "pca"), ("colour", "episode"), ("colour", "value")):
        browser.run(f"(() => {{ const menu = document.getElementById('{menu}'); menu.value = '{value}';"
                    " menu.dispatchEvent(new Event('change')); })()")  # fmt: skip
    assert browser.run("document.getElementById('points').data[0].x[3] === cloud.pca[0][3]")
    assert browser.complaints == [] and _requests(browser) == []


def test_every_figure_is_drawn_and_names_stay_text(make_run: Any, browser: Browser, tmp_path: Path) -> None:
    """Names that would be scripts, pictures, links or templates, wherever a run folder can hold one."""
    names = [payload.replace("/", "∕") for payload in PAYLOADS]  # a folder's name holds no slash
    runs = [
        make_run(name, payload, seed, env__name=f"dmc/{payload}", agent__name=payload)
        for seed, (name, payload) in enumerate(zip(names, PAYLOADS, strict=True), 1)
    ]
    made = analysis.write_report(runs, tmp_path / "out", options=Options(max_points=40), command=PAYLOADS[2])
    browser.open(made["page"])
    plots = browser.run("document.querySelectorAll('.plot').length")
    assert plots == len(made["figures"])
    browser.run("document.querySelectorAll('.plot').forEach(draw)")
    browser.until(f"document.querySelectorAll('.plot .main-svg').length >= {plots}")
    shown = browser.run("document.body.innerText + document.body.textContent")
    assert all(name in shown for name in names) and "{{ 7*7 }}" in shown and "49" not in browser.run("document.title")
    links = browser.run("[...document.querySelectorAll('a')].map((a) => a.getAttribute('href') ?? '')")
    assert all(link.startswith("#") for link in links if link), "no links but those of the contents"
    svg = browser.run("[...document.querySelectorAll('.plot text, .plot tspan')].map((t) => t.textContent).join('\\n')")
    assert "<img src=x onerror=alert(1)>" in svg and "</script><script>alert(1)</script>" in svg
    assert browser.run("document.querySelectorAll('img[src=x], .plot a, .plot b').length") == 0
    assert browser.complaints == [] and _requests(browser) == []
