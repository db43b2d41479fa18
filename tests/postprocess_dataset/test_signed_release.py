"""release.py --c2pa: signed images of a self-made chain, read back by C2PA's own reader."""

import datetime
import hashlib
import io
import json
import re
import shutil
import sys

import pyarrow.parquet as pq
import pytest

from common.untrusted import open_jpeg
from postprocess_dataset.manifest.shards import read_shard
from tests.postprocess_dataset.conftest import called
from tests.postprocess_dataset.verified import IMAGES, PROMPTS, RunFolder

needed = "pip install -r requirements-c2pa.txt"
c2pa = pytest.importorskip("c2pa", reason=needed)
x509 = pytest.importorskip("cryptography.x509", reason=needed)

from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

PEM = serialization.Encoding.PEM
SIGNS = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION])


def name(text):
    names = x509.NameOID
    pairs = ((names.ORGANIZATION_NAME, "Birds"), (names.COMMON_NAME, text))
    return x509.Name([x509.NameAttribute(*pair) for pair in pairs])


def usage(signs):
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    others += ("crl_sign", "encipher_only", "decipher_only")
    return x509.KeyUsage(
        digital_signature=signs, key_cert_sign=not signs, **dict.fromkeys(others, False)
    )


def certificate(subject, key, issuer, issuer_key, purpose, days=30):
    now = datetime.datetime.now(datetime.UTC)
    about = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    above = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    made = x509.CertificateBuilder(name(issuer), name(subject), key.public_key())
    made = made.serial_number(x509.random_serial_number())
    made = made.not_valid_before(now - datetime.timedelta(60))
    made = made.not_valid_after(now + datetime.timedelta(days))
    made = made.add_extension(x509.BasicConstraints(subject == issuer, None), True)
    made = made.add_extension(usage(subject != issuer), True)
    for extension in (about, above, purpose):
        made = made.add_extension(extension, False) if extension else made
    return made.sign(issuer_key, hashes.SHA256()).public_bytes(PEM)


def key_text(key, lock=None):
    lock = lock or serialization.NoEncryption()
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, lock)


@pytest.fixture
def chain(tmp_path):
    """root.pem, chain.pem and key.pem of one who may sign."""
    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (tmp_path / "root.pem").write_bytes(above := certificate("Root", root, "Root", root, None))
    own_text = certificate("Publisher\x9b1m", own, "Root", root, SIGNS)
    (tmp_path / "chain.pem").write_bytes(own_text + above)
    (tmp_path / "key.pem").write_bytes(key_text(own))
    ended = certificate("Publisher", own, "Root", root, SIGNS, days=-1)
    (tmp_path / "ended.pem").write_bytes(ended)
    purposeless = certificate("Publisher", own, "Root", root, None)
    (tmp_path / "no_purpose.pem").write_bytes(purposeless + above)
    (tmp_path / "other_key.pem").write_bytes(key_text(root))
    locked = serialization.BestAvailableEncryption(b"secret")
    (tmp_path / "locked.pem").write_bytes(key_text(own, locked))
    return tmp_path


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "HPDv2").fill(PROMPTS, IMAGES).finish(PROMPTS)


def release(run, place, *options):
    return called("release", [run.path, place, "--num_workers", 1, *options])


def signed_options(folder):
    return "--c2pa", folder / "chain.pem", folder / "key.pem"


def verdict(image, root):
    """What C2PA's reader says of an image, for who trusts `root`: (state, manifest)."""
    trust = {"verify": {"verify_trust": True}, "trust": {"trust_anchors": root.read_text()}}
    context = c2pa.Context(c2pa.Settings.from_dict(trust))
    reader = c2pa.Reader("image/jpeg", io.BytesIO(image), context=context)
    return reader.get_validation_state(), reader.get_active_manifest()


def contents(place):
    return {
        path.name: path.read_bytes()
        for path in [*place.glob("webdataset/*.tar"), *place.glob("data/*.parquet")]
    }


def test_every_published_image_is_signed_and_its_hash_is_the_new_one(run, chain, tmp_path):
    place = tmp_path / "birds"
    before = {path.name: path.read_bytes() for path in run.path.rglob("*.jpg")}
    ended = release(run, place, *signed_options(chain))
    assert ended.status == 0, ended.err
    samples = list(read_shard(str(place / "webdataset" / "train-000000.tar")))
    rows = pq.read_table(place / "data" / "train-00000.parquet").to_pylist()
    assert len(samples) == len(rows) == len(PROMPTS) * IMAGES
    for sample, row in zip(samples, rows, strict=True):
        state, manifest = verdict(sample.image, chain / "root.pem")
        assert state == "Trusted"
        [action] = manifest["assertions"][0]["data"]["actions"]
        assert action["action"] == "c2pa.created"
        assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
        file_name = f"{sample.key.rpartition('/')[2]}.jpg"
        assert manifest["signature_info"]["common_name"] == "Publisher\x9b1m"
        assert manifest["title"] == file_name
        signed, plain = open_jpeg(sample.image), open_jpeg(before[file_name])
        assert signed.info["comment"] == plain.info["comment"]
        assert signed.tobytes() == plain.tobytes()
        sha256 = hashlib.sha256(sample.image).hexdigest()
        assert sample.metadata["image_sha256"] == row["image_sha256"] == sha256
        assert row["image"]["bytes"] == sample.image != before[file_name]
    assert {path.name: path.read_bytes() for path in run.path.rglob("*.jpg")} == before
    checked = called("verify_dataset", [place, "--manifest"])
    assert checked.status == 0, checked.out
    card = (place / "README.md").read_text()
    assert "signed with Content Credentials (C2PA) by CN=Publisher" in card
    assert "not those of the run" in card
    text = (place / "release.json").read_text()
    assert text.isascii(), "a certificate's name may hold what a terminal obeys"
    note = json.loads(text)["c2pa"]
    assert note["certificate_sha256"] in card and "PRIVATE" not in card


