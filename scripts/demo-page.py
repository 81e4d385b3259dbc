#!/usr/bin/env python3
"""Looks at the demo's viewer page in headless Chromium, over DevTools on pipes; standard library only.

    scripts/demo-page.py CHROMIUM URL DIRECTORY

Watches until every screen shows frames, presses a worker's kill button, and stays until the verdict. Fails when a
socket of the page closed, a frame was broken, a screen stood still, or the button did nothing. Leaves screen-1.png
(after the kill), screen-2.png (the verdict), screen-3.png (as on a phone) and page.html in DIRECTORY.
"""

import base64
import json
import os
import select
import subprocess
import sys
import tempfile
import time

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe", "--window-size=1280,900",
]
WAIT_S = 90
# Top-level names of the page's script.
PROBE = """JSON.stringify({
  here, phase: $('phase').textContent, verdict: $('verdict').textContent, trouble: $('trouble').textContent,
  screens: [...screens.values()].map((s) => ({
    session: s.session, worker: s.worker, fps: s.times.length / 2, closes: s.closes, broken: s.broken, moves: s.moves,
    red: s.card.classList.contains('closed'), drawn: s.canvas.width > 0 && s.worker !== '',
  })),
  workers: [...$('workers').children].map((w) => w.firstChild.textContent),
})"""


class Browser:
    """Chromium with one page."""

    def __init__(self, chromium, url, profile):
        to_read, self.to_write = os.pipe()
        self.from_read, from_write = os.pipe()

        def wire():  # DevTools reads from 3 and writes to 4
            a, b = os.dup(to_read), os.dup(from_write)
            os.dup2(a, 3)
            os.dup2(b, 4)

        command = [chromium, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(command, preexec_fn=wire, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(from_write)
        self.buffer = b""
        self.last = 0
        self.session = None
        target = self.ask("Target.createTarget", url=url)["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def ask(self, method, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 30
        while True:
            while b"\0" in self.buffer:
                text, self.buffer = self.buffer.split(b"\0", 1)
                answer = json.loads(text)
                if answer.get("id") == self.last:
                    if "error" in answer:
                        raise RuntimeError(f"{method}: {answer['error']}")
                    return answer["result"]
            if not select.select([self.from_read], [], [], max(0, deadline - time.monotonic()))[0]:
                raise RuntimeError(f"{method}: no answer")
            chunk = os.read(self.from_read, 1 << 16)
            if not chunk:
                raise RuntimeError("Chromium ended")
            self.buffer += chunk

    def evaluate(self, expression):
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["text"])
        return result["result"].get("value")

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.ask("Page.captureScreenshot", format="png")["data"]))

    def end(self):
        self.process.terminate()
        self.process.wait()


def until(browser, what, wanted):
    """Looks at the page until it is as wanted; complains at once about what must never be."""
    deadline = time.monotonic() + WAIT_S
    seen = None
    while time.monotonic() < deadline:
        try:
            seen = json.loads(browser.evaluate(PROBE))
        except RuntimeError:
            time.sleep(0.2)  # the page is still loading
            continue
        assert seen["here"]["closes"] == 0, f"a socket of the page closed: {seen}"
        assert seen["here"]["broken"] == 0, f"a frame was broken: {seen}"
        assert not any(screen["red"] for screen in seen["screens"]), f"a screen is red: {seen}"
        if wanted(seen):
            print(f"page: {what}: {seen['here']}")
            return seen
        time.sleep(0.2)
    raise AssertionError(f"not in {WAIT_S} s: {what}: {seen}")


def all_move(seen):
    return len(seen["screens"]) > 0 and all(s["drawn"] and s["fps"] > 0 for s in seen["screens"])


def look(browser, keep):
    before = until(browser, "every screen shows frames", all_move)
    browser.evaluate("document.querySelectorAll('#workers button:enabled')[0].click()")
    until(browser, "the button killed a worker", lambda seen: seen["workers"][0] != before["workers"][0])
    moved = until(browser, "screens moved and go on", lambda s: all_move(s) and s["here"]["moves"] > 2)
    assert moved["trouble"] == "", moved["trouble"]
    browser.screenshot(os.path.join(keep, "screen-1.png"))
    browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
    browser.evaluate("scrollTo(0, 0)")
    until(browser, "and on a narrow page", all_move)
    browser.screenshot(os.path.join(keep, "screen-3.png"))
    browser.ask("Emulation.clearDeviceMetricsOverride")
    until(browser, "the verdict is there", lambda seen: seen["verdict"] != "")
    browser.screenshot(os.path.join(keep, "screen-2.png"))
    with open(os.path.join(keep, "page.html"), "w", encoding="utf-8") as file:
        file.write(browser.evaluate("document.documentElement.outerHTML"))
    last = json.loads(browser.evaluate(PROBE))
    assert last["verdict"].startswith("Every promise was kept"), last["verdict"]


def main():
    chromium, url, keep = sys.argv[1:]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(chromium, url, profile)
        try:
            look(browser, keep)
        except (AssertionError, RuntimeError) as error:
            print(f"page: {error}", file=sys.stderr)
            return 1
        finally:
            browser.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
