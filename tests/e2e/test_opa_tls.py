"""A real OPA server over TLS with a certificate of its own authority, which asks for a bearer token."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from core.errors import ConfigError
from core.settings import Policy, Settings
from policies.check import load_tree
from policies.engine import load
from tests.corpus import cases
from tests.e2e.test_opa import opa

__all__ = ["opa"]
pytestmark = pytest.mark.e2e
TOKEN = "canary-token-4711"
AUTHORISED = f'package system.authz\n\ndefault allow := false\n\nallow if input.identity == "{TOKEN}"\n\nallow if input.path == ["health"]\n'


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "opa.test.example")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def url(opa: str, folder: Path) -> Iterator[str]:
    cert, key = certificate(folder)
    load_tree().bundle.write(folder / "bundle")
    (folder / "authz").mkdir()
    (folder / "authz" / "authz.rego").write_text(AUTHORISED)
    (folder / "authz" / ".manifest").write_text('{"roots": ["system/authz"]}')
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "wrong").write_text("another\n")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [opa, "run", "--server", "--addr", f"127.0.0.1:{port}", "--log-level", "error"]
    command += [
        "--tls-cert-file",
        str(cert),
        "--tls-private-key-file",
        str(key),
        "--authentication=token",
        "--authorization=basic",
    ]
    process = subprocess.Popen([*command, "--bundle", str(folder / "bundle"), str(folder / "authz")])
    context, deadline = ssl.create_default_context(cafile=str(cert)), time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"https://127.0.0.1:{port}/health", timeout=1, context=context):
                break
        except OSError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    yield f"https://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    ("ca", "token", "code"),
    [
        ("cert.pem", "token", ""),
        ("cert.pem", "wrong", "engine/error"),
        ("cert.pem", None, "engine/error"),
        (None, "token", "engine/unavailable"),
    ],
)
def test_the_authority_and_the_token_both_count(url: str, folder: Path, ca: str | None, token: str | None, code: str) -> None:
    policy = Policy(
        engine="opa",
        url=url,
        ca=None if ca is None else str(folder / ca),
        token_file=None if token is None else str(folder / token),
        deadline_ms=5_000,
    )
    engine = load(Settings(policy=policy))
    decision = engine.decide("admission", next(case.input for case in cases("admission") if case.expect.get("allow")))
    engine.close()
    assert decision.code == code
    assert decision.allow == (not code)
    assert TOKEN not in str(decision.as_json())


@pytest.mark.parametrize("field", ["ca", "token_file"])
@pytest.mark.parametrize("content", [None, ""])
def test_a_file_that_cannot_be_used_refuses_to_start(tmp_path: Path, field: str, content: str | None) -> None:
    path = tmp_path / "x"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=f"policy.{field}"):
        load(Settings(policy=Policy.model_validate({"engine": "opa", "url": "https://127.0.0.1:1", field: str(path)})))


@pytest.mark.parametrize("field", ["ca", "token_file"])
def test_a_token_is_not_sent_in_the_clear(field: str) -> None:
    with pytest.raises(ValueError, match="https"):
        Policy.model_validate({"engine": "opa", "url": "http://127.0.0.1:8181", field: "x"})
