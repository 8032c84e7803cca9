"""Self-signed TLS for the webhook, for installations that bring no certificate of their own.

A small CA is made once and kept, so that the `caBundle` in the ValidatingWebhookConfiguration stays true while the serving
certificate is renewed. Everything is written with mode 0600 in a folder with mode 0700.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from core.errors import ConfigError, Unavailable
from core.ids import uuid7

CA_DAYS = 3650
SERVING_DAYS = 365
RENEW_DAYS = 30
LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """`ca` is what goes into `caBundle`."""

    cert: Path
    key: Path
    ca: Path


def ensure(folder: Path, hosts: Sequence[str], *, now_unix: int) -> TlsFiles:
    """The serving certificate for `hosts` (names and addresses) and this machine, made or renewed where needed.

    ConfigError when what lies in the folder cannot be read as ours; Unavailable when the folder cannot be written.
    """
    files = TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")
    ca_key_file = folder / "ca.key"
    wanted = sorted({*LOCAL, *hosts})
    now = dt.datetime.fromtimestamp(now_unix, dt.UTC)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (files.ca.exists() and ca_key_file.exists()):
            ca_key = ec.generate_private_key(ec.SECP256R1())
            _write(ca_key_file, _key_pem(ca_key))
            _write(files.ca, _authority(ca_key, now).public_bytes(serialization.Encoding.PEM))
            files.cert.unlink(missing_ok=True)
        if not _still_good(files, wanted, now):
            ca_key, authority = _load(ca_key_file, files.ca)
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _serving(key, wanted, ca_key, authority, now)
            # The key first: a certificate without its key would look whole and not start.
            files.cert.unlink(missing_ok=True)
            _write(files.key, _key_pem(key))
            _write(files.cert, certificate.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise Unavailable(f"the webhook's certificate cannot be written: {error.strerror}", where=str(folder)) from error
    return files


def _load(key_file: Path, ca_file: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key(key_file.read_bytes(), None)
        authority = x509.load_pem_x509_certificate(ca_file.read_bytes())
    except (ValueError, TypeError) as error:
        raise ConfigError(
            "not a key and certificate that can be read; remove both to have them made anew", where=str(ca_file)
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != authority.public_key():
        raise ConfigError("the CA's key is not the certificate's; remove both to have them made anew", where=str(ca_file))
    return key, authority


def _still_good(files: TlsFiles, wanted: Sequence[str], now: dt.datetime) -> bool:
    if not (files.cert.exists() and files.key.exists()):
        return False
    try:
        certificate = x509.load_pem_x509_certificate(files.cert.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return False
    held = [*names.get_values_for_type(x509.DNSName), *(str(ip) for ip in names.get_values_for_type(x509.IPAddress))]
    return sorted(held) == list(wanted) and certificate.not_valid_after_utc - now > dt.timedelta(days=RENEW_DAYS)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _san(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(key: ec.EllipticCurvePrivateKey, now: dt.datetime) -> x509.Certificate:
    name = _name(f"portcullis admission CA {uuid7()[:8]}")
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _serving(
    key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
    ca_key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    now: dt.datetime,
) -> x509.Certificate:
    """Names stand in subjectAltName only, which is all that Go's TLS (the API server) looks at."""
    return (
        x509.CertificateBuilder()
        .subject_name(_name("portcullis admission"))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(min(now + dt.timedelta(days=SERVING_DAYS), authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_san(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, and never readable by others, not even for a moment."""
    draft = path.with_name(f".{path.name}.{uuid7()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)
