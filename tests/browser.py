"""A headless Chromium, driven through its DevTools protocol over a pair of pipes: no port, no driver to install.

https://chromedevtools.github.io/devtools-protocol; a message is JSON and ends with a NUL byte.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Browser", "Page", "browser", "find_chromium"]

ANSWER_SECONDS = 60.0
FIRST_FREE = 10
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # root, as in continuous integration, has none
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
)


def find_chromium() -> str | None:
    """The path of a Chromium, or None where none is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def browser(executable: str, profile: Path) -> Iterator[Browser]:
    """Runs a browser whose files are all below `profile`."""
    commands_out, commands_in = os.pipe()
    answers_out, answers_in = os.pipe()
    # The protocol's descriptors are 3 and 4; a shell puts them there, from where neither can be in the other's way.
    passed = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, FIRST_FREE) for descriptor in (commands_out, answers_in)]
    redirect = 'exec "$@" 3<&{} 4>&{}'.format(*passed)
    argv = ["bash", "-c", redirect, "browser", executable, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with (profile / "stderr.txt").open("wb") as errors:
        process = subprocess.Popen(
            argv,
            pass_fds=passed,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=os.environ | {"HOME": str(profile), "TMPDIR": str(profile)},
            start_new_session=True,
        )
    for descriptor in (commands_out, answers_in, *passed):
        os.close(descriptor)
    started = Browser(commands_in, answers_out)
    try:
        yield started
    finally:
        with suppress(AssertionError, OSError):
            started.call("Browser.close")
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()
        os.close(commands_in)
        os.close(answers_out)


class Browser:
    """The connection; `events` are all that came unasked for."""

    def __init__(self, commands: int, answers: int) -> None:
        self.events: list[dict[str, Any]] = []
        self._commands = commands
        self._answers = answers
        self._received = b""
        self._last = 0

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol, and answers its result."""
        self._last += 1
        command: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        os.write(self._commands, json.dumps(command | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (message := self._receive()).get("id") != self._last:
            self.events.append(message)
        assert "error" not in message, f"{method}: {message['error']}"
        result: dict[str, Any] = message["result"]
        return result

    def page(self, *, width: int = 1280, height: int = 900, mobile: bool = False) -> Page:
        """A new tab of that many CSS pixels."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, context=context)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        return page

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_SECONDS
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._answers, 1 << 20)
            assert piece, "the browser has ended"
            self._received += piece
        message, _, self._received = self._received.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str, *, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol for this tab."""
        return self._browser.call(method, self._session, **parameters)

    def allow(self, *permissions: str) -> None:
        """Grants what a person would be asked for."""
        self.call("Browser.grantPermissions", permissions=permissions, browserContextId=self._context)

    def go(self, url: str) -> None:
        """Opens an address and waits until it is loaded."""
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Evaluates an expression in the page, awaits it, and answers its value."""
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, condition: str, *, seconds: float = ANSWER_SECONDS) -> None:
        """Waits until an expression is true in the page."""
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"never true: {condition}"
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """Clicks the middle of an element, as a hand would."""
        box = self.run(
            f"(e => {{ e.scrollIntoView({{block: 'center', behavior: 'instant'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2]; }})(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def type(self, selector: str, text: str) -> None:
        """Clicks a field and types over what it holds."""
        self.click(selector)
        self.run("document.activeElement.select()")
        self.call("Input.insertText", text=text)

    def press(self, key: str, code: int) -> None:
        """Presses a key and lets go; `code` is its Windows virtual key code, which is what pages are told."""
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def screenshot(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def events(self, method: str) -> list[dict[str, Any]]:
        """The parameters of this tab's events of one kind, so far."""
        self.run("0")  # whatever was sent before its answer has arrived
        mine = (each for each in self._browser.events if each.get("sessionId") == self._session)
        return [each["params"] for each in mine if each["method"] == method]
