"""Certificates of an authority that lives as long as a test, and a server that shows one."""

from __future__ import annotations

import contextlib
import datetime as dt
import http.server
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """Who signs certificates.

    Attributes:
        folder: where they are put.
        key: the authority's own.
        certificate: its own.
    """

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, folder: Path) -> Authority:
        """Make an authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        made = (
            _builder(name, name, key, days=30)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        return cls(folder, key, made)

    def context(self) -> ssl.SSLContext:
        """Return what a client trusts that trusts this authority."""
        context = ssl.create_default_context()
        context.load_verify_locations(cadata=self.pem().decode())
        return context

    def pem(self) -> bytes:
        """Return its certificate, for a file of trusted authorities."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        host: str,
        *,
        days: int = 30,
        age: int = 60,
        self_signed: bool = False,
        names: tuple[str, ...] = (),
    ) -> Path:
        """Return a file with a certificate for ``host`` and ``names``, and its key.

        With negative ``days`` it has expired, with a negative ``age`` it is not yet valid.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        issuer = subject if self_signed else self.certificate.subject
        alternatives = [x509.DNSName(name) for name in (host, *names)]
        made = (
            _builder(subject, issuer, key, days=days, age=age)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .sign(key if self_signed else self.key, hashes.SHA256())
        )
        path = self.folder / f"{host}-{days}-{age}-{self_signed}-{len(names)}.pem"
        path.write_bytes(
            made.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return path


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    days: int,
    age: int = 60,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - age * _DAY)
        .not_valid_after(now + days * _DAY)
    )


@contextlib.contextmanager
def serving(certificate: Path, *, version: ssl.TLSVersion | None = None) -> Iterator[int]:
    """Run an HTTPS server that answers 204, with any or one version of TLS; yield its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    # The handshake is the handler's: a client that refuses must not end the server.
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
