#!/usr/bin/env python3
"""Other people's probes and clients look at Holdline's public edge.

  sslyze  what it finds of TLS: versions, ciphers, curves, renegotiation, compression, early data, known holes
  curl    requests over HTTP/2 and HTTP/1.1: downloads, uploads, a HEAD, one refused, and an upload to a worker that answers 413
          and closes before it has read it
  httpx   many requests at once on one connection of HTTP/2, uploads among them
  h2load  a thousand requests, a hundred at once on each of ten connections: each is answered
The last line is `N passed, N failed`; `--self-check` has HTTP/2 switched off, which must fail.

Run it as: .cache/probes/bin/python tests/probes/run.py [--holdline PATH] [--runs sslyze,curl,httpx,h2load]
"""

import argparse
import asyncio
import json
import pathlib
import shutil
import ssl
import sys
import tempfile

import httpx

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from secured import make_certificate, pair  # noqa: E402
from serving import BINARY, Holdline, Verdict, listening  # noqa: E402

NAME = "localhost"
PATIENCE_SECONDS = 120
DOWNLOAD = "/api/sessions/s1/download"
DOWNLOAD_BYTES = 2_700_000
REQUESTS = 1000
CONFIG = """
[server]
listen = ["127.0.0.1:0"]
http2 = {http2}
tls.listen = ["127.0.0.1:0"]
tls.certificates = [{pair}]
[admin]
listen = "127.0.0.1:0"
[limits]
address_rate = 0
[log]
format = "json"
[[pools]]
name = "default"
[[pools]]
name = "impatient"
[[pools.backends]]
url = "ws://127.0.0.1:{impatient}"
[[routes]]
name = "impatient"
path = "/impatient"
pool = "impatient"
[[routes]]
name = "rest"
path = "/{{*rest}}"
pool = "default"
"""
EARLY = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large"
UPLOADS = 10
CURVES = {"X25519", "secp256r1", "secp384r1"}
AEAD = ("_GCM_SHA256", "_GCM_SHA384", "_CHACHA20_POLY1305_SHA256")
SCANS = "sslv2 sslv3 tlsv1 tlsv1_1 tlsv1_2 tlsv1_3 compression early_data openssl_ccs heartbleed robot reneg ems elliptic_curves"


async def impatient(reader, writer):
    """A worker that answers an upload by its head, and closes with the rest unread."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(EARLY)
    await writer.drain()
    writer.close()


class Stage:
    """Holdline with a worker, and where clients come by TLS."""

    def __init__(self, options, directory, http2=True):
        self.options, self.home, self.http2 = options, pathlib.Path(directory), http2

    async def __aenter__(self):
        self.cert, key = make_certificate(self.home, "own", f"DNS:{NAME}", "IP:127.0.0.1")
        self.impatient = await asyncio.start_server(impatient, "127.0.0.1", 0)
        port = self.impatient.sockets[0].getsockname()[1]
        config = CONFIG.format(pair=pair(self.cert, key), http2=str(self.http2).lower(), impatient=port)
        self.holdline = await Holdline().start(self.options.holdline, config, self.home, listeners=3)
        self.worker, address = await listening(
            self.options.holdline, "worker", "--until-stdin-closes", stdin=asyncio.subprocess.PIPE
        )
        await self.holdline.register(address)
        self.at = f"{NAME}:{self.holdline.address['tls'].rsplit(':', 1)[1]}"
        return self

    async def __aexit__(self, *_):
        self.impatient.close()
        self.worker.kill()
        await self.worker.wait()


async def said_by(*command):
    """What a program says, and how it ends."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


async def sslyze(stage, verdict):
    file = stage.home / "sslyze.json"
    command = [sys.executable, "-m", "sslyze", f"--json_out={file}", "--mozilla_config=disable"]
    code, out, err = await said_by(*command, *(f"--{scan}" for scan in SCANS.split()), stage.at)
    verdict.case(code == 0, f"sslyze ends with {code}: {out[-500:]} {err[-500:]}")
    scan = json.loads(file.read_text())["server_scan_results"][0]["scan_result"]
    found = {name: attempt["result"] for name, attempt in scan.items()}

    def suites(version):
        accepted = found[f"{version}_cipher_suites"]["accepted_cipher_suites"]
        return {suite["cipher_suite"]["name"] for suite in accepted}

    for old in ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"):
        verdict.told(not suites(old), f"sslyze: {old} is spoken with {suites(old) or 'nothing'}")
    weak = {name for name in suites("tls_1_2") if not (name.startswith("TLS_ECDHE_") and name.endswith(AEAD))}
    verdict.told(suites("tls_1_2") and not weak, f"sslyze: TLS 1.2 with forward secrecy and AEAD alone: {suites('tls_1_2')}")
    verdict.told(len(suites("tls_1_3")) == 3, f"sslyze: TLS 1.3 with {suites('tls_1_3')}")
    curves = {curve["name"] for curve in found["elliptic_curves"]["supported_curves"]}
    verdict.told(curves and curves <= CURVES, f"sslyze: curves {curves}")
    for scanned, field, wanted in [
        ("tls_compression", "supports_compression", False),
        ("tls_1_3_early_data", "supports_early_data", False),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", False),
        ("heartbleed", "is_vulnerable_to_heartbleed", False),
        ("session_renegotiation", "supports_secure_renegotiation", True),
        ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", False),
        ("tls_extended_master_secret", "supports_ems_extension", True),
    ]:
        verdict.told((found[scanned] or {}).get(field) == wanted, f"sslyze: {field} is {(found[scanned] or {}).get(field)}")
    verdict.told("NOT_VULNERABLE" in found["robot"]["robot_result"], f"sslyze: ROBOT {found['robot']['robot_result']}")


