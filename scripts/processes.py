"""Child processes whose lines can be waited for, for the scripts that look at running software."""

import re
import subprocess
import time

WAIT_S = 60


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
