"""How long a push waits for the hub: neither for an answer nor before a retry without an end.

    limit_waits()    # before the first call of huggingface_hub

huggingface_hub itself waits for an answer for ever, and as long as a Retry-After asks for.
"""

from typing import TYPE_CHECKING

from huggingface_hub import set_client_factory
from huggingface_hub.utils import parse_ratelimit_headers
from huggingface_hub.utils._http import default_client_factory

from common.command_line import UserError

if TYPE_CHECKING:
    import httpx2

ANSWER_S = 300.0  # between two bytes; a hub takes a minute to check a part of some GB
LONGEST_WAIT_S = 3600  # before a retry: who gave the command can give it again
RETRIED = (429, 500, 502, 503, 504)  # what huggingface_hub tries again


def limit_waits() -> None:
    """Every later call of huggingface_hub in this process has these limits."""
    set_client_factory(client)


def client() -> "httpx2.Client":
    """The client that huggingface_hub makes, with the limits."""
    made: httpx2.Client = default_client_factory()
    made.timeout = ANSWER_S
    hooks = made.event_hooks
    hooks["response"] = [*hooks.get("response", []), refuse_long_wait]
    made.event_hooks = hooks
    return made


def refuse_long_wait(response: "httpx2.Response") -> None:
    """UserError: the hub asks to wait longer than LONGEST_WAIT_S before the call is tried again."""
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
