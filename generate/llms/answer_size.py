"""A limit on the bytes of an LLM server's answer, whatever its protocol.

httpx.AsyncClient(event_hooks={"request": [ask_for_plain], "response": [limit]})   # httpx2, too

A line that never ends, or a compressed answer that grows a thousandfold, would fill the memory of
every client.
"""

from collections.abc import AsyncIterator
from typing import Any

from generate.llms.failures import Failure

LONGEST = 16 << 20  # bytes; Ollama sends some 200 for each token
# of a compressed answer, which was not asked for: gzip makes at most 1,032 bytes of one
# (zlib.net/zlib_tech.html)
LONGEST_COMPRESSED = 64 << 10
COMPRESSED = ("gzip", "deflate")


async def ask_for_plain(request: Any) -> None:
    """Ask the server for an uncompressed answer."""
    request.headers["Accept-Encoding"] = "identity"


async def limit(response: Any) -> None:
    """Reading more of this answer than the limit raises Failure."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", *COMPRESSED):
        raise Failure("garbled", f"an answer in the encoding {encoding}, which was not asked for")
    most = LONGEST_COMPRESSED if encoding in COMPRESSED else LONGEST
    pieces = response.aiter_raw

    async def limited(chunk_size: int | None = None) -> AsyncIterator[bytes]:
        read = 0
        async for piece in pieces(chunk_size):
            read += len(piece)
            if read > most:
                raise Failure("garbled", f"an answer of more than {most:,} bytes")
            yield piece

    response.aiter_raw = limited
