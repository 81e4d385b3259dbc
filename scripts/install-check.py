"""From an unpacked Debian with a .deb in it to a client whose socket outlives its worker; by scripts/install-check."""

import os
import re
import socket
import subprocess
import sys
import time

MINUTE_S = 60
WAIT_S = 30


def main():
    root = sys.argv[1]
    began = time.monotonic()

    def inside(*command, **options):
        return subprocess.run(["chroot", root, *command], check=True, text=True, capture_output=True, **options).stdout

    def said(what):
        print(f"install-check: {time.monotonic() - began:4.1f} s  {what}", flush=True)

    try:
        inside("dpkg", "-i", "/holdline.deb")
    except subprocess.CalledProcessError as error:
        sys.exit(f"install-check: {error.stdout}{error.stderr}")
    said(inside("holdline", "--version").strip())
    assert "ok" in inside("holdline", "check", "/etc/holdline/proxy.toml")
    for path in [
        "usr/share/man/man1/holdline.1.gz",
        "usr/share/man/man1/holdline-ctl-pipes.1.gz",
        "usr/share/bash-completion/completions/holdline",
        "usr/share/zsh/vendor-completions/_holdline",
        "usr/share/fish/vendor_completions.d/holdline.fish",
        "usr/share/holdline/holdline.schema.json",
        "usr/lib/systemd/system/holdline.service",
        "usr/lib/sysusers.d/holdline.conf",
    ]:
        assert os.path.exists(os.path.join(root, path)), path
    said("installed, and its configuration passes its own check")

    with Processes(root) as processes:
        workers = [processes.start("worker", "--listen", "127.0.0.1:0") for _ in range(2)]
        ports = [processes.port(worker) for worker in workers]
        to = [argument for port in ports for argument in ("--to", f"ws://127.0.0.1:{port}")]
        proxy = processes.start(
            "serve", *to, "--listen", "127.0.0.1:0", HOLDLINE_ADMIN__LISTEN="127.0.0.1:0", HOLDLINE_LOG__FORMAT="json"
        )
        public = processes.wait(proxy, r'"address":"127\.0\.0\.1:(\d+)"[^\n]*"listener":"public"|"listener":"public"[^\n]*"address":"127\.0\.0\.1:(\d+)"')
        admin = processes.wait(proxy, r'"address":"127\.0\.0\.1:(\d+)"[^\n]*"listener":"admin"|"listener":"admin"[^\n]*"address":"127\.0\.0\.1:(\d+)"')
        client = Client(int(public))
        client.exchange("hello")
        said("a client has its answer")
        pipes = inside("holdline", "ctl", "--admin", f"http://127.0.0.1:{admin}", "pipes", "--json")
        on = int(re.search(r'"backend":"default-(\d)"', pipes).group(1)) - 1
        workers[on].child.kill()
        client.exchange("still here")
        said(f"worker {on + 1} was killed, and the same socket has its answer from the other one")
    seconds = time.monotonic() - began
    assert seconds < MINUTE_S, f"{seconds:.0f} s"
    print("1 passed, 0 failed")


class Process:
    def __init__(self, child, log):
        self.child = child
        self.log = log


class Processes:
    """`holdline` in the other root; each ends with the block."""

    def __init__(self, root):
        self.root = root
        self.all = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.all):
            process.child.kill()
            process.child.wait()

    def start(self, *arguments, **environment):
        log = os.path.join(self.root, f"{len(self.all)}.log")
        with open(log, "wb") as file:
            command = ["chroot", self.root, "holdline", *arguments]
            child = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **environment})
        self.all.append(Process(child, log))
        return self.all[-1]

    def wait(self, process, pattern):
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with open(process.log, encoding="utf-8") as file:
                text = file.read()
            if found := re.search(pattern, text):
                return next(group for group in found.groups() if group)
            assert process.child.poll() is None, text
            time.sleep(0.02)
        raise AssertionError(f"no {pattern}: {text}")

    def port(self, worker):
        return self.wait(worker, r"127\.0\.0\.1:(\d+)")


class Client:
    """A WebSocket client that must never be closed."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(WAIT_S)
        head = f"GET /ws/s1/echo HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.socket.sendall((head + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
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


main()
