"""The hub's client with limits, and the error text for an address that is no hub.

    limit_hub()    # before the first call of huggingface_hub, or of a library that uses it
    try: ...
    except Exception as error:       # whatever the hub's library makes of it
        raise UserError(f"…: {not_a_hub(error)}") from None

huggingface_hub itself waits for an answer for ever, as long as a Retry-After asks for, follows a
list's pages without an end, and sends the token to wherever the next page is said to be.
"""

import sys
import threading
import traceback
from functools import cache
from typing import TYPE_CHECKING

from common.command_line import UserError
from common.console import visible

if TYPE_CHECKING:
    import httpx2

LONGEST_WAIT_S = 3600  # before a retry: who gave the command can give it again
RETRIED = (429, 500, 502, 503, 504)  # what huggingface_hub tries again
MOST_PAGES = 300  # of a list; the hub puts 1,000 files on one, and advises 100,000 at most


class _Pages(threading.local):
    """Answers in a row, of this thread, that name a next page."""

    count = 0


_pages = _Pages()


@cache  # a second time it would close the connections of other threads
def limit_hub() -> None:
    """Every later call of huggingface_hub in this process has these limits and common.web's.

    Its bars are for a terminal, not for logs; of what it tries again the script says the outcome.
    """
    from huggingface_hub import set_client_factory  # 0.3 s that nobody else needs
    from huggingface_hub.utils import disable_progress_bars, logging

    set_client_factory(client)
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()


def client() -> "httpx2.Client":
    """The client that huggingface_hub makes, with the limits."""
    from huggingface_hub.utils._http import default_client_factory  # as above

    from common.web import limited

    made = limited(default_client_factory())
    hooks = made.event_hooks
    hooks["request"] = [*hooks["request"], keep_token]
    hooks["response"] = [*hooks["response"], refuse_long_wait, refuse_pages]
    made.event_hooks = hooks
    return made


def keep_token(request: "httpx2.Request") -> None:
    """Only the hub gets the token: not where a page of it, or an upload, points."""
    if not _of_the_hub(request.url):
        request.headers.pop("authorization", None)


def refuse_long_wait(response: "httpx2.Response") -> None:
    """UserError: the hub asks to wait longer than LONGEST_WAIT_S before the call is tried again."""
    from huggingface_hub.utils import parse_ratelimit_headers

    limits = parse_ratelimit_headers(response.headers)
    asked = response.headers.get("retry-after", "")
    wait_s = limits.reset_in_seconds if limits and limits.remaining == 0 else 0
    if asked.isascii() and asked.isdigit():
        wait_s = max(wait_s, int(asked[:12]))
    if response.status_code in RETRIED and wait_s > LONGEST_WAIT_S:
        raise UserError(
            f"the hub says {response.status_code} and asks to wait {wait_s:,} s: give the same "
            "command again then"
        )


def refuse_pages(response: "httpx2.Response") -> None:
    """UserError: a list's next page is not the hub's, or the pages do not come to an end."""
    following = response.links.get("next", {}).get("url")
    if following is None:
        _pages.count = 0
        return
    if not _of_the_hub(response.request.url.join(following)):
        raise UserError(
            f"the hub says that its list goes on at {visible(following, 200)}, which is another "
            "host: is HF_ENDPOINT right?"
        )
    _pages.count += 1
    if _pages.count >= MOST_PAGES:
        _pages.count = 0
        raise UserError(
            f"the hub's list of files has more than {MOST_PAGES:,} pages: is it the right "
            "repository?"
        )


def _of_the_hub(url: "httpx2.URL") -> bool:
    """Whether a URL has the scheme, host and port of HF_ENDPOINT."""
    import httpx2
    from huggingface_hub import constants

    hub = httpx2.URL(constants.ENDPOINT)
    return (url.scheme, url.host, _port(url)) == (hub.scheme, hub.host, _port(hub))


def _port(url: "httpx2.URL") -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def not_a_hub(error: Exception) -> str:
    """What is wrong and what to do. Any error that is not of the hub's library is raised again."""
    if isinstance(error, UserError):  # of the limits
        raise error
    frames = (frame.f_globals for frame, _ in traceback.walk_tb(error.__traceback__))
    if not any(names.get("__name__", "").startswith("huggingface_hub") for names in frames):
        raise error
    from huggingface_hub import constants  # 0.1 s that nobody else needs

    text = " ".join(str(error)[:200].split())
    return (
        f"{constants.ENDPOINT} does not answer as a hub does ({type(error).__name__}: {text}); is "
        "HF_ENDPOINT right, and no login page in between? If it is, remove "
        f"{constants.AGENT_HARNESSES_PATH}, which keeps a part of an earlier answer"
    )
