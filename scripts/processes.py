"""Child processes whose lines can be waited for, for the scripts that look at running software."""

import os
import re
import subprocess
import sys
import time

WAIT_S = 60
WORKERS = ("w1", "w2")


class Process:
    def __init__(self, log, *command, env=None):
        self.log = log
        with open(log, "wb") as file:
            self.child = subprocess.Popen(command, stdout=file, stderr=file, env=env)

    def wait_for(self, pattern):
        """The first group of `pattern` in what the process has said, as soon as it has."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with open(self.log, encoding="utf-8") as file:
                said = file.read()
            found = re.search(pattern, said)
            if found:
                return found.group(1)
            assert self.child.poll() is None, f"{self.log}: ended early: {said[-2000:]}"
            time.sleep(0.05)
        raise AssertionError(f"{self.log}: no {pattern}")

    def end(self):
        self.child.terminate()
        self.child.wait(timeout=WAIT_S)


class Stage:
    """Processes with a directory of their own, which end with it, the last one first."""

    def __init__(self, work):
        self.work = work
        self.processes = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.end()

    def path(self, name):
        return os.path.join(self.work, name)

    def start(self, name, *command, env=None):
        self.processes.append(Process(self.path(f"{name}.log"), *command, env={**os.environ, **(env or {})}))
        return self.processes[-1]

    def holdline(self, program, settings=None, token=""):
        """A proxy with two workers, which register with `token`: its public and its admin address, and the workers."""
        proxy = self.start("proxy", program, "serve", env={
            "HOLDLINE_SERVER__LISTEN": '["127.0.0.1:0"]', "HOLDLINE_ADMIN__LISTEN": "127.0.0.1:0",
            "HOLDLINE_LOG__FORMAT": "json", **(settings or {})})
        public, admin = (proxy.wait_for(rf'"listener":"{name}","address":"([^"]+)"') for name in ("public", "admin"))
        env = {"HOLDLINE_TOKEN": token} if token else None
        workers = [self.start(name, program, "worker", "--register", f"http://{admin}", "--id", name, env=env)
                   for name in WORKERS]
        for worker in workers:
            worker.wait_for("(registered)")
        return public, admin, workers


def verdict(name, check):
    """The exit status of a check, which says what it found wrong."""
    try:
        check()
    except (AssertionError, OSError, RuntimeError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