def test_what_is_signed_keeps_its_bytes_until_the_certificate_changes(run, chain, tmp_path):
    place = tmp_path / "birds"
    assert release(run, place, *signed_options(chain)).status == 0
    signed = contents(place)
    assert release(run, place, *signed_options(chain)).status == 0
    assert contents(place) == signed
    assert release(run, place).status == 0
    plain = contents(place)
    assert all(plain[name] != signed[name] for name in signed)
    assert not (place / "release.json").exists()
    assert "C2PA" not in (place / "README.md").read_text()
    assert not (tmp_path / "birds.work" / "signed").exists()


def test_killed_while_it_signs_it_goes_on(run, chain, tmp_path, dying):
    place = tmp_path / "birds"
    options = signed_options(chain)
    words = ("release", run.path, place, "--num_workers", 1, *options)
    signed = tmp_path / "birds.work" / "signed"
    early, late = 0, 400  # writes before it signs, and after the first mark of a signed tar
    while not (signed.exists() and not list(signed.glob("*.json"))):
        assert late - early > 1, "it was not killed while it signed"
        at = (early + late) // 2
        for folder in (place, signed.parent):
            shutil.rmtree(folder, ignore_errors=True)
        died = dying(at, *words) == -9
        early, late = (early, at) if list(signed.glob("*.json")) or not died else (at, late)
    assert release(run, place, *options).status == 0
    for sample in read_shard(str(place / "webdataset" / "train-000000.tar")):
        assert verdict(sample.image, chain / "root.pem")[0] == "Trusted"
    assert called("verify_dataset", [place, "--manifest"]).status == 0


@pytest.mark.parametrize(
    "words, says",
    [
        (["nowhere.pem"], "nowhere.pem: cannot be read: No such file"),
        (["key.pem"], "no certificate in PEM"),
        (["chain.pem"], "no private key in PEM without a pass phrase"),
        (["chain.pem", "locked.pem"], "no private key in PEM without a pass phrase"),
        (["chain.pem", "other_key.pem"], "not the key of the first certificate"),
        (["ended.pem", "key.pem"], "the certificate has ended on 2"),
        (["no_purpose.pem", "key.pem"], "cannot be signed: "),
    ],
)
def test_what_cannot_sign_is_one_line(run, chain, tmp_path, words, says):
    place = tmp_path / "birds"
    ended = release(run, place, "--c2pa", *(chain / word for word in words))
    assert ended.status == 1 and ended.err.count("release: ") == 1, ended.err
    assert says in ended.err.splitlines()[-1] and "Traceback" not in ended.err
    assert not (place / "README.md").exists()


def test_an_image_that_cannot_be_signed_is_one_line(run, chain, tmp_path):
    """A JPEG may have fill bytes before a marker; this one has more than any reader here takes."""
    image, record = (next(run.path.rglob(f"997_1.{kind}")) for kind in ("jpg", "json"))
    data = image.read_bytes()
    filled = data[:2] + b"\xff" * 200_000 + data[2:]
    image.write_bytes(filled)
    sums = [hashlib.sha256(content).hexdigest() for content in (data, filled)]
    record.write_text(record.read_text().replace(*sums))
    for collected in run.path.rglob("997.samples"):
        collected.unlink()
    for allowed in ([], ["--allow", "private_field"]):
        ended = release(run, tmp_path / "birds", *allowed, *signed_options(chain))
        assert ended.status == 1 and "Traceback" not in ended.err
        assert re.search(
            r"^release: --c2pa: \S*997_1.jpg cannot be signed: it has more", ended.err, re.M
        )


def test_a_third_word_is_no_certificate(run, chain, tmp_path):
    ended = release(run, tmp_path / "birds", *signed_options(chain), run.path)
    assert ended.status == 2 and "behind all folders" in ended.err


def test_without_the_package_it_says_what_to_install(run, chain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "c2pa", None)
    ended = release(run, tmp_path / "birds", *signed_options(chain))
    assert ended.status == 1 and "pip install -r requirements-c2pa.txt" in ended.err
    assert not (tmp_path / "birds").exists()
