"""The documentation page of a running system, in a real browser."""

from __future__ import annotations

import json
import os
import platform
import time

import pytest

from tests.browser import browser, find_chromium
from uhm_gateway.docs.walkthrough import walkthrough

pytestmark = pytest.mark.e2e

VISIBLE = "[...document.querySelectorAll('.method')].filter(e => !e.hidden).map(e => e.id)"
# WCAG 2.2, 1.4.3: texts whose colour does not stand out from what is behind them by 4.5 to 1.
FAINT = """
(() => {
  const parse = (text) => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    const [r, g, b] = text.startsWith("color(") ? numbers.slice(0, 3).map((part) => part * 255) : numbers;
    return [r, g, b, numbers.length > 3 ? numbers[3] : 1];
  };
  const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3]));
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const own = parse(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  const luminance = (rgb) => rgb
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const contrast = (a, b) => {
    const [dark, light] = [luminance(a), luminance(b)].sort((one, other) => one - other);
    return (light + 0.05) / (dark + 0.05);
  };
  document.querySelectorAll("details").forEach((element) => { element.open = true; });
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility()) continue;
    const below = behind(element);
    const ratio = contrast(over(parse(getComputedStyle(element).color), below), below);
    if (ratio < 4.5) found.add(`${element.tagName}.${element.className}: ${ratio.toFixed(2)}`);
  }
  return [...found];
})()
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    executable = find_chromium()
    if executable is None:
        packaged = platform.freedesktop_os_release()["ID"] == "debian"  # as tools/setup/browser.sh has it
        assert not (packaged and os.environ.get("CI")), "no Chromium: tools/browser.sh installs it"
        pytest.skip("no Chromium is installed: tools/browser.sh installs it where the distribution has it")
    with browser(executable, tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def page(chromium, system):
    """The documentation, loaded; everything that it asked for and said is looked at in the end."""
    page = chromium.page()
    page.go(system.url)
    yield page
    requests = [event["request"]["url"] for event in page.events("Network.requestWillBeSent")]
    assert [url for url in requests if not url.startswith((system.url, "data:"))] == []
    assert page.events("Runtime.exceptionThrown") == []
    assert page.events("Runtime.consoleAPICalled") == []
    entries = [event["entry"] for event in page.events("Log.entryAdded")]
    # An answer that is not 200 is an error of the network to a browser, which is what one test is about.
    assert [each for each in entries if each["level"] in {"warning", "error"} and each["source"] != "network"] == []
    answers = [event["response"] for event in page.events("Network.responseReceived")]
    assert [each["url"] for each in answers if each["status"] >= 400 and "/api/" not in each["url"]] == []


def test_every_method_is_shown(page, system):
    document = system.curl("/openapi.json").json
    expected = {
        operation["x-grpc-method"].rpartition(".")[2].replace("/", ".")
        for item in document["paths"].values()
        for operation in item.values()
    }
    assert len(expected) > 40
    assert set(page.run(VISIBLE)) == expected
    shown = page.run("document.body.innerText")
    for tag in document["tags"]:
        assert tag["name"] in shown


def test_a_method_opens(page):
    closed = "document.getElementById('MachineService.GetMachine')"
    assert page.run(f"{closed}.querySelector('.body').checkVisibility()") is False
    page.click("[id='MachineService.GetMachine'] > summary")
    page.until(f"{closed}.open")
    assert "console_tail" in page.run(f"{closed}.innerText")
    page.click("[id='MachineService.GetMachine'] .inside > summary")
    page.until(f"{closed}.querySelector('.inside').open")


def test_a_link_to_a_method_opens_it(page, system):
    page.run("location.hash = 'ImageService.WatchImage'")
    page.until("document.getElementById('ImageService.WatchImage').open")


def test_search(page):
    everything = page.run(VISIBLE)
    page.press("/", 191)
    page.until("document.activeElement.id === 'search' && document.activeElement.value === ''")
    page.type("#search", "images watch")
    page.until(f"{VISIBLE}.length < 10")
    assert "ImageService.WatchImage" in page.run(VISIBLE)
    page.type("#search", "no such thing anywhere")
    page.until("document.getElementById('nothing').checkVisibility()")
    assert page.run(VISIBLE) == []
    page.press("Escape", 27)
    page.until("document.getElementById('search').value === ''")
    assert page.run(VISIBLE) == everything


def test_commands_are_copied_as_they_are(page, system):
    page.allow("clipboardReadWrite", "clipboardSanitizedWrite")
    for at, step in enumerate(walkthrough(system.url), start=1):
        page.click(f".steps li:nth-child({at}) .copy")
        page.until(f"document.querySelector('.steps li:nth-child({at}) .copy').textContent === 'Copied'")
        assert page.run("navigator.clipboard.readText()") == step.command


def test_a_method_is_tried_out_after_a_login(page, system):
    system.user("reader")
    page.click("#token-button")
    page.type("#login [name=username]", "reader")
    page.type("#login [name=password]", "test")
    page.click("#login button")
    page.until("document.documentElement.classList.contains('has-token')")
    page.click("#token-dialog .primary")
    answer = tried(page, "AuthService.GetCurrentUser")
    assert answer["status"].startswith("200")
    assert json.loads(answer["body"])["username"] == "reader"
    refused = tried(page, "MachineService.GetMachine", id="no/such")
    assert refused["status"].startswith("404")
    assert json.loads(refused["body"])["code"] == 5


def test_logging_out_ends_the_session(page, system):
    system.user("leaver")
    page.click("#token-button")
    page.type("#login [name=username]", "leaver")
    page.type("#login [name=password]", "test")
    page.click("#login button")
    page.until("document.documentElement.classList.contains('has-token')")
    token = page.run("document.getElementById('token').value")
    assert system.curl("/api/v1/user", token=token).status == 200

    page.click("#token-clear")

    page.until("!document.documentElement.classList.contains('has-token')")
    deadline = time.monotonic() + 30
    while system.curl("/api/v1/user", token=token).status != 401:
        assert time.monotonic() < deadline, "the session goes on"
        time.sleep(0.05)


def tried(page, method: str, **texts: str) -> dict[str, str]:
    """What the page shows after sending a method's form."""
    form = f"[id='{method}'] .try"
    page.run(f"location.hash = '{method}'")
    page.until(f'document.querySelector("{form}").checkVisibility()')
    for name, text in texts.items():
        page.type(f"{form} [name={name}]", text)
    page.click(f"{form} .row .primary")
    page.until(f'document.querySelector("{form} .answer pre code").textContent')
    parts = page.run(
        f"['.status b', 'pre code'].map(s => document.querySelector(\"{form} .answer\").querySelector(s).textContent)"
    )
    return dict(zip(("status", "body"), parts, strict=True))


def test_dark_and_light_are_readable_and_remembered(page, system):
    background = "getComputedStyle(document.body).backgroundColor"
    seen = set()
    for _ in range(2):
        page.click("#theme")
        seen.add(page.run(background))
        assert page.run(FAINT) == []
    assert len(seen) == 2
    page.click("#theme")
    chosen = page.run(background)
    page.go(system.url + "/?again")
    assert page.run(background) == chosen


def test_on_a_phone_nothing_is_wider_than_the_screen(chromium, system):
    phone = chromium.page(width=360, height=740, mobile=True)
    phone.go(system.url)
    assert phone.run("document.getElementById('menu').open") is False
    phone.run("document.querySelectorAll('.method, .inside, .errors').forEach(e => { e.open = true; })")
    assert phone.run("document.documentElement.scrollWidth") == 360
    phone.click("#menu summary")
    phone.until("document.querySelector('#menu a').checkVisibility()")
