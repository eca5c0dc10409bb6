"""The http connector over TLS, with a certificate made for the test."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.connectors.conftest import Bench

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """A test prints nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A refused handshake is what a test asks for."""


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a server and its certificate, which nobody trusts yet."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}/", certificate
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_certificate_that_is_not_trusted_is_refused(bench: Bench, secure: tuple[str, Path]):
    error = bench.error("http.get", url=secure[0])

    place = secure[0].removeprefix("https://").rstrip("/")
    assert error["kind"] == "connector"
    assert error["message"] == f"GET {place}: cannot connect: the certificate is not trusted: self-signed certificate"


def test_one_that_is_trusted_by_ssl_cert_file_is_accepted(bench: Bench, secure: tuple[str, Path], monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(secure[1]))

    assert bench.ok("http.get", url=secure[0])["body"] == "ok"
