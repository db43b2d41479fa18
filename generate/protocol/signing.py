"""Signed calls: HMAC signatures, so that the run's token itself is never sent.

    signer = Signer(token, epoch, server_time)                       # a client, once a connection
    headers = signer.sign("POST", "/beat", body)
    signer.check(status, answer, response_headers)                   # Unsigned if it was changed

    verifier = Verifier(token, epoch)                                # the server
    call = verifier.check("POST", "/beat", headers, now)             # Unsigned; before the body
    call.check_body(body)
    headers = verifier.sign_answer(call.signature, 200, answer)

A request's signature is HMAC-SHA256 over method, path, the body's SHA-256, the server's time, a
nonce, and the server's epoch; an answer's covers the request's signature, the status and the
answer. So a relay, or another program on the server's old port, can neither read a secret, nor
change a call or an answer, nor send a call twice: a nonce is refused for as long as its time is
accepted, and an epoch ends with its server.

Clients take the time from the server's own (signed) proof: clocks of nodes may be days apart.
"""

import hashlib
import hmac
import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

SIGNATURE = "X-Signature"
TIME = "X-Time"
NONCE = "X-Nonce"
BODY = "X-Body-SHA256"
HEADERS = (SIGNATURE, TIME, NONCE, BODY)
WINDOW_S = 120.0  # a signature is accepted so long before and after the server's time


class Unsigned(ValueError):
    """A call or an answer without a right signature; the text says what is wrong with it."""


def derived(token: str, purpose: str) -> str:
    """A secret for one purpose ("page", "metrics"), which opens nothing else and not the token."""
    return hmac.new(token.encode(), f"derived: {purpose}".encode(), hashlib.sha256).hexdigest()


def proof_of(token: str, nonce: str, run_id: str, epoch: object, url: str, at: float) -> str:
    """The proof of /healthz?nonce=…: whoever sends it knows the token; the token is not in it.

    It names the address it speaks for, so that a relay on another port cannot pass it on, and the
    server's time, so that nobody can turn a client's clock.
    """
    return _mac(token, "proof", nonce, run_id, epoch, url, f"{at:.3f}")


def seen_proof(token: str, nonce: str, run_id: str, epoch: object) -> str:
    """The proof of /healthz?seen=…: whoever reports this epoch to the server knows the token."""
    return _mac(token, "seen", nonce, run_id, epoch)


def _mac(token: str, *words: object) -> str:
    """Hex HMAC-SHA256 over the words, each with its length before it: no two lists are equal."""
    parts = [str(word).encode("utf-8", "surrogateescape") for word in words]
    message = b"".join(b"%d:%b" % (len(part), part) for part in parts)
    return hmac.new(token.encode(), message, hashlib.sha256).hexdigest()


def same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, compared in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


class Signer:
    """A client's side of one connection. Not to be shared between threads."""

    def __init__(self, token: str, epoch: int, server_time: float) -> None:
        """server_time: of the server's proof, in seconds; from then on this side counts itself."""
        self._token = token
        self._epoch = epoch
        self._ahead_s = server_time - time.monotonic()
        self._signature = ""

    def sign(self, method: str, path: str, body: bytes = b"") -> dict[str, str]:
        """The headers that sign a request. path: with its query, as the server will see it."""
        at = f"{time.monotonic() + self._ahead_s:.3f}"
        nonce = secrets.token_hex(16)
        digest = hashlib.sha256(body).hexdigest()
        self._signature = _mac(self._token, "call", method, path, digest, at, nonce, self._epoch)
        return {SIGNATURE: self._signature, TIME: at, NONCE: nonce, BODY: digest}

    def check(self, status: int, answer: bytes, headers: Mapping[str, str]) -> None:
        """Unsigned if this is not the server's answer to the request that was signed last."""
        wanted = _mac(self._token, "answer", self._signature, status, _digest(answer))
        if not same(headers.get(SIGNATURE) or "", wanted):
            raise Unsigned("the answer is not signed by this run's job server")


@dataclass(frozen=True)
class SignedCall:
    """A request whose headers are in order; its body is still to be compared."""

    signature: str
    digest: str

    def check_body(self, body: bytes) -> None:
        if not same(self.digest, _digest(body)):
            raise Unsigned("the body is not the one that was signed")


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Verifier:
    """The server's side, for all its threads."""

    def __init__(self, token: str, epoch: int) -> None:
        self._token = token
        self._epoch = epoch
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._order: deque[tuple[float, str]] = deque()  # (accepted until, nonce), oldest first

    def check(self, method: str, path: str, headers: Mapping[str, str], now: float) -> SignedCall:
        """The call, which is taken once. Unsigned as in look(), or if it was taken before."""
        call, until, nonce = self.look(method, path, headers, now)
        with self._lock:
            self._forget(now)
            if nonce in self._seen:
                raise Unsigned("this signature was used before")
            self._seen.add(nonce)
            self._order.append((until, nonce))
        return call

    def look(
        self, method: str, path: str, headers: Mapping[str, str], now: float
    ) -> tuple[SignedCall, float, str]:
        """(the call, until when it is good, its nonce), from its headers alone.

        now: the server's time in seconds, as in its proofs. Unsigned: no signature, a wrong one, or
        one that is too old or too new.
        """
        given = headers.get(SIGNATURE) or ""
        at = headers.get(TIME) or ""
        nonce = headers.get(NONCE) or ""
        digest = headers.get(BODY) or ""
        if not given:
            raise Unsigned("this call is not signed with the run's token: see docs/job-server.md")
        wanted = _mac(self._token, "call", method, path, digest, at, nonce, self._epoch)
        if not same(given, wanted):
            raise Unsigned("the signature is wrong: another run's token, or an older server's")
        try:
            signed_at = float(at)
        except ValueError:
            signed_at = math.nan
        if not math.isfinite(signed_at):
            raise Unsigned("the time of the signature is no number")
        if abs(signed_at - now) > WINDOW_S:
            raise Unsigned(f"the signature is {abs(signed_at - now):.0f} s from the server's time")
        return SignedCall(given, digest), signed_at + WINDOW_S, nonce

    def _forget(self, now: float) -> None:
        """Drop nonces whose time has passed, in order of arrival; some stay a little longer."""
        while self._order and self._order[0][0] < now:
            self._seen.discard(self._order.popleft()[1])

    def sign_answer(self, signature: str, status: int, answer: bytes) -> dict[str, str]:
        """The header that signs an answer to the request of that signature."""
        return {SIGNATURE: _mac(self._token, "answer", signature, status, _digest(answer))}
