"""The helper against a real Holdline: HOLDLINE names the binary (target/debug/holdline by default).

Run it as: python3 -m unittest discover -s clients/python/tests
"""

import asyncio
import itertools
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import types
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "clients/python"))

import holdline  # noqa: E402

BINARY = os.environ.get("HOLDLINE", str(ROOT / "target/debug/holdline"))
CONFIG = '[server]\nlisten = ["127.0.0.1:0"]\n[admin]\nlisten = "127.0.0.1:0"\n[log]\nformat = "json"\n'


class Against(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.addCleanup(self.directory.cleanup)
        self.admin = f"http://{self.start(CONFIG)}"

    def start(self, config):
        """A Holdline, and where its admin API is."""
        file = pathlib.Path(self.directory.name) / "proxy.toml"
        file.write_text(config)
        proxy = subprocess.Popen([BINARY, "serve", "-c", file], stderr=subprocess.PIPE, text=True)
        for cleanup in (proxy.stderr.close, proxy.wait, proxy.kill):
            self.addCleanup(cleanup)
        for line in proxy.stderr:
            said = json.loads(line)
            if said.get("listener") == "admin":
                return said["address"]
        raise AssertionError("Holdline did not start")

    async def ask(self, method, path, body=None):
        return await holdline._admin.Admin(self.admin).ask(method, path, body)

    async def eventually(self, holds):
        async def look():
            while not await holds():
                await asyncio.sleep(0.02)

        await asyncio.wait_for(look(), 30)

    async def test_a_worker_is_registered_while_its_block_runs_and_again_when_it_was_forgotten(self):
        url, keys = "ws://127.0.0.1:9", {"k": "alias"}
        async with holdline.register(url, lease="1s", id="w1", admin=self.admin, serves=keys, signals=False) as place:
            await place.registered()
            backend = await self.ask("GET", "/v1/backends/w1")
            self.assertEqual((backend["url"], backend["serves"]), (url, keys))
            await self.ask("DELETE", "/v1/backends/w1", {})

            async def is_back():
                items = (await self.ask("GET", "/v1/backends"))["items"]
                return [item["id"] for item in items] == ["w1"]

            await self.eventually(is_back)
        self.assertEqual((await self.ask("GET", "/v1/backends"))["items"], [])

    async def test_an_operators_drain_tells_the_worker_to_stop(self):
        async with holdline.register("ws://127.0.0.1:9", lease="1s", id="w1", admin=self.admin, signals=False) as place:
            await place.registered()
            await self.ask("PUT", "/v1/backends/w1/state", {"state": "drain"})
            await asyncio.wait_for(place.told_to_stop(), 30)
            self.assertEqual(place.directives, ["drain"])

    async def test_what_is_refused_is_told(self):
        with self.assertRaises(holdline.Refused) as refused:
            await holdline.commit("AAAAAAAAAAAAAAAAAAAAAA", 1, 1, admin=self.admin)
        self.assertEqual(refused.exception.status, 404)


    async def test_an_id_that_another_worker_has_is_told_and_left_to_that_one(self):
        # Something that is found up, so that it keeps its id.
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        options = {"lease": "1s", "id": "w1", "admin": self.admin, "signals": False}
        async with server, holdline.register(url, **options) as first:
            await first.registered()

            async def is_up():
                return (await self.ask("GET", "/v1/backends/w1"))["health"] == "up"

            await self.eventually(is_up)
            with self.assertLogs("holdline", "WARNING") as logs:
                async with holdline.register("ws://127.0.0.1:9", **options):

                    async def is_told():
                        return logs.output

                    await self.eventually(is_told)
            self.assertRegex(logs.output[0], "w1 is not registered with http:.*: 409: ")
            self.assertEqual((await self.ask("GET", "/v1/backends/w1"))["url"], url)

    async def test_a_server_that_waits_for_sigterm_hears_of_it_after_the_worker_has_left(self):
        heard = []
        before = signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))
        self.addCleanup(signal.signal, signal.SIGTERM, before)
        async with holdline.register("ws://127.0.0.1:9", lease="1s", id="w1", admin=self.admin) as place:
            await place.registered()
            signal.raise_signal(signal.SIGTERM)
            await place.told_to_stop()
            self.assertEqual(heard, [])

            async def is_passed_on():
                return heard

            await self.eventually(is_passed_on)
            self.assertEqual((await self.ask("GET", "/v1/backends"))["items"], [])

    async def test_an_admin_api_on_a_socket_file_is_asked_as_well(self):
        file = f"unix:{self.directory.name}/admin.sock"
        self.start(CONFIG.replace('[admin]\nlisten = "127.0.0.1:0"', f'[admin]\nlisten = "{file}"'))
        with self.assertRaisesRegex(holdline.Refused, "404: there is no pipe"):
            await holdline.commit("AAAAAAAAAAAAAAAAAAAAAA", 1, 1, admin=file)

    async def test_where_no_admin_api_can_be_is_said(self):
        with self.assertRaisesRegex(ValueError, "'localhost' is no admin API; write it like http:"):
            await holdline.commit("p", 1, 1, admin="localhost")


class Headers(unittest.TestCase):
    WHOLE = {
        "Holdline-Pipe": "p", "Holdline-Attach": "3", "Holdline-Cause": "crash", "Holdline-Previous": "w1",
        "Holdline-First-Seq": "42", "Holdline-Replay": "7; bytes=90", "Holdline-Confirmed": "41; level=pong",
        "Holdline-Gap": "38-41", "Holdline-Prologue": "2",
    }  # fmt: skip

    def test_the_headers_of_an_attach_are_read_from_whatever_holds_them(self):
        self.assertIsNone(holdline.Resume.of({"Host": "x"}))
        first = holdline.Resume.of({"Holdline-Pipe": "p", "Holdline-Attach": "1"})
        self.assertEqual(first, holdline.Resume("p", 1))
        request = types.SimpleNamespace(headers=self.WHOLE)
        scope = {"type": "websocket", "headers": [(k.lower().encode(), v.encode()) for k, v in self.WHOLE.items()]}
        for holder in (self.WHOLE, request, types.SimpleNamespace(request=request), scope):
            found = holdline.Resume.of(holder)
            self.assertEqual((found.pipe, found.attach, found.cause, found.previous), ("p", 3, "crash", "w1"))
            self.assertEqual((found.first_seq, found.replayed, found.replayed_bytes), (42, 7, 90))
            self.assertEqual((found.confirmed, found.level, found.gap, found.prologue), (41, "pong", (38, 41), 2))

    def test_messages_are_numbered_behind_what_says_the_beginning_again(self):
        resume = holdline.Resume.of(self.WHOLE)
        taken = [list(itertools.islice(resume.numbers(rx), 3)) for rx in (None, 50, 10)]
        self.assertEqual(taken, [[0, 0, 42], [51, 52, 53], [42, 43, 44]])

    def test_durations_are_read_as_holdline_writes_them(self):
        seconds = [holdline._registration._seconds(text) for text in ("500ms", "5s", "1m")]
        self.assertEqual(seconds, [0.5, 5.0, 60.0])


if __name__ == "__main__":
    unittest.main()