async def curl(stage, verdict):
    upload = stage.home / "upload"
    upload.write_bytes(b"u" * 3_000_000)
    for version, spoken in (("--http2", "2"), ("--http1.1", "1.1")):
        for what, arguments, expected in [
            ("a download", [DOWNLOAD], (200, DOWNLOAD_BYTES)),
            ("one in chunks", [f"{DOWNLOAD}?chunked=1"], (200, DOWNLOAD_BYTES)),
            ("a HEAD", [DOWNLOAD, "--head"], (200, None)),
            ("an upload that nothing reads", ["/echo-nothing", "--data-binary", f"@{upload}"], (405, None)),
            *([("an upload that its worker refuses", ["/impatient", "--data-binary", f"@{upload}"], (413, 9))] * UPLOADS),
            ("a path that goes up", ["/ws/../x", "--path-as-is"], (400, None)),
        ]:
            path, *more = arguments
            form = "%{http_version} %{http_code} %{size_download}"
            code, out, err = await said_by(
                "curl", "-sS", version, "--cacert", stage.cert, "-o", "/dev/null", "-w", form, *more, f"https://{stage.at}{path}"
            )
            answer = out.split()
            status, size = expected
            good = code == 0 and answer[:2] == [spoken, str(status)] and (size is None or answer[2] == str(size))
            verdict.told(good, f"curl {version}: {what}: {answer} {err.strip()}")


async def many(stage, verdict):
    trust = ssl.create_default_context(cafile=str(stage.cert))
    async with httpx.AsyncClient(http1=False, http2=True, verify=trust, timeout=PATIENCE_SECONDS) as client:
        asked = [client.get(f"https://{stage.at}{DOWNLOAD}") for _ in range(20)]
        asked += [client.get(f"https://{stage.at}/health") for _ in range(200)]
        answers = await asyncio.gather(*asked)
        refused = await client.post(f"https://{stage.at}/echo-nothing", content=b"u" * 3_000_000)
        uploads = [client.post(f"https://{stage.at}/impatient", content=b"u" * 3_000_000) for _ in range(UPLOADS)]
        early = {(answer.status_code, answer.text) for answer in await asyncio.gather(*uploads)}
    versions = {answer.http_version for answer in answers}
    good = all(answer.status_code == 200 for answer in answers) and versions == {"HTTP/2"}
    verdict.told(good, f"httpx: {len(answers)} answers by {versions}")
    verdict.told(refused.status_code == 405, f"httpx: an upload that nothing reads is answered {refused.status_code}")
    verdict.told(early == {(413, "too large")}, f"httpx: uploads that their worker refuses are answered {early}")
    sizes = {len(answer.content) for answer in answers[:20]}
    verdict.told(sizes == {DOWNLOAD_BYTES}, f"httpx: downloads of {sizes} bytes")


async def h2load(stage, verdict):
    program = shutil.which("h2load")
    code, out, err = await said_by(program, "-n", REQUESTS, "-c", 10, "-m", 100, f"https://{stage.at}/health")
    line = next((line for line in out.splitlines() if line.startswith("requests:")), out[-500:] + err[-500:])
    verdict.told(code == 0 and f"{REQUESTS} succeeded, 0 failed" in line, f"h2load: {line}")
    spoken = next((line for line in out.splitlines() if line.startswith("Application protocol:")), "none")
    verdict.told(spoken == "Application protocol: h2", f"h2load: {spoken}")
    ends = await stage.holdline.metric("http2_connection_ends_total", 'reason="protocol"')
    verdict.told(ends == 0, f"h2load: {ends} connections ended for what it did")


RUNS = {"sslyze": sslyze, "curl": curl, "httpx": many, "h2load": h2load}


async def judged(options, names, http2, verdict):
    with tempfile.TemporaryDirectory(prefix="holdline-probes-") as directory:
        async with Stage(options, directory, http2) as stage:
            for name in names:
                try:
                    await RUNS[name](stage, verdict)
                except Exception as error:  # one run that breaks off must not hide the others
                    verdict.case(False, f"{name}: {error!r}")
            await stage.holdline.stop(verdict)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--holdline", default=BINARY)
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--self-check", action="store_true")
    options = parser.parse_args()
    verdict = Verdict()
    if options.self_check:
        for name in ("curl", "httpx", "h2load"):
            without = Verdict()
            await judged(options, [name], False, without)
            verdict.told(without.failed > 0, f"{name} fails where HTTP/2 is off")
    else:
        await judged(options, options.runs.split(","), True, verdict)
    return verdict.end()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
