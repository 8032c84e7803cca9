"""The two kinds of keys that bundles are signed with: each signs the same bytes the same, and neither passes for the other."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from core.errors import BadInput, BadSignature, ConfigError
from core.settings import Policy
from policies import distribution
from policies.bundle_keys import SigningKey, algorithm, check, key_id, read_signing_key, read_verify_key, signature
from policies.check import Loaded, load_tree
from policies.distribution import SIGNATURES, build, read
from policies.engine import distribution_of
from tests.unit.policies import trees

KEYS: dict[str, SigningKey] = {
    "EdDSA": Ed25519PrivateKey.from_private_bytes(bytes(range(32))),
    "ES256": ec.derive_private_key(7**60, ec.SECP256R1()),
}
OTHERS: dict[str, Callable[[], Any]] = {
    "another curve": lambda: ec.generate_private_key(ec.SECP384R1()),
    "the curve of coins": lambda: ec.generate_private_key(ec.SECP256K1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed448": Ed448PrivateKey.generate,
}


def private_pem(key: Any) -> bytes:
    data: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return data


def public_pem(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_tree(trees.write(tmp_path_factory.mktemp("tree"), trees.files()))


@pytest.mark.parametrize("name", KEYS)
def test_a_signature_holds_for_its_key_and_its_bytes_alone(name: str) -> None:
    key = KEYS[name]
    made = signature(key, b"data")
    assert signature(key, b"data") == made
    assert (len(made), algorithm(key), algorithm(key.public_key())) == (64, name, name)
    check(key.public_key(), made, b"data")
    for place in range(len(made)):
        with pytest.raises(InvalidSignature):
            check(key.public_key(), made[:place] + bytes([made[place] ^ 1]) + made[place + 1 :], b"data")
    longer = made[:32] + b"\0" + made[32:]
    for sent, data in (
        (made, b"date"),
        (longer, b"data"),
        (made[:-1], b"data"),
        (made + b"\0", b"data"),
        (b"", b"data"),
        (bytes(64), b"data"),
    ):
        with pytest.raises(InvalidSignature):
            check(key.public_key(), sent, data)


@pytest.mark.parametrize("name", KEYS)
def test_keys_are_read_and_nothing_else_is_a_key(name: str) -> None:
    key = KEYS[name]
    assert signature(read_signing_key(private_pem(key), where="k"), b"x") == signature(key, b"x")
    assert key_id(read_verify_key(public_pem(key), where="k")) == key_id(key.public_key())
    assert key_id(KEYS["EdDSA"].public_key()) != key_id(KEYS["ES256"].public_key())
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    for pem in (public_pem(key), locked, b"", b"-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"):
        with pytest.raises(BadInput, match="no private key"):
            read_signing_key(pem, where="k")
    for pem in (private_pem(key), b"", b"x"):
        with pytest.raises(BadInput, match="no public key"):
            read_verify_key(pem, where="k")


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds_of_keys_are_refused(name: str) -> None:
    key = OTHERS[name]()
    with pytest.raises(BadInput, match="neither an Ed25519"):
        read_signing_key(private_pem(key), where="k")
    with pytest.raises(BadInput, match="neither an Ed25519"):
        read_verify_key(public_pem(key), where="k")


@pytest.mark.parametrize(("signer", "other"), [("EdDSA", "ES256"), ("ES256", "EdDSA")])
def test_a_bundle_of_either_kind(loaded: Loaded, signer: str, other: str) -> None:
    key = KEYS[signer]
    data = build(loaded, wasm=None, tests=1, key=key)
    assert build(loaded, wasm=None, tests=1, key=key) == data
    assert read(data, key=key.public_key()).signed
    with pytest.raises(BadSignature, match=f"not signed by {other}"):
        read(data, key=KEYS[other].public_key())
    files = distribution._unpacked(data, "test")
    (token,) = json.loads(files[SIGNATURES])["signatures"]
    _, payload, signed = token.split(".")
    for claimed in (other, "none", "HS256"):
        header = base64.urlsafe_b64encode(json.dumps({"alg": claimed}).encode()).rstrip(b"=").decode()
        files[SIGNATURES] = json.dumps({"signatures": [f"{header}.{payload}.{signed}"]}).encode()
        for verifier in KEYS.values():
            with pytest.raises(BadSignature):
                read(distribution._packed(files), key=verifier.public_key())


def test_the_settings_take_either_kind(loaded: Loaded, tmp_path: Path) -> None:
    (tmp_path / "b.tar.gz").write_bytes(build(loaded, wasm=None, tests=1, key=KEYS["ES256"]))
    policy = Policy(bundle=str(tmp_path / "b.tar.gz"), verify_key=str(tmp_path / "key.pub"))
    (tmp_path / "key.pub").write_bytes(public_pem(KEYS["ES256"]))
    assert distribution_of(policy).signed
    (tmp_path / "key.pub").write_bytes(public_pem(OTHERS["another curve"]()))
    with pytest.raises(ConfigError, match="verify_key"):
        distribution_of(policy)
    (tmp_path / "key.pub").unlink()
    with pytest.raises(ConfigError, match="verify_key"):
        distribution_of(policy)
