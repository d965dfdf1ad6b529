"""Signs in-toto statements with a key of the user's own, offline: model signatures and provenance.

OpenSSF Model Signing 1.0 (a Sigstore bundle around a DSSE envelope) knows no Ed25519, so this key is ECDSA on P-256,
made when first needed. Formats: github.com/secure-systems-lab/dsse, in-toto Statement v1, Sigstore bundle v0.3.
"""

import base64
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearseek.config.errors import RunError
from clearseek.ledger.keys import key_path
from clearseek.ledger.lines import file_sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

VARIABLE = "CLEARSEEK_MODEL_KEY"
STATEMENT = "https://in-toto.io/Statement/v1"
_PAYLOAD = "application/vnd.in-toto+json"
_GIT_PATHS = (".git", ".gitattributes", ".github", ".gitignore")


def model_key_path() -> Path:
    """Where the key lies: what CLEARSEEK_MODEL_KEY says, else model.key beside the key that seals runs."""
    told = os.environ.get(VARIABLE)
    return Path(told) if told else key_path().with_name("model.key")


def model_key() -> "EllipticCurvePrivateKey":
    """The user's key, made at the first call. RunError where it can't be kept, or isn't one on P-256."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = model_key_path()
    try:
        if not path.is_file():
            _make(path)
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise RunError(
            f"{path}: the key that signs models can't be kept there ({error.strerror}); name another place in "
            f"{VARIABLE}"
        ) from None
    except (ValueError, TypeError):
        raise RunError(
            f"{path} is no private key without a password, in PEM; put it back, or move it away for a new one"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RunError(
            f"{path} is no ECDSA key on P-256, which model signatures need; name another in {VARIABLE}"
        )
    return key


def _make(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    made = ec.generate_private_key(ec.SECP256R1())
    text = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
    try:
        os.link(partial, path)  # the first of two that make one at the same time keeps it
    except FileExistsError:
        pass
    finally:
        partial.unlink()


def public_pem(key: "EllipticCurvePrivateKey") -> bytes:
    """The public half, in PEM."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def envelope(key: "EllipticCurvePrivateKey", statement: dict[str, Any]) -> dict[str, Any]:
    """A DSSE envelope around an in-toto statement."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    payload = json.dumps(statement, ensure_ascii=False).encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(payload), payload)
    signature = key.sign(signed, ec.ECDSA(SHA256()))
    return {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": _PAYLOAD,
        "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
    }


def model_signature(key: "EllipticCurvePrivateKey", model: Path, name: str) -> dict[str, Any]:
    """The OpenSSF model signature (key mode) of every file below a model's directory, as model.sig holds it."""
    resources = list(_resources(model))
    root = hashlib.sha256(b"".join(bytes.fromhex(resource["digest"]) for resource in resources)).hexdigest()
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": root}}],
        "predicateType": "https://model_signing/signature/v1.0",
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": list(_GIT_PATHS),
            },
            "resources": resources,
        },
    }
    return {
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {
            "publicKey": {"hint": hashlib.sha256(public_pem(key)).hexdigest()},
            "tlogEntries": [],
        },
        "dsseEnvelope": envelope(key, statement),
    }


def _resources(model: Path) -> Iterable[dict[str, str]]:
    paths = sorted(path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file())
    for path in paths:
        if path.split("/")[0] not in _GIT_PATHS:
            yield {"name": path, "algorithm": "sha256", "digest": file_sha256(model / path)}
