"""What every Python user has in common: it says something numbered ten times a second while its client lets it, and records
what it said, what it heard, when its client told it of a break, and what it heard that cannot belong to its conversation."""

import json
import sys
import threading
import time

RHYTHM_SECONDS = 0.1
over = threading.Event()


def record(what, **fields):
    sys.stdout.write(json.dumps({"at": time.time() * 1000, "what": what, **fields}) + "\n")
    sys.stdout.flush()


def heard(n):
    record("hear", n=n)


def told(text):
    record("told", text=str(text))


def wrong(text):
    record("wrong", text=str(text))


def listen_for_the_end():
    def wait():
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait, daemon=True).start()


class Numbers:
    """The numbers of what is said."""

    def __init__(self):
        self.n = 0

    def next(self):
        self.n += 1
        record("say", n=self.n)
        return self.n
