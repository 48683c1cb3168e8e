"""A headless Chromium for the tests of pages, where one is installed."""

from __future__ import annotations

import html
import json
import os
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from processes import started

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1400,900", "--remote-debugging-pipe",
)  # fmt: skip
MESSAGES = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
"""Events of the DevTools protocol for what a console shows."""

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


class Browser:
    """A browser that is driven by the DevTools protocol: messages in JSON, each of which ends with a zero byte."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._to, self._from = process.stdin.fileno(), process.stdout.fileno()
        self._received = b""
        self._numbers = count(1)
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """What the browser answers; events that come before the answer are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]  # type: ignore[no-any-return]

    def wait_for(self, method: str) -> None:
        """Read until an event has come."""
        while all(event["method"] != method for event in self.events):
            self.events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._received:
            assert select.select([self._from], [], [], 90)[0], "the browser does not answer"
            part = os.read(self._from, 2**16)
            assert part, "the browser has ended"
            self._received += part
        message, _, self._received = self._received.partition(b"\0")
        return json.loads(message)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all pages; each is shown in a tab of its own."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser to open the report in: none of {', '.join(names)} is installed")
    # The protocol's pipes are descriptors 3 and 4.
    on_pipes = ["sh", "-c", 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1', "sh"]
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    with started([*on_pipes, found, *FLAGS, profile], stdin=subprocess.PIPE) as process:
        yield Browser(process)


@pytest.fixture
def measure(browser: Browser, tmp_path: Path) -> Measure:
    """``measure(page, script, width=375, dark=False)`` gives what ``script`` returns, and fails on console messages.

    The script finds the page's document as ``page`` and its window as ``view``.
    """

    def run(page: Path, script: str, width: int = 375, dark: bool = False) -> Any:
        probe = tmp_path / "probe.html"
        content = html.escape(page.read_text(encoding="utf-8"))
        probe.write_text(PROBE.format(width=width, page=content, script=script), encoding="utf-8")
        result, messages = _browse(browser, probe, "dark" if dark else "light")
        assert messages == []
        assert result is not None, "the script has no result"
        return json.loads(result)

    return run


def _browse(browser: Browser, page: Path, scheme: str) -> tuple[str | None, list[Any]]:
    """The text of the result on the page after it has loaded, and the messages on its console."""
    target = browser.call("Target.createTarget", url="about:blank")["targetId"]
    session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Runtime", "Log", "Page"):
        browser.call(f"{domain}.enable", session)
    preferred = {"name": "prefers-color-scheme", "value": scheme}
    browser.call("Emulation.setEmulatedMedia", session, features=[preferred])
    browser.events.clear()
    browser.call("Page.navigate", session, url=page.as_uri())
    browser.wait_for("Page.loadEventFired")
    result = "document.getElementById('result')?.textContent"
    found = browser.call("Runtime.evaluate", session, expression=result)["result"].get("value")
    browser.call("Target.closeTarget", targetId=target)
    return found, [event for event in browser.events if event["method"] in MESSAGES]
