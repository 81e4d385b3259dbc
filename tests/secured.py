"""Certificates of openssl, and what a client by TLS is shown, for runs on asyncio."""

import asyncio
import ssl
import subprocess


def make_certificate(home, name, *names):
    """A certificate that signs itself for these names (`DNS:a.test`), and its key."""
    cert, key = home / f"{name}.pem", home / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", key, "-out", cert, "-subj", f"/CN={name}", "-addext", "subjectAltName=" + ",".join(names)],
        check=True, capture_output=True,
    )
    return cert, key


def pair(cert, key):
    """How `server.tls.certificates` names the two."""
    return f'{{ cert = "{cert}", key = "{key}" }}'


def unsuspecting():
    """A client that believes each certificate; what it is shown, the run looks at."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def shown(address, name, context):
    """The certificate that a new client is shown which asks for `name`; a handshake proves that its key fits."""
    host, port = address.rsplit(":", 1)
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=name, ssl_handshake_timeout=120)
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return certificate


def first_of(file):
    """The first certificate of a file, which is the one for clients."""
    end = "-----END CERTIFICATE-----\n"
    return ssl.PEM_cert_to_DER_cert(file.read_text().split(end)[0] + end)
