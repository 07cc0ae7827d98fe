"""nginx and Caddy with the files of ``deploy/`` in front of an API, from Debian's packages where they are installed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3

from tests import certificates, children
from tests.e2e.stack import free_port

DEPLOY = Path(__file__).parents[1] / "deploy"
#: The host that the files name.
HOST = "ai.example.com"
PREFIX = "/longlook"
KINDS = ("nginx", "caddy")
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
_MAIN = """\
daemon off;
{user}
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/bodies;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/longlook.conf;
}}
"""


@dataclass(frozen=True)
class Proxy:
    """A running reverse proxy.

    Attributes:
        kind: ``nginx`` or ``caddy``.
        url: where it listens, with the path prefix.
        context: trusts its certificate, which is for :data:`HOST`.
    """

    kind: str
    url: str
    context: ssl.SSLContext

    def client(self, *, source: str = "127.0.0.1") -> urllib3.PoolManager:
        """Return a client that connects from the address ``source``."""
        return urllib3.PoolManager(
            retries=False,
            timeout=60,
            ssl_context=self.context,
            server_hostname=HOST,
            assert_hostname=HOST,
            source_address=(source, 0),
            headers={"Host": HOST},
        )


@contextlib.contextmanager
def running(kind: str, api: str, folder: Path, *, prefix: bool = False) -> Iterator[Proxy]:
    """Run ``nginx`` or ``caddy`` in front of the API at the URL ``api``; skip the test where it is not installed.

    The file of ``deploy/`` is changed only in its addresses and certificates. ``prefix`` selects its other variant.
    """
    program = shutil.which(kind, path=_PATH)
    if program is None:
        pytest.skip(f"{kind} is not installed (Debian: {kind})")
    authority = certificates.Authority.make(folder)
    certificate = authority.issue(HOST)
    backend, port = urlsplit(api).netloc, free_port()
    written = _nginx if kind == "nginx" else _caddy
    command = written(folder, backend, port, certificate, prefix=prefix)
    process = children.spawn(
        ["env", f"XDG_CONFIG_HOME={folder}", program, *command],
        folder=folder,
        at_death=signal.SIGTERM,
    )
    proxy = Proxy(kind, f"https://127.0.0.1:{port}{PREFIX if prefix else ''}", authority.context())
    try:
        children.wait_until(lambda: _answers(proxy), process, log=folder / "log")
        yield proxy
    finally:
        children.stop(process, signal.SIGTERM)


def _nginx(folder: Path, backend: str, port: int, certificate: Path, *, prefix: bool) -> list[str]:
    """Write the configuration; return the arguments."""
    text = (DEPLOY / "nginx.conf").read_text()
    if prefix:
        text = _variant(text, "    location / {", "    # location ")
    text = _changed(text, "127.0.0.1:8700", backend)
    text = _changed(text, "listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    text = _changed(text, f"/etc/ssl/certs/{HOST}.pem", str(certificate))
    text = _changed(text, f"/etc/ssl/private/{HOST}.key", str(certificate))
    (folder / "longlook.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user=user))
    return ["-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]


def _caddy(folder: Path, backend: str, port: int, certificate: Path, *, prefix: bool) -> list[str]:
    """Write the configuration; return the arguments."""
    text = (DEPLOY / "Caddyfile").read_text()
    if prefix:
        text = _variant(text, "\thandle {", "\t# handle_path ")
    text = _changed(text, "127.0.0.1:8700", backend)
    site = f"{HOST}:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate} {certificate}"
    text = _changed(text, f"{HOST} {{", site)
    options = "{\n\tadmin off\n\tauto_https disable_redirects\n"
    options += f"\tstorage file_system {folder}/storage\n}}\n"
    (folder / "Caddyfile").write_text(options + text)
    return ["run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


def _changed(text: str, old: str, new: str) -> str:
    """Return ``text`` with ``new`` in place of ``old``, which it has outside comments."""
    lines = [
        line if line.lstrip().startswith("#") else line.replace(old, new)
        for line in text.splitlines()
    ]
    assert "\n".join(lines) != text.rstrip("\n"), f"the file does not have {old!r}"
    return "\n".join(lines) + "\n"


def _variant(text: str, block: str, commented: str) -> str:
    """Return ``text`` with a block commented out, and the commented one in its place."""
    indent = block[: len(block) - len(block.lstrip())]
    start = text.index(block + "\n")
    end = text.index(f"\n{indent}}}\n", start)
    text = text[:start] + text[end + 1 :].partition("\n")[2]
    start = text.index(commented)
    plain = re.sub(rf"^{indent}# ?", indent, text[start:], flags=re.MULTILINE)
    return text[:start] + plain


def _answers(proxy: Proxy) -> bool:
    try:
        answer = proxy.client().request("GET", f"{proxy.url}/livez", timeout=5)
    except urllib3.exceptions.HTTPError:
        return False
    return answer.status == 200
