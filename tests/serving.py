"""Holdline and workers beside it as processes of a run on asyncio, and how such a run is judged."""

import asyncio
import json
import os
import pathlib
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = str(ROOT / "target/debug/holdline")
PYTHON = str(ROOT / ".cache/py/bin/python")
# Where programs for Node find the libraries that scripts/setup-tests installs.
NODE_ENV = {**os.environ, "NODE_MODULES_OF": str(ROOT / ".cache/node/x")}
PATIENCE_SECONDS = 60


class Verdict:
    def __init__(self):
        self.passed = self.failed = 0

    def case(self, good, text):
        self.passed, self.failed = self.passed + bool(good), self.failed + (not good)
        if not good:
            print(f"FAIL {text}", flush=True)

    def told(self, good, text):
        """A case that is said when it is good as well."""
        self.case(good, text)
        if good:
            print(f"ok   {text}", flush=True)

    def end(self):
        """The last line, and the exit status."""
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


class Holdline:
    """A real `holdline serve`."""

    async def start(self, binary, config, directory, listeners=2):
        """Runs by `config`, once it listens on so many addresses: `public`, `admin`, and `tls` for public ones by TLS."""
        self.file = pathlib.Path(directory) / "proxy.toml"
        self.file.write_text(config)
        self.process = await asyncio.create_subprocess_exec(
            binary, "serve", "-c", self.file, stderr=asyncio.subprocess.PIPE
        )
        self.address, self.errors = {}, []
        while len(self.address) < listeners:
            line = await self.process.stderr.readline()
            if not line:
                raise SystemExit("holdline did not start")
            entry = json.loads(line)
            if entry.get("message") == "listening":
                name = "tls" if entry.get("tls") and entry["listener"] == "public" else entry["listener"]
                self.address[name] = entry["address"]
        self.reading = asyncio.create_task(self.read())
        return self

    async def read(self):
        async for line in self.process.stderr:
            if b'"ERROR"' in line:
                self.errors.append(line.decode())

    async def ask(self, method, path, body=None):
        """What the admin API answers, as text."""

        def asked():
            data = None if body is None else json.dumps(body).encode()
            url, headers = f"http://{self.address['admin']}{path}", {"Content-Type": "application/json"}
            request = urllib.request.Request(url, data, headers, method=method)
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
                return answer.read().decode()

        return await asyncio.to_thread(asked)

    async def call(self, method, path, body=None):
        """What the admin API answers, as JSON."""
        return json.loads(await self.ask(method, path, body) or "null")

    async def register(self, address, pool="default"):
        return (await self.call("POST", "/v1/backends", {"url": f"ws://{address}", "pool": pool}))["id"]

    async def forget(self, identity):
        await self.call("DELETE", f"/v1/backends/{identity}")

    async def metric(self, name, *labels):
        """The sum of what has this name and all of these labels, such as `result="full"`."""
        lines = (await self.ask("GET", "/metrics")).splitlines()
        fits = (line for line in lines if line.startswith(f"holdline_{name}{{") and all(it in line for it in labels))
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in fits))

    async def stop(self, verdict):
        self.process.terminate()
        verdict.case(await self.process.wait() == 0, "Holdline stops in good order")
        await self.judge(verdict)

    async def kill(self, verdict):
        self.process.kill()
        await self.process.wait()
        await self.judge(verdict)

    async def judge(self, verdict):
        await self.reading
        verdict.case(not self.errors, f"no error in Holdline's log: {self.errors[:3]}")


async def listening(*command, stdin=None):
    """A process that says on a line of JSON where it listens, and where that is."""
    quiet = asyncio.subprocess.DEVNULL if stdin else None
    process = await asyncio.create_subprocess_exec(
        *command, stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=quiet, env=NODE_ENV
    )
    line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_SECONDS)
    return process, json.loads(line)["listening"]
