"""Signatures of models: what is signed, by which key, and what a key may not be."""

import base64
import hashlib
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from clearseek.config.errors import RunError
from clearseek.papers.signing import envelope, model_key, model_signature, public_pem


@pytest.fixture
def key_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys" / "model.key"
    monkeypatch.setenv("CLEARSEEK_MODEL_KEY", str(path))
    return path


def test_a_key_is_made_once_and_kept_for_its_owner(key_path: Path) -> None:
    first = public_pem(model_key())
    assert public_pem(model_key()) == first
    assert key_path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in key_path.parent.iterdir()] == ["model.key"]


def test_an_envelope_is_what_dsse_says(key_path: Path) -> None:
    key = model_key()
    made = envelope(key, {"a": "한글"})
    payload = base64.b64decode(made["payload"])
    kind = made["payloadType"]
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    public = load_pem_public_key(public_pem(key))
    assert isinstance(public, ec.EllipticCurvePublicKey)
    public.verify(base64.b64decode(made["signatures"][0]["sig"]), signed, ec.ECDSA(SHA256()))
    assert json.loads(payload) == {"a": "한글"}


def test_a_signature_names_every_file_and_one_hash_of_all(key_path: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "b").mkdir(parents=True)
    for name, content in (("b/c", b"1"), ("a", b"2"), (".gitignore", b"3")):
        (model / name).write_bytes(content)
    statement = json.loads(
        base64.b64decode(model_signature(model_key(), model, "m")["dsseEnvelope"]["payload"])
    )
    named = {file["name"]: file["digest"] for file in statement["predicate"]["resources"]}
    assert named == {"a": hashlib.sha256(b"2").hexdigest(), "b/c": hashlib.sha256(b"1").hexdigest()}
    whole = hashlib.sha256(hashlib.sha256(b"2").digest() + hashlib.sha256(b"1").digest()).hexdigest()
    assert statement["subject"] == [{"name": "m", "digest": {"sha256": whole}}]


def test_what_is_no_key_on_p256_is_one_line(key_path: Path) -> None:
    key_path.parent.mkdir()
    key_path.write_text("no key")
    with pytest.raises(RunError, match="is no private key without a password, in PEM"):
        model_key()
    pem = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for other in (Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP384R1())):
        key_path.write_bytes(other.private_bytes(*pem))
        with pytest.raises(RunError, match="is no ECDSA key on P-256"):
            model_key()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_may_not_be_written_is_one_line(key_path: Path) -> None:
    key_path.parent.mkdir()
    key_path.parent.chmod(0o500)
    with pytest.raises(RunError, match="name another place in CLEARSEEK_MODEL_KEY"):
        model_key()
