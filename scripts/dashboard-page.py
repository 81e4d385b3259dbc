#!/usr/bin/env python3
"""Clicks through the dashboard in headless Chromium, in front of real processes; standard library only.

    scripts/dashboard-page.py CHROMIUM WORK KEEP      (by scripts/dashboard-check)

First few clients, and every button; then a dozen backends and DASHBOARD_PIPES pipes (1000 if not set), of which one backend's
are drained. Leaves a screenshot of each section in KEEP: light, dark, and as on a phone.
"""

import hashlib
import json
import os
import re
import resource
import socket
import sys
import tempfile
import time
import urllib.request
from contextlib import closing

from browser import Browser
from processes import WAIT_S, Stage, verdict

CLIENTS = 8
BACKENDS = 12
PIPES = int(os.environ.get("DASHBOARD_PIPES", "1000"))
# What a phone's page may be long, in its own pixels, whatever there is.
PHONE_HEIGHT_MAX = 20_000
HOLDLINE = os.environ["HOLDLINE_BIN"]
PROBE = """JSON.stringify({
  phase: $('phase').textContent, trouble: $('trouble').textContent, asks: $('ask').open, sure: $('sure').open,
  question: $('question').textContent + ' ' + $('consequence').textContent,
  toast: $('toast').classList.contains('hidden') ? '' : $('toast').textContent, tab: tab(),
  tiles: Object.fromEntries([...$('tiles').children].map((t) => [t.dataset.key, t.querySelector('b').textContent])),
  lines: [...$('tiles').querySelectorAll('path')].filter((p) => p.getAttribute('d').length > 8).length,
  backends: [...document.querySelectorAll('#pools tbody tr')].map((r) => ({
    id: r.dataset.key, states: [...r.querySelectorAll('.chip')].map((c) => c.textContent).filter(Boolean),
    pipes: r.querySelector('td.number a').textContent, text: r.textContent,
    deeds: [...r.querySelectorAll('button:not(.hidden)')].map((b) => b.textContent) })),
  pipes: [...$('rows').children].map((r) => ({ id: r.dataset.key, key: r.children[2].textContent,
    backend: r.children[4].textContent, state: r.children[5].textContent })),
  pipecount: $('pipecount').textContent,
  drawer: $('drawer').classList.contains('hidden') ? '' : $('drawer').textContent,
  events: [...$('log').children].map((e) => e.textContent),
})"""


class Client:
    """A WebSocket client that says little and must never be closed."""

    def __init__(self, address, key):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)))
        head = f"GET /ws/{key}/echo HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.socket.sendall((head + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
        self.socket.settimeout(WAIT_S)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(4096)
        assert answer.startswith(b"HTTP/1.1 101"), answer
        self.rest = answer.split(b"\r\n\r\n", 1)[1]

    def hear(self, text):
        """Reads until a message has come; pings are for others."""
        while text.encode() not in self.rest:
            chunk = self.socket.recv(4096)
            assert chunk, "the proxy closed a client"
            self.rest += chunk
        self.rest = b""

    def exchange(self, text):
        """Sends a text and reads until it comes back."""
        payload = text.encode()
        self.socket.sendall(bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
        self.hear(text)


class Page:
    """The dashboard in a browser."""

    def __init__(self, browser, keep):
        self.browser = browser
        self.keep = keep

    def until(self, what, wanted):
        deadline = time.monotonic() + WAIT_S
        seen = None
        while time.monotonic() < deadline:
            try:
                seen = json.loads(self.browser.evaluate(PROBE))
            except RuntimeError:
                seen = None  # the page is still loading
            if seen and wanted(seen):
                print(f"dashboard: {what}")
                return seen
            time.sleep(0.1)
        raise AssertionError(f"not in {WAIT_S} s: {what}: {seen}")

    def go(self, tab, wanted=lambda seen: True, **place):
        words = "&".join([f"tab={tab}", *(f"{name}={value}" for name, value in place.items())])
        self.browser.evaluate(f"location.hash = {json.dumps('#' + words)}")
        return self.until(f"section {words}", lambda seen: seen["tab"] == tab and wanted(seen))

    def click(self, where, text):
        pressed = self.browser.evaluate(
            f"(() => {{ const box = {where};"
            f" const button = [...box.querySelectorAll('button:not(.hidden)')].find((b) => b.textContent === {json.dumps(text)});"
            " if (button) button.click(); return !!button; })()")
        assert pressed, f"no button {text} in {where}"

    def press(self, row, text, question=None, words=None):
        """A button of a row, and the answer to what it asks."""
        self.click(f"[...document.querySelectorAll('#pools tr')].find((r) => r.dataset.key === {json.dumps(row)})", text)
        if question:
            self.answer(question, words)

    def answer(self, question, words=None):
        seen = self.until(f"it asks: {question}", lambda s: s["sure"] and question in s["question"])
        if words:
            self.browser.evaluate(f"$('words').value = {json.dumps(words)}")
        self.browser.evaluate("$('yes').click()")
        return seen

    def sign_in(self, token):
        self.browser.evaluate(f"if (!$('ask').open) $('signin').click(); $('token').value = {json.dumps(token)};"
                              "document.querySelector('button[value=use]').click()")
        # a dialog tells that it was closed later than the click returns
        deadline = time.monotonic() + WAIT_S
        while not self.browser.evaluate(f"token === {json.dumps(token)}"):
            assert time.monotonic() < deadline, "the token was not taken"
            time.sleep(0.02)

    def type(self, field, text):
        self.browser.evaluate(f"$({json.dumps(field)}).value = {json.dumps(text)}; $({json.dumps(field)}).dispatchEvent(new Event('input'))")

    def shot(self, name):
        self.browser.screenshot(os.path.join(self.keep, f"dashboard-{name}.png"))

    def dark(self, is_dark):
        features = [{"name": "prefers-color-scheme", "value": "dark"}] if is_dark else []
        self.browser.ask("Emulation.setEmulatedMedia", features=features)

    def phone(self):
        self.browser.ask("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=2, mobile=True)

    def fits_a_phone(self):
        size = self.browser.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight].join()")
        width, height = map(int, size.split(","))
        assert width <= 390, f"the page is {width} pixels wide on a phone"
        assert height <= PHONE_HEIGHT_MAX, f"the page is {height} pixels long on a phone"


def backend(seen, name):
    return next((b for b in seen["backends"] if b["id"] == name), {"states": [], "pipes": "", "deeds": [], "text": ""})


def metric(admin, pattern):
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=WAIT_S) as answer:
        text = answer.read().decode()
    return sum(float(value) for value in re.findall(rf"^{pattern} (\S+)$", text, re.M))


