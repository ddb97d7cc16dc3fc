"""docs/object-store.md: each way by which an environment leads to an S3 store, in a process that has nothing else."""

import datetime
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

sys.path.append(str(Path(__file__).parent / "faults"))
from s3_server import S3Server

ROOT = Path(__file__).parents[1]
USE = """
import sys
from pipeline.core.store import Store
store = Store(sys.argv[1])
store.mark()
assert store.create("a/b", b"x") and not store.create("a/b", b"y")
print(store.get("a/b"), [entry.path for entry in store.entries("a")])
store.delete("a/b")
"""
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server on loopback for the length of the block: its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def forwarding(target: str, seen: list[str]) -> type[BaseHTTPRequestHandler]:
    """A handler that passes every request on to another server, and notes for which address it was."""

    class Forward(Quiet):
        def forward(self) -> None:
            seen.append(self.path)
            parts = urlsplit(self.path)
            data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kept = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            kept.setdefault("Content-Type", "application/octet-stream")
            asked = urllib.request.Request(
                f"{target}{parts.path}?{parts.query}", data or None, kept, method=self.command
            )
            try:
                answer = urllib.request.urlopen(asked)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = forward

    return Forward


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3")) as started:
        urllib.request.urlopen(urllib.request.Request(f"{started.url}/bucket", method="PUT")).close()
        yield started


def use(env: dict[str, str], prefix: str) -> None:
    """Write to a store and read from it with an environment of these variables alone."""
    given = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nowhere", **env}
    command = [sys.executable, "-c", USE, f"s3://bucket/{prefix}"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=100)
    assert done.stdout == "b'x' ['a/b']\n", done.stderr


def test_keys_and_an_endpoint_without_tls(server: S3Server):
    use({**KEYS, "AWS_ENDPOINT_URL": server.url, "AWS_ALLOW_HTTP": "true"}, "keys")


def test_the_identity_of_a_pod(server: S3Server, tmp_path: Path):
    """A local address that hands out keys to whoever has the pod's token."""
    asked: list[str | None] = []

    class Agent(Quiet):
        def do_GET(self) -> None:
            asked.append(self.headers["Authorization"])
            until = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
            keys = {"AccessKeyId": "key", "SecretAccessKey": "secret", "Token": "token", "Expiration": until}
            answer = json.dumps(keys).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    (tmp_path / "token").write_text("mine")
    with serving(Agent) as url:
        identity = {
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{url}/keys",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": f"{tmp_path}/token",
        }
        use({**identity, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": server.url, "AWS_ALLOW_HTTP": "true"}, "pod")
    assert set(asked) == {"mine"}


def test_a_proxy(server: S3Server):
    """... which alone knows the way to the store."""
    seen: list[str] = []
    with serving(forwarding(server.url, seen)) as proxy:
        place = {"AWS_ENDPOINT_URL": "http://store.example", "AWS_ALLOW_HTTP": "true", "HTTP_PROXY": proxy}
        use({**KEYS, **place}, "proxy")
    assert seen
    assert all(path.startswith("http://store.example/bucket") for path in seen)


def test_an_authority_of_ones_own(server: S3Server, tmp_path: Path):
    """The store's certificate is believed where the environment names who signed it, and nowhere else."""
    with serving(forwarding(server.url, []), certificate(tmp_path)) as url:
        use({**KEYS, "AWS_ENDPOINT_URL": url, "SSL_CERT_FILE": f"{tmp_path}/ca.pem"}, "tls")
        with pytest.raises(AssertionError, match="error sending request"):
            use({**KEYS, "AWS_ENDPOINT_URL": url}, "tls")


def certificate(folder: Path) -> ssl.SSLContext:
    """TLS for 127.0.0.1, by a certificate that `ca.pem` in the folder has signed."""
    signing, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    authority = signed("authority", signing, signing, x509.BasicConstraints(ca=True, path_length=None))
    server = signed("server", key, signing, here)
    pem, plain = serialization.Encoding.PEM, (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "ca.pem").write_bytes(authority.public_bytes(pem))
    (folder / "server.pem").write_bytes(key.private_bytes(pem, *plain) + server.public_bytes(pem))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem")
    return tls


def signed(
    name: str, key: ec.EllipticCurvePrivateKey, by: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType
) -> x509.Certificate:
    subject, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)]) for who in (name, "authority"))
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    made = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number(), now - day, now + day)
    return made.add_extension(extension, critical=False).sign(by, hashes.SHA256())
