"""Sign JPEGs with Content Credentials (C2PA), which say that a model made them.

    signer = read_signer(["chain.pem", "key.pem"])   # UserError: no certificate, not its key
    signer.about                    # what is published of it: names, issuer, fingerprint, its end
    sign = signer.start()           # in the process that signs: the library takes no fork
    signed = sign(jpeg, "12345_3.jpg")

The manifest says one thing, the action c2pa.created with IPTC's trainedAlgorithmicMedia. No time
stamp authority is asked, so that nothing here needs a network; a signature then holds as long as
its certificate. Each signed image is read back by c2pa before it is taken.
"""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from common import __version__
from common.command_line import UserError
from common.untrusted import read_untrusted

PEM_BYTES = 1 << 20
TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
# A thumbnail of an image of 50 kB would be a tenth of it again.
SETTINGS = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"verify_after_sign": True, "verify_trust": False},
}
CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
INSTALL = "install it with: pip install -r requirements-c2pa.txt"
Sign = Callable[[bytes, str], bytes]  # (JPEG, its name) -> the signed JPEG


@dataclass(frozen=True)
class Signer:
    """A certificate chain, the signer's own first, with its private key, both as PEM."""

    chain: bytes
    key: bytes
    algorithm: str
    about: dict[str, str]

    def start(self) -> Sign:
        """The function that signs. UserError, when it is called: c2pa takes no such certificate."""
        import c2pa

        information = c2pa.C2paSignerInfo(self.algorithm, self.chain, self.key, None)
        context = c2pa.Context(c2pa.Settings.from_dict(SETTINGS))
        signer: Any = None

        def sign(image: bytes, name: str) -> bytes:
            nonlocal signer
            signed = io.BytesIO()
            try:
                signer = signer or c2pa.Signer.from_info(information)
                builder = c2pa.Builder(definition(name), context)
                builder.sign(signer, "image/jpeg", io.BytesIO(image), signed)
            except c2pa.C2paError as error:
                raise UserError(f"--c2pa: {name} cannot be signed: {error}") from None
            return signed.getvalue()

        return sign


def definition(name: str) -> str:
    """The manifest of an image, as JSON."""
    action = {"action": "c2pa.created", "digitalSourceType": TYPE}
    return json.dumps(
        {
            "title": name,
            "claim_generator_info": [{"name": "prompts-to-images", "version": __version__}],
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
        }
    )


def read_signer(paths: Sequence[str]) -> Signer:
    """Of PEM files: the chain, and the key, which may stand in the same file. UserError."""
    try:
        import c2pa  # noqa: F401  before the tars are made, not after
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
    except ModuleNotFoundError as error:
        raise UserError(f"--c2pa needs the package {error.name}; {INSTALL}") from None
    texts = [_read(path) for path in paths]
    try:
        own, *_ = chain = x509.load_pem_x509_certificates(texts[0])
    except ValueError as error:
        raise UserError(f"--c2pa {paths[0]}: no certificate in PEM: {error}") from None
    try:
        key = serialization.load_pem_private_key(texts[-1], None)
    except (ValueError, TypeError) as error:  # TypeError: it has a pass phrase
        raise UserError(
            f"--c2pa {paths[-1]}: no private key in PEM without a pass phrase: {error}"
        ) from None
    if key.public_key() != own.public_key():
        raise UserError(f"--c2pa {paths[-1]}: not the key of the first certificate of {paths[0]}")
    if own.not_valid_after_utc < datetime.now(UTC):
        ended = own.not_valid_after_utc.date()
        raise UserError(f"--c2pa {paths[0]}: the certificate has ended on {ended}")
    pem = serialization.Encoding.PEM
    return Signer(
        b"".join(each.public_bytes(pem) for each in chain),
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        _algorithm(key, paths[-1]),
        {
            "signer": own.subject.rfc4514_string(),
            "issuer": own.issuer.rfc4514_string(),
            "certificate_sha256": own.fingerprint(hashes.SHA256()).hex(),
            "valid_until": own.not_valid_after_utc.date().isoformat(),
        },
    )


def _algorithm(key: Any, path: str) -> str:
    """C2PA's name of what the key signs by."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in CURVES:
        return CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey):
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise UserError(f"--c2pa {path}: C2PA signs by NIST curves, RSA and Ed25519 alone")


def _read(path: str) -> bytes:
    try:
        return read_untrusted(path, PEM_BYTES)
    except OSError as error:
        raise UserError(f"--c2pa {path}: cannot be read: {error.strerror}") from None
