"""A headless Chromium for the tests of pages, where one is installed."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import run_to_end

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--log-level=0", "--virtual-time-budget=5000",
)  # fmt: skip
SCHEME = "--blink-settings=preferredColorScheme="
"""What prefers-color-scheme answers: 0 is dark, 1 light."""

PROBE = """
<!doctype html><meta charset="utf-8"><title>probe</title>
<iframe id="page" style="border: 0; width: {width}px; height: 900px" srcdoc="{page}"></iframe>
<script>
addEventListener("load", () => {{
  const page = document.getElementById("page").contentDocument, view = page.defaultView;
  const result = (() => {{ {script} }})();
  const message = document.createElement("pre");
  message.id = "result";
  message.textContent = JSON.stringify(result);
  document.body.append(message);
}});
</script>
"""
"""A page that shows another in a frame of a given width and runs a script beside it: reports hold no script."""

Measure = Callable[..., Any]


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser to open the report in: none of {', '.join(names)} is installed")
    return found


@pytest.fixture
def measure(chromium: str, tmp_path: Path) -> Measure:
    """``measure(page, script, width=375, dark=False)`` gives what ``script`` returns, and fails on console messages.

    The script finds the page's document as ``page`` and its window as ``view``.
    """

    def run(page: Path, script: str, width: int = 375, dark: bool = False) -> Any:
        probe = tmp_path / "probe.html"
        content = html.escape(page.read_text(encoding="utf-8"))
        probe.write_text(PROBE.format(width=width, page=content, script=script), encoding="utf-8")
        out, messages = _browse(chromium, probe, tmp_path / "profile", f"{SCHEME}{0 if dark else 1}")
        assert [line for line in messages.splitlines() if "CONSOLE" in line] == []
        message = re.search(r'<pre id="result">(.*?)</pre>', out, re.DOTALL)
        assert message is not None, messages
        return json.loads(html.unescape(message[1]))

    return run


def _browse(chromium: str, page: Path, profile: Path, scheme: str) -> tuple[str, str]:
    """The page's document after it has loaded, and what the browser logged."""
    shutil.rmtree(profile, ignore_errors=True)
    command = [chromium, *FLAGS, scheme, f"--user-data-dir={profile}", "--window-size=1400,900", "--dump-dom"]
    done = run_to_end([*command, page.as_uri()], timeout=90)
    return done.stdout, done.stderr
