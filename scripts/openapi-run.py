#!/usr/bin/env python3
"""Runs Schemathesis against a Holdline with tokens, a worker and a static backend; by scripts/openapi-check."""

import hashlib
import os
import subprocess
import sys

from processes import Process

HOLDLINE = os.environ["HOLDLINE_BIN"]
TOKEN = "operator-token"
CHECKS = [
    # An undocumented 5xx as well; a documented 503 is what readiness is for.
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "ignored_auth",
]
# What can be found in well under a minute; the seed is the same each time, so that a green run stays green.
EXAMPLES_MAX = 12
SEED = "1"


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def main(work, arguments):
    seed = arguments[1] if arguments[:1] == ["--seed"] else SEED
    tokens, config = os.path.join(work, "tokens"), os.path.join(work, "proxy.toml")
    write(tokens, f"operator {hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    write(config, f"""
[server]
listen = ["127.0.0.1:0"]
[admin]
listen = "127.0.0.1:0"
tokens_file = {tokens!r}
state_file = {os.path.join(work, "backends.json")!r}
[log]
format = "json"
[[pools]]
name = "default"
[[pools.backends]]
id = "fixed"
url = "ws://127.0.0.1:1"
""")
    proxy = Process(os.path.join(work, "proxy.log"), HOLDLINE, "serve", "-c", config)
    try:
        admin = proxy.wait_for(r'"listener":"admin","address":"([^"]+)"')
        run = subprocess.run([
            os.path.abspath(".cache/openapi/bin/schemathesis"), "run", f"http://{admin}/openapi.json",
            # another process would take over, which nothing here would end
            "--exclude-operation-id", "startUpgrade",
            "--header", f"Authorization: Bearer {TOKEN}", "--checks", ",".join(CHECKS), "--seed", seed,
            "--max-examples", str(EXAMPLES_MAX), "--phases", "coverage,fuzzing", "--request-timeout", "10",
            "--continue-on-failure", "--warnings", "off", "--no-shrink", "--generation-database", "none",
        ], env={**os.environ, "SCHEMATHESIS_HOOKS": os.path.abspath("tests/openapi/hooks.py"),
                "PYTHONDONTWRITEBYTECODE": "1"}, cwd=work, check=False)
        proxy.end()
        with open(proxy.log, encoding="utf-8") as file:
            wrong = [line for line in file if '"level":"ERROR"' in line or "panicked" in line]
        assert not wrong, wrong
        return run.returncode
    finally:
        if proxy.child.poll() is None:
            proxy.child.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
