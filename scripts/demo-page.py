#!/usr/bin/env python3
"""Looks at the demo's viewer page in headless Chromium and clicks in it, with the standard library only.

    scripts/demo-page.py CHROMIUM URL DIRECTORY [FLAG OF CHROMIUM...]

Watches until both rows show frames, taps every screen, presses a worker's kill button and "Kill them all", waits for
the verdict, and kills once more after it: the demo is one that stays. Fails when a socket of the upper row closed, one of its frames
was broken, one of its screens stood still, a tap was not executed, a kill left the lower row as it was, or a button did
nothing. Leaves kill-all.png (light), kill-all-dark.png, kill-all-phone.png, verdict.png and page.html in DIRECTORY.
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
TAPS_A_SCREEN = 3
# Top-level names of the page's script.
PROBE = """JSON.stringify({
  here, phase: $('phase').textContent, verdict: $('verdict').textContent, trouble: $('trouble').textContent,
  screens: [...screens.values()].map(({ screen: s }) => ({
    session: s.session, worker: s.worker, frames: s.frames, fps: s.times.length / 2, closes: s.closes, broken: s.broken,
    moves: s.moves, note: s.note.textContent, back: s.facts.textContent,
    red: s.card.classList.contains('closed'), drawn: s.canvas.width > 0 && s.worker !== '',
  })),
  tunnels: [...screens.values()].map(({ tunnel: t }) => ({ lost: t.lost, dark: t.dark, frames: t.frames })),
  workers: [...$('workers').children].map((w) => w.firstChild.textContent),
  hues: [...$('workers').children].map((w) => w.firstChild.firstChild.style.background),
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
        time.sleep(0.1)
    raise AssertionError(f"not in {WAIT_S} s: {what}: {seen}")


def all_move(seen):
    return len(seen["screens"]) > 0 and all(s["drawn"] and s["fps"] > 0 for s in seen["screens"])


def tap(browser):
    """Taps every screen some times, and waits until a worker has executed each tap."""
    browser.evaluate(
        f"for (let i = 0; i < {TAPS_A_SCREEN}; i += 1)"
        " for (const { screen } of screens.values()) screen.canvas.click()")
    seen = until(browser, "every tap was executed", lambda s: s["here"]["answered"] == s["here"]["taps"])
    assert seen["here"]["taps"] % (TAPS_A_SCREEN * len(seen["screens"])) == 0, seen["here"]


def kill_all(browser):
    """Presses the big button: the lower row goes black at once, the upper row plays on."""
    before = until(browser, "both rows play", lambda s: all_move(s) and sum(t["dark"] for t in s["tunnels"]) < 3)
    browser.evaluate("$('killall').click()")
    # one that an earlier kill has turned black may stay so
    black = until(browser, "the lower row goes black", lambda s: all(
        now["lost"] > was["lost"] or was["dark"] for now, was in zip(s["tunnels"], before["tunnels"])))
    until(browser, "the upper row plays on at other workers", lambda s: all(
        now["frames"] > then["frames"] and now["worker"] != was["worker"] and now["note"]
        for now, then, was in zip(s["screens"], black["screens"], before["screens"])))


def look(browser, keep):
    shot = lambda name: browser.screenshot(os.path.join(keep, name))
    before = until(browser, "every screen shows frames", all_move)
    assert len(set(before["hues"])) == len(before["hues"]) > 1, before["hues"]
    tap(browser)
    browser.evaluate("document.querySelectorAll('#workers button:enabled')[0].click()")
    until(browser, "the button killed a worker", lambda seen: seen["workers"] != before["workers"])
    moved = until(browser, "screens moved and say how long it took", lambda s: all_move(s) and s["here"]["moves"] > 0
                  and any("back after" in screen["back"] for screen in s["screens"]))
    assert moved["trouble"] == "", moved["trouble"]
    kill_all(browser)
    shot("kill-all.png")
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    shot("kill-all-dark.png")
    browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
    browser.evaluate("scrollTo(0, 0)")
    kill_all(browser)
    shot("kill-all-phone.png")
    assert browser.evaluate("document.documentElement.scrollWidth <= 390"), "the page is wider than a phone"
    browser.ask("Emulation.clearDeviceMetricsOverride")
    browser.ask("Emulation.setEmulatedMedia", features=[])
    tap(browser)
    until(browser, "the verdict is there", lambda seen: seen["verdict"] != "")
    kill_all(browser)
    tap(browser)
    shot("verdict.png")
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
