"""Signed calls: what is changed, repeated, too old or of another server is refused, both ways."""

import time

import pytest

from generate.protocol import signing
from generate.protocol.signing import Signer, Unsigned, Verifier

TOKEN = "a token"
NOW = 1_000_000.0


@pytest.fixture
def pair() -> tuple[Signer, Verifier]:
    return Signer(TOKEN, 3, NOW), Verifier(TOKEN, 3)


def test_a_signed_call_and_its_answer(pair: tuple[Signer, Verifier]) -> None:
    signer, verifier = pair
    headers = signer.sign("POST", "/beat", b"{}")
    call = verifier.check("POST", "/beat", headers, NOW)
    call.check_body(b"{}")
    signer.check(200, b"[1]", verifier.sign_answer(call.signature, 200, b"[1]"))
    assert not any(TOKEN in value for value in headers.values())


@pytest.mark.parametrize(
    "method, path, epoch, token, change",
    [
        ("GET", "/beat", 3, TOKEN, {}),
        ("POST", "/admin", 3, TOKEN, {}),
        ("POST", "/beat", 4, TOKEN, {}),
        ("POST", "/beat", 3, "another", {}),
        ("POST", "/beat", 3, TOKEN, {signing.TIME: f"{NOW + 1:.3f}"}),
        ("POST", "/beat", 3, TOKEN, {signing.NONCE: "0" * 32}),
        ("POST", "/beat", 3, TOKEN, {signing.BODY: "0" * 64}),
        ("POST", "/beat", 3, TOKEN, {signing.SIGNATURE: "é"}),
        ("POST", "/beat", 3, TOKEN, {signing.SIGNATURE: ""}),
    ],
)
def test_a_changed_call_is_refused(
    method: str, path: str, epoch: int, token: str, change: dict[str, str]
) -> None:
    headers = Signer(TOKEN, 3, NOW).sign("POST", "/beat", b"{}") | change
    with pytest.raises(Unsigned):
        Verifier(token, epoch).check(method, path, headers, NOW)


def test_a_changed_body_is_refused(pair: tuple[Signer, Verifier]) -> None:
    signer, verifier = pair
    call = verifier.check("POST", "/beat", signer.sign("POST", "/beat", b"{}"), NOW)
    with pytest.raises(Unsigned, match="body"):
        call.check_body(b'{"drain": true}')


@pytest.mark.parametrize("late_s", [-1, 0, 1, signing.WINDOW_S - 1])
def test_a_call_is_taken_once(pair: tuple[Signer, Verifier], late_s: float) -> None:
    signer, verifier = pair
    headers = signer.sign("POST", "/beat")
    verifier.check("POST", "/beat", headers, NOW)
    verifier.check("POST", "/beat", signer.sign("POST", "/beat"), NOW + late_s)
    with pytest.raises(Unsigned, match="used before"):
        verifier.check("POST", "/beat", headers, NOW + late_s)


@pytest.mark.parametrize("late_s", [-1000, 121, 1e9])
def test_a_call_of_another_time_is_refused(pair: tuple[Signer, Verifier], late_s: float) -> None:
    signer, verifier = pair
    with pytest.raises(Unsigned, match="from the server's time"):
        verifier.check("POST", "/beat", signer.sign("POST", "/beat"), NOW + late_s)


@pytest.mark.parametrize("at", ["nan", "inf", "-inf", "soon", ""])
def test_a_call_whose_time_is_no_number_is_refused(
    pair: tuple[Signer, Verifier], monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """Signed by somebody who knows the token: it would be good for ever."""
    signer, verifier = pair
    headers = signer.sign("POST", "/beat") | {signing.TIME: at}
    words = ("call", "POST", "/beat", headers[signing.BODY], at, headers[signing.NONCE], 3)
    headers[signing.SIGNATURE] = signing._mac(TOKEN, *words)
    with pytest.raises(Unsigned, match="is no number"):
        verifier.check("POST", "/beat", headers, NOW)


def test_nonces_are_forgotten_once_their_time_is_over(pair: tuple[Signer, Verifier]) -> None:
    signer, verifier = pair
    for _ in range(100):
        verifier.check("POST", "/beat", signer.sign("POST", "/beat"), NOW)
    later = Signer(TOKEN, 3, NOW + 1000)
    verifier.check("POST", "/beat", later.sign("POST", "/beat"), NOW + 1000)
    assert len(verifier._seen) == len(verifier._order) == 1


@pytest.mark.parametrize(
    "status, answer, given", [(500, b"[1]", None), (200, b"[2]", None), (200, b"[1]", "0" * 64)]
)
def test_a_changed_answer_is_refused(
    pair: tuple[Signer, Verifier], status: int, answer: bytes, given: str | None
) -> None:
    signer, verifier = pair
    call = verifier.check("POST", "/beat", signer.sign("POST", "/beat"), NOW)
    headers = verifier.sign_answer(call.signature, 200, b"[1]")
    if given is not None:
        headers = {signing.SIGNATURE: given}
    with pytest.raises(Unsigned, match="not signed by this run"):
        signer.check(status, answer, headers)


def test_an_answer_to_another_request_is_refused(pair: tuple[Signer, Verifier]) -> None:
    signer, verifier = pair
    first = verifier.check("POST", "/beat", signer.sign("POST", "/beat"), NOW)
    signer.sign("POST", "/beat")
    with pytest.raises(Unsigned):
        signer.check(200, b"", verifier.sign_answer(first.signature, 200, b""))


def test_time_is_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose clock is days off signs with the server's time, counted on from its proof."""
    monkeypatch.setattr(time, "time", lambda: 1.0)
    headers = Signer(TOKEN, 3, NOW).sign("GET", "/status")
    assert abs(float(headers[signing.TIME]) - NOW) < 5


def test_derived_secrets_are_for_one_purpose() -> None:
    page, metrics = signing.derived(TOKEN, "page"), signing.derived(TOKEN, "metrics")
    assert len({page, metrics, TOKEN}) == 3
    assert signing.derived("another", "page") != page


def test_a_proof_is_of_one_address() -> None:
    proof = signing.proof_of(TOKEN, "n", "run", 3, "http://node1:5000/", NOW)
    assert proof != signing.proof_of(TOKEN, "n", "run", 3, "http://node1:5001/", NOW)
    assert proof != signing.proof_of(TOKEN, "n", "run", 3, "http://node1:5000/", NOW + 1)
