#!/usr/bin/env python3
"""Runs what the documents show, by scripts/docs-check: each block of commands, each configuration, and of the commands amid the
text whether the program takes them.

A block is run as it is written, in a directory of its own, by a Holdline with two workers and an open conversation; the addresses,
ids and directories that stand in it are put for those of the run. A comment above a block says why it is not run here:

    <!-- not run: needs a cluster -->
    <!-- run by scripts/demo-check -->

What is left out is counted, and said with its reason.
"""

import collections
import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

from processes import WAIT_S, Stage

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOLDLINE = os.path.abspath(os.environ["HOLDLINE_BIN"])
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "clients/js/README.md",
             "clients/python/README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
COMMANDS = ("sh", "console")
# Pages whose programs and requests scripts/workers and scripts/clients run, and the one whose nginx scripts/deploy-check does.
RUN_ELSEWHERE = {
    "docs/worker-guide.md": ("js", "python", "http"), "clients/js/README.md": ("js", "jsx"),
    "clients/python/README.md": ("python",), "docs/operations.md": ("nginx",),
}
# What is shown and not run by a reader: what goes over the wire, and drawings.
SHOWN = ("http", "text")
NGINX = """
pid {work}/nginx.pid;
error_log stderr;
events {{}}
http {{ access_log off; server {{ listen unix:{work}/nginx.sock;
{text}
}} }}
"""
BLOCK = re.compile(r"(?:^ *<!-- (not run: [^\n]+?|run by scripts/[^\n]+?) -->\n)?^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
INLINE = re.compile(r"`(holdline [a-z][^`\n]*)`")
CONFIG = """
[server]
listen = ["127.0.0.1:0"]
tls.listen = ["127.0.0.1:0"]
tls.certificates = [{{ cert = "{etc}/tls.pem", key = "{etc}/tls.key" }}]
[admin]
listen = "127.0.0.1:0"
[resume]
keys_file = "{etc}/world.keys"
[log]
format = "json"
[[pools]]
name = "default"
[[pools]]
name = "own"
[[routes]]
name = "default"
path = "/{{*path}}"
[[workers]]
name = "api"
pool = "own"
command = ["{holdline}", "worker", "--listen", "127.0.0.1:{{port}}"]
stop_timeout = "1s"
"""
# What starts and goes on: it runs beside the rest of its block once it has said this.
SHIM = """#!/usr/bin/env bash
case "$1" in
serve) [[ " $* " != *" --help "* ]] || exec {holdline} "$@"
  said=$(mktemp -p "$RUN")
  HOLDLINE_LOG__FORMAT=json {holdline} "$@" >/dev/null 2>"$said" </dev/null & echo $! >>"$RUN/pids"
  until grep -q '"listener":"admin"' "$said"; do kill -0 $! 2>/dev/null || {{ cat "$said" >&2; exit 1; }}; sleep 0.05; done ;;
# what goes on for ever is looked at for two seconds
*) if [[ " $* " == *" --follow "* || " $* " == *" --watch "* ]]; then timeout 2 {holdline} "$@" || [ $? = 124 ]; else exec {holdline} "$@"; fi ;;
esac
"""
CURL = """#!/bin/sh
exec {curl} --fail-with-body --silent --show-error --max-time 30 "$@"
"""


class Block:
    def __init__(self, document, line, marker, indent, language, text):
        self.document, self.line, self.marker, self.language = document, line, marker, language
        self.text = "\n".join(line.removeprefix(indent) for line in text.split("\n"))

    def __str__(self):
        return f"{self.document}:{self.line}"


def blocks(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text[: found.start(4)].count("\n")
        yield Block(document, line, found[1], found[2], found[3], found[4])


class World:
    """A Holdline with two workers and one open conversation, and what a machine has in /etc."""

    def __init__(self, work):
        self.stage = Stage(str(work))
        self.etc, self.bin, self.run = (work / name for name in ("etc", "bin", "run"))
        for directory in (self.etc, self.bin, self.run, work / "completions", work / "man"):
            directory.mkdir()
        self.work, self.client = work, None

    def __enter__(self):
        self.fill()
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.client:
            self.client.close()
        self.end_strays()
        self.stage.__exit__()

    def end_strays(self):
        """Ends what blocks have left running."""
        pids = self.run / "pids"
        for pid in pids.read_text(encoding="utf-8").split() if pids.exists() else []:
            try:
                os.kill(int(pid), 9)
            except ProcessLookupError:
                pass
        pids.unlink(missing_ok=True)

    def fill(self):
        """The files that configurations name, the programs that blocks call, and what runs."""
        for name in ("tls", "admin", "client", "app", "www"):
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                            "30", "-keyout", self.etc / f"{name}.key", "-out", self.etc / f"{name}.pem", "-subj", "/CN=localhost",
                            "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"], check=True, capture_output=True)
        for name in ("workers", "clients", "operators"):
            shutil.copy(self.etc / "tls.pem", self.etc / f"{name}.pem")
        self.revoke_none()
        (self.etc / "tokens").write_text(f"worker {'a' * 64} w1\n", encoding="utf-8")
        (self.etc / "hooks.secret").write_text("a" * 64, encoding="utf-8")
        (self.etc / "tickets").write_text("b" * 64 + "\n", encoding="utf-8")
        for file in self.etc.iterdir():
            file.chmod(0o600)
        (self.etc / ".well-known" / "acme-challenge").mkdir(parents=True)
        programs = {"holdline": SHIM, "curl": CURL, "uvicorn": "#!/bin/sh\n"}
        for name, text in programs.items():
            path = self.bin / name
            path.write_text(text.format(holdline=shlex.quote(HOLDLINE), curl=shutil.which("curl")), encoding="utf-8")
            path.chmod(0o755)

    def revoke_none(self):
        """A list of revoked certificates, without any, of the authority of clients."""
        (self.etc / "index.txt").touch()
        (self.etc / "number").write_text("01\n", encoding="utf-8")
        config = self.etc / "ca.cnf"
        config.write_text(f"[ca]\ndefault_ca = a\n[a]\ndatabase = {self.etc}/index.txt\ndefault_md = sha256\n"
                          f"default_crl_days = 30\ncrlnumber = {self.etc}/number\n", encoding="utf-8")
        subprocess.run(["openssl", "ca", "-config", config, "-gencrl", "-keyfile", self.etc / "tls.key", "-cert",
                        self.etc / "clients.pem", "-out", self.etc / "clients.crl"], check=True, capture_output=True)

    def start(self):
        subprocess.run([HOLDLINE, "keys", "new", "--out", self.etc / "world.keys"], check=True, capture_output=True)
        config = self.work / "world.toml"
        config.write_text(CONFIG.format(etc=self.etc, holdline=HOLDLINE), encoding="utf-8")
        proxy = self.stage.start("proxy", HOLDLINE, "serve", "-c", str(config))
        self.public = proxy.wait_for(r'"listener":"public","address":"([^"]+)","tls":false')
        self.secure = proxy.wait_for(r'"listener":"public","address":"([^"]+)","tls":true')
        self.admin = proxy.wait_for(r'"listener":"admin","address":"([^"]+)"')
        workers = [self.stage.start(name, HOLDLINE, "worker", "--name", name) for name in ("worker-1", "worker-2")]
        self.workers = [worker.wait_for(r'"listening":"([^"]+)"') for worker in workers]

    def ask(self, method, path, body=None):
        request = urllib.request.Request(f"http://{self.admin}{path}", body, {"Content-Type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.read().decode()

    def wait_for(self, path, word, count):
        """The list at a path, as soon as a word stands in it so often."""
        deadline = time.monotonic() + WAIT_S
        while (said := self.ask("GET", path)).count(word) != count:
            assert time.monotonic() < deadline, f"{path}: not {count} times {word}: {said}"
            time.sleep(0.05)
        return said

    def prepare(self):
        """Takes back what the block before may have changed: both workers are there, and a conversation is open."""
        self.ask("DELETE", "/v1/drain")
        for other in re.findall(r'"id":"(b-[^"]+)"', self.ask("GET", "/v1/backends")):
            self.ask("DELETE", f"/v1/backends/{other}")
        for n, address in enumerate(self.workers, 1):
            self.ask("PUT", f"/v1/backends/worker-{n}", f'{{"url": "ws://{address}", "state": "ready", "lease": "60s"}}'.encode())
        self.wait_for("/v1/backends?pool=default", '"eligible":true', 2)
        if self.client:
            self.client.close()
        self.wait_for("/v1/pipes", '"opened_at"', 0)
        host, port = self.public.split(":")
        self.client = socket.create_connection((host, int(port)), timeout=WAIT_S)
        self.client.sendall(b"GET /ws/s1/echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        assert b" 101 " in self.client.recv(4096), "no conversation"
        self.pipe = re.search(r'"id":"([^"]+)"', self.wait_for("/v1/pipes", '"opened_at"', 1))[1]

    def of_here(self, text):
        """The text with the addresses, ids and directories of this world."""
        pairs = {
            "target/release/holdline": "holdline", "target/debug/holdline": "holdline",
            "127.0.0.1:9000": self.admin, "localhost:9000": self.admin, "127.0.0.1:8000": self.public,
            "https://localhost/": f"https://localhost:{self.secure.split(':')[1]}/",
            "add ws://127.0.0.1:7001": "add ws://127.0.0.1:4", "127.0.0.1:7001": self.workers[0], "127.0.0.1:7002": "127.0.0.1:1", "127.0.0.1:9001": "127.0.0.1:2",
            "127.0.0.1:9002": "127.0.0.1:3", "/etc/bash_completion.d": str(self.work / "completions"),
            "/etc/letsencrypt/live/example.org/fullchain.pem": f"{self.etc}/tls.pem",
            "/etc/letsencrypt/live/example.org/privkey.pem": f"{self.etc}/tls.key",
            "/usr/local/share/man/man1": str(self.work / "man"), "/etc/holdline": str(self.etc),
            "--cacert tls.pem": f"--cacert {self.etc}/tls.pem", "/pipes/PIPE": f"/pipes/{self.pipe}", " ID ": f" {self.pipe} ",
        }
        for written, here in pairs.items():
            text = text.replace(written, here)
        return text

    def try_block(self, block):
        """What is wrong with a block of commands, if anything is."""
        self.prepare()
        directory = self.run / f"{block.document.replace('/', '-')}-{block.line}"
        directory.mkdir()
        shutil.copy(self.work / "world.toml", directory / "proxy.toml")
        env = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}", "RUN": str(self.run), "HOME": str(directory),
               "HOLDLINE_ADMIN": f"http://{self.admin}"}
        ours = {"HOLDLINE_SERVER__LISTEN": '["127.0.0.1:0"]', "HOLDLINE_SERVER__TLS__LISTEN": "[]",
                "HOLDLINE_ADMIN__LISTEN": "127.0.0.1:0"}
        text = self.of_here(block.text)
        if re.search(r"holdline serve|holdline check", text):
            env |= ours
        try:
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=directory, env=env, timeout=WAIT_S, check=False,
                                  capture_output=True, text=True, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return f"not over in {WAIT_S} s"
        self.end_strays()
        return None if done.returncode == 0 else f"exit {done.returncode}: {(done.stdout + done.stderr)[-1500:]}"

    def try_config(self, block):
        """What `holdline check` has against a configuration."""
        path = self.run / "block.toml"
        path.write_text(self.of_here(block.text).replace("/var/www", str(self.etc)), encoding="utf-8")
        env = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        done = subprocess.run([HOLDLINE, "check", "-c", path], capture_output=True, text=True, check=False, env=env)
        return None if done.returncode == 0 else done.stderr.strip()


    def try_nginx(self, block):
        """What nginx has against a part of a server."""
        path = self.run / "nginx.conf"
        path.write_text(NGINX.format(work=self.run, text=block.text), encoding="utf-8")
        return failure([shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin"), "-t", "-q", "-p", self.run, "-c", path])

    def try_js(self, block):
        """What Node has against a program for a browser, which it reads and does not run."""
        path = self.run / "block.mjs"
        path.write_text(block.text, encoding="utf-8")
        return failure(["node", "--check", path])


def failure(command):
    """What a program says that fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=WAIT_S)
    return None if done.returncode == 0 else (done.stdout + done.stderr).strip()


def as_asked(command):
    """A command amid the text with `--help` behind it, which has the program read all before it and do nothing."""
    command = re.sub(r"\s*\[[^\]]*\]", "", command).replace("…", "x").split(" | ")[0].split(" > ")[0].strip()
    words = [{"N": "1000", "TIME": "1m"}.get(word, word) for word in shlex.split(command)]
    # What stands behind these belongs to another program.
    for end in ("--", "run"):
        if end in words:
            words = words[: words.index(end) + (end == "run")]
    return [*words, "--help"]


def try_inline(command):
    try:
        words = as_asked(command)
    except ValueError as error:
        return str(error)
    done = subprocess.run([HOLDLINE, *words[1:]], capture_output=True, text=True, check=False, timeout=WAIT_S)
    return None if done.returncode == 0 else (done.stderr.strip().split("\n") or [""])[0]


class Verdict:
    def __init__(self):
        self.done, self.left, self.wrong = collections.Counter(), [], []

    def take(self, kind, where, problem):
        self.done[kind] += 1
        if problem:
            self.wrong.append(f"{where}: {problem}")

    def leave(self, block, why):
        by = re.match(r"run by (scripts/[\w-]+)", why)
        if by and not (ROOT / by[1]).exists():
            self.wrong.append(f"{block}: there is no {by[1]}")
        self.left.append(f"{block}: {why}")

    def end(self):
        for line in self.left:
            print(f"left out: {line}")
        for line in self.wrong:
            print(f"FAIL {line}")
        print(f"docs-check: {self.done['block']} blocks of commands run, {len(self.left)} left out; {self.done['config']} configurations "
              f"and {self.done['program']} programs checked, {self.done['elsewhere']} programs run by other scripts; "
              f"{self.done['inline']} commands amid the text taken; {len(self.wrong)} wrong")
        return 1 if self.wrong else 0


def check_document(document, world, verdict):
    looks = {"toml": ("config", world.try_config), "nginx": ("config", world.try_nginx), "js": ("program", world.try_js),
             **{language: ("block", world.try_block) for language in COMMANDS}}
    for block in blocks(document):
        if block.language in RUN_ELSEWHERE.get(document, ()):
            verdict.done["elsewhere"] += 1
        elif block.marker:
            verdict.leave(block, block.marker)
        elif block.language in looks:
            kind, look = looks[block.language]
            verdict.take(kind, block, look(block))
        elif block.language not in SHOWN:
            verdict.wrong.append(f"{block}: a block of `{block.language}`, which nothing here runs")
    text = BLOCK.sub("", (ROOT / document).read_text(encoding="utf-8"))
    for command in dict.fromkeys(INLINE.findall(text)):
        verdict.take("inline", f"{document}: `{command}`", try_inline(command))


def main(work, documents):
    verdict = Verdict()
    with World(pathlib.Path(work)) as world:
        world.prepare()
        for document in documents or DOCUMENTS:
            check_document(document, world, verdict)
    return verdict.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
