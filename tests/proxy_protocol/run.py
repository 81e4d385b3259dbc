#!/usr/bin/env python3
"""HAProxy and nginx really in front of Holdline, and both as its workers, with the PROXY protocol on both sides.

A client on an address of its own asks through HAProxy (`mode tcp`; send-proxy, send-proxy-v2, v2 with a checksum) or nginx
(`stream`; proxy_protocol on), and Holdline; the worker answers whom its own PROXY header named, and what X-Forwarded-For
said. The last line is `N passed, N failed`.
"""

import argparse
import asyncio
import http.client
import pathlib
import shutil
import socket
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CLIENT = "127.0.0.5"
PATIENCE_SECONDS = 20
FRONTS = {"v1": "send-proxy", "v2": "send-proxy-v2", "v2 with a checksum": "send-proxy-v2 proxy-v2-options crc32c"}
STREAM_MODULE = ROOT / ".cache/nginx/usr/lib/nginx/modules/ngx_stream_module.so"

HOLDLINE = """
[server]
listen = ["127.0.0.1:{public}"]
proxy_protocol = "require"
trusted_proxies = ["127.0.0.1/32"]
[admin]
listen = "127.0.0.1:{admin}"
[[pools]]
name = "nginx"
send_proxy = "v1"
[[pools.backends]]
url = "ws://127.0.0.1:{nginx}"
[[pools]]
name = "haproxy"
send_proxy = "v2"
[[pools.backends]]
url = "ws://127.0.0.1:{haproxy}"
[[routes]]
name = "nginx"
path = "/nginx"
pool = "nginx"
[[routes]]
name = "haproxy"
path = "/haproxy"
pool = "haproxy"
"""

# Health checks of the front are connections of its own: LOCAL, or UNKNOWN.
FRONT = """
listen front{number}
    mode tcp
    bind 127.0.0.1:{port}
    server holdline 127.0.0.1:{public} {send} check inter 200ms check-send-proxy
"""

HAPROXY = """
defaults
    timeout connect 5s
    timeout client 5s
    timeout server 5s
{fronts}
frontend worker
    mode http
    bind 127.0.0.1:{haproxy} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[req.hdr(x-forwarded-for)]"
"""

NGINX = """
load_module {module};
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{}}
stream {{
    server {{
        listen 127.0.0.1:{stream};
        proxy_pass 127.0.0.1:{public};
        proxy_protocol on;
    }}
}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    server {{
        listen 127.0.0.1:{nginx} proxy_protocol;
        location / {{ return 200 "$proxy_protocol_addr $http_x_forwarded_for"; }}
    }}
}}
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ask(port, path):
    """The answer for a client on an address of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5, source_address=(CLIENT, 0))
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


async def answered(port, path):
    """The first answer, once all of them are up."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while True:
        try:
            return await asyncio.to_thread(ask, port, path)
        except (OSError, http.client.HTTPException):
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.05)  # a state that can only be looked at


def count(admin, result):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/metrics", timeout=5) as answer:
        lines = [it for it in answer.read().decode().splitlines() if it.startswith("holdline_proxy_headers_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if f'result="{result}"' in line)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--holdline", default=str(ROOT / "target/debug/holdline"))
    options = parser.parse_args()
    ports = {name: free_port() for name in ("public", "admin", "nginx", "haproxy")}
    fronts = {f"HAProxy {name}": free_port() for name in FRONTS}
    shown = "".join(
        FRONT.format(number=at, port=port, send=send, **ports)
        for at, (port, send) in enumerate(zip(fronts.values(), FRONTS.values()))
    )
    fronts["nginx v1"] = ports["stream"] = free_port()
    tools = {name: shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("haproxy", "nginx")}
    good = []
    with tempfile.TemporaryDirectory(prefix="holdline-proxy-protocol-") as directory:
        home = pathlib.Path(directory)
        (home / "proxy.toml").write_text(HOLDLINE.format(**ports))
        (home / "haproxy.cfg").write_text(HAPROXY.format(fronts=shown, **ports))
        (home / "nginx.conf").write_text(NGINX.format(directory=directory, module=STREAM_MODULE, **ports))
        commands = [
            [options.holdline, "serve", "-c", home / "proxy.toml"],
            [tools["haproxy"], "-q", "-f", home / "haproxy.cfg"],
            [tools["nginx"], "-p", directory, "-c", home / "nginx.conf"],
        ]
        quiet = asyncio.subprocess.DEVNULL
        processes = [await asyncio.create_subprocess_exec(*map(str, it), stderr=quiet) for it in commands]
        try:
            for front, port in fronts.items():
                for worker in ("nginx", "haproxy"):
                    said = await answered(port, f"/{worker}")
                    good.append(said == f"{CLIENT} {CLIENT}")
                    print(f"{'ok  ' if good[-1] else 'FAIL'} {front}, then {worker}: {said!r}")
            for result in ("accepted", "local"):
                seen = await asyncio.to_thread(count, ports["admin"], result)
                good.append(seen > 0)
                print(f"{'ok  ' if good[-1] else 'FAIL'} {seen:.0f} headers {result}")
            bad = await asyncio.to_thread(count, ports["admin"], "malformed")
            good.append(bad == 0)
        finally:
            for process in processes:
                process.terminate()
                await process.wait()
    print(f"{good.count(True)} passed, {good.count(False)} failed")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
