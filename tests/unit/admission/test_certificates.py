from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from admission.certificates import ensure
from core.errors import ConfigError

NOW = 1_800_000_000
DAY = 86_400


def names(path: Path) -> set[str]:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*held.get_values_for_type(x509.DNSName), *(str(ip) for ip in held.get_values_for_type(x509.IPAddress))}


def test_a_certificate_signed_by_a_kept_authority(tmp_path: Path) -> None:
    files = ensure(tmp_path / "tls", ["portcullis.gov.svc"], now_unix=NOW)
    assert names(files.cert) == {"localhost", "127.0.0.1", "::1", "portcullis.gov.svc"}
    authority = x509.load_pem_x509_certificate(files.ca.read_bytes())
    x509.load_pem_x509_certificate(files.cert.read_bytes()).verify_directly_issued_by(authority)
    for file in (tmp_path / "tls").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700


def test_it_is_kept_until_names_or_time_ask_for_a_new_one(tmp_path: Path) -> None:
    first = ensure(tmp_path, ["a.svc"], now_unix=NOW)
    cert, ca = first.cert.read_bytes(), first.ca.read_bytes()
    assert ensure(tmp_path, ["a.svc"], now_unix=NOW + 300 * DAY).cert.read_bytes() == cert
    renewed = ensure(tmp_path, ["a.svc"], now_unix=NOW + 340 * DAY).cert.read_bytes()
    assert renewed != cert
    assert ensure(tmp_path, ["b.svc"], now_unix=NOW + 340 * DAY).cert.read_bytes() != renewed
    assert first.ca.read_bytes() == ca


def test_an_authority_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    ensure(tmp_path / "a", [], now_unix=NOW)
    files = ensure(tmp_path / "b", [], now_unix=NOW)
    files.ca.write_bytes((tmp_path / "a" / "ca.crt").read_bytes())
    files.cert.unlink()
    with pytest.raises(ConfigError):
        ensure(tmp_path / "b", [], now_unix=NOW)
