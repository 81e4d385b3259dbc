#!/usr/bin/env python3
"""Clicks through the dashboard in headless Chromium, in front of real processes; standard library only.

    scripts/dashboard-page.py CHROMIUM WORK KEEP      (by scripts/dashboard-check)

Leaves dashboard-light.png, dashboard-dark.png and dashboard-phone.png in KEEP.
"""

import hashlib
import json
import os
import re
import socket
import sys
import tempfile
import time
import urllib.request
from contextlib import closing

from browser import Browser
from processes import WAIT_S, Stage, verdict

CLIENTS = 8
HOLDLINE = os.environ["HOLDLINE_BIN"]
PROBE = """JSON.stringify({
  phase: $('phase').textContent, trouble: $('trouble').textContent, asks: $('ask').open,
  tiles: Object.fromEntries([...$('tiles').children].map((t) => [t.firstChild.textContent, t.lastChild.firstChild.data])),
  backends: [...document.querySelectorAll('#pools tbody tr')].map((r) => ({
    id: r.dataset.key, states: [...r.querySelectorAll('.chip')].map((c) => c.textContent),
    pipes: r.querySelector('td.number').textContent,
    deeds: [...r.querySelectorAll('button:not(.hidden)')].map((b) => b.textContent) })),
  pipes: [...$('pipes').children].map((r) => ({ id: r.dataset.key, backend: r.children[3].textContent,
    state: r.children[4].textContent })),
  events: [...document.querySelectorAll('#events strong')].map((e) => e.textContent),
})"""


class Client:
    """A WebSocket client that says little and must never be closed."""

    def __init__(self, address):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)))
        head = f"GET /ws/s1/echo HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.socket.sendall((head + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
        self.socket.settimeout(WAIT_S)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(4096)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        self.rest = answer.split(b"\r\n\r\n", 1)[1]

    def exchange(self, text):
        """Sends a text and reads until it comes back; pings are for others."""
        payload = text.encode()
        self.socket.sendall(bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
        while payload not in self.rest:
            chunk = self.socket.recv(4096)
            assert chunk, "the proxy closed a client"
            self.rest += chunk
        self.rest = b""


def until(browser, what, wanted):
    deadline = time.monotonic() + WAIT_S
    seen = None
    while time.monotonic() < deadline:
        try:
            seen = json.loads(browser.evaluate(PROBE))
        except RuntimeError:
            seen = None  # the page is still loading
        if seen and wanted(seen):
            print(f"dashboard: {what}")
            return seen
        time.sleep(0.1)
    raise AssertionError(f"not in {WAIT_S} s: {what}: {seen}")


def backend(seen, name):
    return next((b for b in seen["backends"] if b["id"] == name), {"states": [], "pipes": "", "deeds": []})


def press(browser, row, text):
    pressed = browser.evaluate(
        f"(() => {{ const row = [...document.querySelectorAll('tr')].find((r) => r.dataset.key === {json.dumps(row)});"
        f" const button = [...row.querySelectorAll('button:not(.hidden)')].find((b) => b.textContent === {json.dumps(text)});"
        " if (button) button.click(); return !!button; })()")
    assert pressed, f"no button {text} in {row}"


def sign_in(browser, token):
    browser.evaluate(f"if (!$('ask').open) $('signin').click(); $('token').value = {json.dumps(token)};"
                     "document.querySelector('button[value=use]').click()")
    # a dialog tells that it was closed later than the click returns
    deadline = time.monotonic() + WAIT_S
    while not browser.evaluate(f"token === {json.dumps(token)}"):
        assert time.monotonic() < deadline, "the token was not taken"
        time.sleep(0.02)


def metric(admin, pattern):
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=WAIT_S) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.M))


def look(browser, admin, clients, keep):
    until(browser, "it asks for a token", lambda s: s["asks"])
    sign_in(browser, "see")
    shown = until(browser, "a viewer sees pools, backends and pipes", lambda s: len(s["pipes"]) == CLIENTS
                  and len(s["backends"]) == 2 and all(b["states"] == ["ready", "up", "lease live"] for b in s["backends"]))
    assert backend(shown, "w1")["deeds"] == ["Drain"], shown
    press(browser, "w1", "Drain")
    until(browser, "a viewer may not drain, and is told so", lambda s: s["asks"] and "role" in s["trouble"])
    sign_in(browser, "steer")
    press(browser, "w1", "Drain")
    seen = until(browser, "an operator drains w1, and its pipes move to w2", lambda s: s["trouble"] == ""
                 and backend(s, "w1")["states"][:1] == ["drain"] and backend(s, "w1")["pipes"] == "0"
                 and backend(s, "w2")["pipes"] == str(CLIENTS) and all(p["backend"] == "w2" for p in s["pipes"]))
    for number, client in enumerate(clients):
        client.exchange(f"after the drain {number}")
    press(browser, "w1", "Ready")
    until(browser, "w1 is ready again", lambda s: backend(s, "w1")["states"][:1] == ["ready"])
    pipe = seen["pipes"][0]["id"]
    press(browser, pipe, "Move")
    until(browser, "one pipe moved back", lambda s: backend(s, "w1")["pipes"] == "1"
          and any(p["id"] == pipe and p["backend"] == "w1" for p in s["pipes"]) and "pipe.reattached" in s["events"])
    for number, client in enumerate(clients):
        client.exchange(f"after the move {number}")
    interruptions = metric(admin, r"holdline_interruptions_total\{.*\}")
    until(browser, "the numbers are those of /metrics", lambda s: s["tiles"]["Pipes"] == str(CLIENTS)
          and float(s["tiles"]["Interruptions"]) == interruptions and s["tiles"]["Lost"] == "0"
          and metric(admin, r"holdline_pipes\{.*\}") == CLIENTS)
    width = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    browser.screenshot(os.path.join(keep, "dashboard-light.png"))
    browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    browser.screenshot(os.path.join(keep, "dashboard-dark.png"))
    browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)
    until(browser, "and on a phone", lambda s: len(s["pipes"]) == CLIENTS)
    assert browser.evaluate(width) <= 0, "the page is wider than a phone"
    browser.screenshot(os.path.join(keep, "dashboard-phone.png"))


def write_tokens(path):
    digest = lambda token: hashlib.sha256(token.encode()).hexdigest()
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"viewer {digest('see')} wall\noperator {digest('steer')} desk\nworker {digest('work')} farm\n")
    return path


def check(chromium, work, keep):
    with Stage(work) as stage, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        tokens = write_tokens(stage.path("tokens"))
        public, admin, _ = stage.holdline(HOLDLINE, {"HOLDLINE_ADMIN__TOKENS_FILE": tokens}, token="work")
        clients = [Client(public) for _ in range(CLIENTS)]
        with closing(Browser(chromium, f"http://{admin}/", profile)) as browser:
            look(browser, admin, clients, keep)


if __name__ == "__main__":
    sys.exit(verdict("dashboard", lambda: check(*sys.argv[1:])))