def sign_in(page):
    page.until("it asks for a token", lambda s: s["asks"])
    page.sign_in("see")
    shown = page.go("backends", lambda s: len(s["backends"]) == 2
                    and all(b["states"][:2] == ["ready", "up"] and "ends in" in b["text"] for b in s["backends"]))
    assert backend(shown, "w1")["deeds"] == ["Drain", "Maint", "Remove"], shown
    page.press("w1", "Drain", "Drain w1?")
    page.until("a viewer may not drain, and is told so", lambda s: s["asks"] and "role" in s["trouble"])
    page.sign_in("steer")


def drain_and_undo(page, clients):
    page.until("the operator's token is taken", lambda s: not s["asks"])
    page.press("w1", "Drain", "Drain w1?")
    seen = page.until("an operator drains w1, and its pipes move to w2", lambda s: s["trouble"] == ""
                      and backend(s, "w1")["states"][:1] == ["drain"] and backend(s, "w1")["pipes"] == "0"
                      and backend(s, "w2")["pipes"] == str(CLIENTS))
    assert "w1 is in drain" in seen["toast"], seen
    for number, client in enumerate(clients):
        client.exchange(f"after the drain {number}")
    page.click("$('toast')", "Undo")
    page.until("it is undone", lambda s: backend(s, "w1")["states"][:1] == ["ready"])
    page.press("w1", "Maint", "Take out w1?")
    page.until("w1 is out of service", lambda s: backend(s, "w1")["states"][:1] == ["maint"])
    page.press("w1", "Ready")
    page.until("w1 is ready again", lambda s: backend(s, "w1")["states"][:1] == ["ready"])
    page.press("w2", "Remove", "Remove w2?")
    page.until("w2 is gone, and w1 has its pipes", lambda s: backend(s, "w2")["deeds"] == [] and backend(s, "w1")["pipes"] == str(CLIENTS))
    page.click("$('toast')", "Undo")
    page.until("w2 is back", lambda s: backend(s, "w2")["states"][:1] == ["ready"])
    page.click("document.querySelector('#pools section')", "Rebalance")
    page.answer("Rebalance default?")
    page.until("the pipes are spread", lambda s: backend(s, "w2")["pipes"] == str(CLIENTS // 2))


def one_pipe(page, clients):
    page.go("pipes", lambda s: len(s["pipes"]) == CLIENTS)
    page.type("q", "s5")
    seen = page.until("a search finds one", lambda s: [p["key"] for p in s["pipes"]] == ["s5"])
    assert seen["pipecount"] == f"1 of {CLIENTS} pipes fit", seen["pipecount"]
    before = seen["pipes"][0]["backend"]
    page.browser.evaluate("$('rows').firstElementChild.click()")
    page.until("a drawer shows its lanes", lambda s: "confirmed" in s["drawer"] and "s5" in s["drawer"])
    page.click("$('drawer')", "Move")
    page.until("it moved", lambda s: s["pipes"] and s["pipes"][0]["backend"] != before and "messages replayed" in s["drawer"])
    page.click("$('drawer')", "Say…")
    page.answer("Say to this client", "good evening")
    clients[5].hear("good evening")
    page.browser.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape' }))")
    page.until("the drawer is closed", lambda s: s["drawer"] == "")
    page.type("q", "nothing of that name")
    page.until("an empty search says what to do", lambda s: s["pipes"] == [] and "0 of" in s["pipecount"])
    page.type("q", "")
    for number, client in enumerate(clients):
        client.exchange(f"after the move {number}")


def numbers_and_events(page, admin):
    page.go("events", lambda s: any(f"{CLIENTS // 2} pipes of w1 moved" in e for e in s["events"]))
    assert len(json.loads(page.browser.evaluate(PROBE))["events"]) < 40, "events are folded"
    interruptions = metric(admin, r"holdline_interruptions_total\{.*\}")
    page.go("overview", lambda s: s["tiles"].get("Pipes") == str(CLIENTS) and s["tiles"]["Messages lost"] == "0"
            and float(s["tiles"]["Workers lost under a pipe"]) + float(s["tiles"]["Moved on purpose"]) == interruptions
            and metric(admin, r"holdline_pipes\{.*\}") == CLIENTS)
    page.until("lines are drawn", lambda s: s["lines"] >= 6)


def write_tokens(path):
    digest = lambda token: hashlib.sha256(token.encode()).hexdigest()
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"viewer {digest('see')} wall\noperator {digest('steer')} desk\nworker {digest('work')} farm\n")
    return path


ROUTES = {"HOLDLINE_ROUTES__0__PATH": "/ws/{session}/{*channel}", "HOLDLINE_ROUTES__0__KEY": "{session}"}


def every_button(chromium, work, keep):
    with Stage(work) as stage, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        settings = {"HOLDLINE_ADMIN__TOKENS_FILE": write_tokens(stage.path("tokens")), **ROUTES}
        public, admin, _ = stage.holdline(HOLDLINE, settings, token="work")
        clients = [Client(public, f"s{number}") for number in range(CLIENTS)]
        with closing(Browser(chromium, f"http://{admin}/", profile)) as browser:
            page = Page(browser, keep)
            sign_in(page)
            drain_and_undo(page, clients)
            one_pipe(page, clients)
            numbers_and_events(page, admin)


def a_drain_of_many(chromium, work, keep):
    """What an operator sees of a farm while one of its backends is drained and another is killed."""
    wanted = PIPES + 500
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, wanted), hard), hard))
    with Stage(work) as stage, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        public, admin, _ = stage.holdline(HOLDLINE, ROUTES)
        for number in range(3, BACKENDS + 1):
            stage.start(f"w{number}", HOLDLINE, "worker", "--register", f"http://{admin}", "--id", f"w{number}",
                        "--label", f"zone={'ab'[number % 2]}").wait_for("(registered)")
        clients = [Client(public, f"device-{number}") for number in range(PIPES)]
        with closing(Browser(chromium, f"http://{admin}/", profile)) as browser:
            page = Page(browser, keep)
            page.until("it shows the farm", lambda s: s["tiles"].get("Pipes") == f"{PIPES:,}")
            page.go("backends", lambda s: len(s["backends"]) == BACKENDS)
            stage.processes[-1].child.kill()
            page.press("w4", "Drain", "Drain w4?")
            page.until("w4 is empty", lambda s: backend(s, "w4")["pipes"] == "0" and backend(s, "w4")["states"][0] == "drain")
            page.until("the killed one is down, and since when", lambda s: any("down for" in state for state in backend(s, f"w{BACKENDS}")["states"]))
            page.go("pipes", lambda s: len(s["pipes"]) == 50 and s["pipecount"] == f"{PIPES:,} pipes", sort="-interruptions")
            page.type("q", f"device-{PIPES - 1}")
            page.until("a key beyond the first page is found", lambda s: [p["key"] for p in s["pipes"]] == [f"device-{PIPES - 1}"])
            page.type("q", "")
            page.go("events", lambda s: any(f"of w4 moved" in e for e in s["events"]) and any(f"lost w{BACKENDS}" in e for e in s["events"]))
            screenshots(page)
        for client in clients[:20]:
            client.exchange("still here")


def screenshots(page):
    sections = ["overview", "backends", "pipes", "events"]
    page.go("overview", lambda s: s["lines"] >= 6 and s["tiles"]["Moved on purpose"] != "0"
            and s["tiles"]["Workers lost under a pipe"] != "0")
    for name in sections:
        page.go(name, lambda s: s["trouble"] == "")
        page.shot(name)
    page.go("pipes", lambda s: len(s["pipes"]) > 1)
    page.browser.evaluate("$('rows').firstElementChild.click()")
    page.until("a drawer is open", lambda s: "What happened" in s["drawer"] and "confirmed" in s["drawer"])
    page.shot("drawer")
    page.dark(True)
    page.go("overview")
    page.shot("dark")
    page.go("backends")
    page.shot("dark-backends")
    page.phone()
    for name in sections:
        page.go(name)
        page.fits_a_phone()
        page.shot(f"phone-{name}")


def check(chromium, work, keep):
    for number, act in enumerate([every_button, a_drain_of_many]):
        directory = os.path.join(work, str(number))
        os.makedirs(directory)
        act(chromium, directory, keep)


if __name__ == "__main__":
    sys.exit(verdict("dashboard", lambda: check(*sys.argv[1:])))
