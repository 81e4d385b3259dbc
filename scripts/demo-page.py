#!/usr/bin/env python3
"""Looks at the demo's viewer page in headless Chromium, with the standard library only.

    scripts/demo-page.py CHROMIUM URL DIRECTORY [FLAG OF CHROMIUM...]

Watches until every screen shows frames, presses a worker's kill button, and stays until the verdict. Fails when a
socket of the page closed, a frame was broken, a screen stood still, or the button did nothing. Leaves screen-1.png
(after the kill), screen-2.png (the verdict), screen-3.png (as on a phone) and page.html in DIRECTORY.
"""

import json
import os
import sys
import tempfile
import time
from contextlib import closing

from browser import Browser
from processes import verdict

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


def check(chromium, url, keep, *flags):
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        with closing(Browser(chromium, url, profile, *flags)) as browser:
            look(browser, keep)


if __name__ == "__main__":
    sys.exit(verdict("page", lambda: check(*sys.argv[1:])))
