"""Access to page and metrics: secrets of their own, which open nothing else.

    access = PageAccess(token, server_url)
    url = f"{server_url}?code={access.new_code(now)}"       # for one browser, within ten minutes
    cookie = access.redeem(code, now)                       # None: unknown, used or too old
    access.may_look(cookie, now)
    access.may_scrape(request.headers["Authorization"])     # Prometheus: Bearer <metrics secret>

A cookie holds its expiry time and an HMAC over it. So it is valid after a restart of the server,
which stores nothing about it; a new token (image_server.py --rotate_token) ends all cookies. It is
valid at one address: after a server has died, browsers send it to any program that takes the port,
and the run's next server then has another address.
"""

import secrets
import threading

from flask import g

from generate.protocol.signing import derived, same

CODE_S = 600.0  # a link is good for so long
COOKIE_S = 60 * 86400.0  # a browser that looked once may look for the length of a run
MOST_CODES = 100  # links asked for and not used; the oldest go first


class PageAccess:
    """now: Unix time in seconds. For all threads of the server."""

    def __init__(self, token: str, address: str) -> None:
        self._page_secret = derived(token, f"page of {address}")
        self.metrics_secret = derived(token, "metrics")
        self._codes: dict[str, float] = {}
        self._lock = threading.Lock()

    def new_code(self, now: float) -> str:
        """A code for the page's link; it works once."""
        code = secrets.token_urlsafe(24)
        with self._lock:
            self._codes[code] = now + CODE_S
            while len(self._codes) > MOST_CODES:
                del self._codes[next(iter(self._codes))]
        return code

    def redeem(self, code: str, now: float) -> str | None:
        """The cookie for the browser that opened a link; None if the link is not good any more."""
        with self._lock:
            until = self._codes.pop(code, None)
        if until is None or now > until:
            return None
        end = f"{now + COOKIE_S:.0f}"
        return f"{end}.{derived(self._page_secret, end)}"

    def may_look(self, cookie: str, now: float) -> bool:
        """Whether a cookie opens the page at this time."""
        end, _, proof = cookie.partition(".")
        if not same(proof, derived(self._page_secret, end)):
            return False
        return now <= float(end)

    def may_scrape(self, authorization: str) -> bool:
        """Whether an Authorization header holds the metrics secret."""
        return same(authorization.removeprefix("Bearer "), self.metrics_secret)


def is_signed() -> bool:
    """Whether the request that is being answered was signed with the run's token."""
    return "signature" in g
