"""The helper against a real Holdline: HOLDLINE names the binary (target/debug/holdline by default).

Run it as: python3 -m unittest discover -s clients/python/tests
"""

import asyncio
import json
import os
import pathlib
import subprocess
import sys
import tempfile
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
        config = pathlib.Path(self.directory.name) / "proxy.toml"
        config.write_text(CONFIG)
        self.proxy = subprocess.Popen([BINARY, "serve", "-c", config], stderr=subprocess.PIPE, text=True)
        self.addCleanup(self.proxy.stderr.close)
        self.addCleanup(self.proxy.wait)
        self.addCleanup(self.proxy.kill)
        for line in self.proxy.stderr:
            said = json.loads(line)
            if said.get("listener") == "admin":
                self.admin = f"http://{said['address']}"
                break

    async def ask(self, method, path, body=None):
        return await asyncio.to_thread(holdline._call, self.admin, None, method, path, body)

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


class Headers(unittest.TestCase):
    def test_the_headers_of_an_attach_are_read(self):
        self.assertIsNone(holdline.Resume.of({"Host": "x"}))
        first = holdline.Resume.of({"Holdline-Pipe": "p", "Holdline-Attach": "1"})
        self.assertEqual(first, holdline.Resume("p", 1, None, 0, None))
        headers = {"holdline-pipe": "p", "holdline-attach": "3", "holdline-cause": "crash"}
        headers |= {"holdline-replay": "7; bytes=90", "holdline-previous": "w1"}
        self.assertEqual(holdline.Resume.of(headers), holdline.Resume("p", 3, "crash", 7, "w1"))

    def test_durations_are_read_as_holdline_writes_them(self):
        self.assertEqual([holdline._seconds(text) for text in ("500ms", "5s", "1m")], [0.5, 5.0, 60.0])


if __name__ == "__main__":
    unittest.main()
