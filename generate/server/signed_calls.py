"""Check the signature of each call that changes something, and sign its answer.

guard(app, server)          # flask: verifies before a route is reached, signs what leaves
admits(server)              # waitress: the same look at the headers, before the body is read
"""

import time
from collections.abc import Mapping

from flask import Flask, Response, g, jsonify, request
from flask.typing import ResponseReturnValue

from generate.protocol.signing import HEADERS, SIGNATURE, Unsigned, Verifier
from generate.server.page.page_access import is_signed
from generate.server.state import Server
from generate.server.wsgi import Admits

LARGEST_BODY = 1 << 20


def server_time() -> float:
    """Seconds of the monotonic clock, which nobody can set; it is valid for this epoch only."""
    return time.monotonic()


def admits(server: Server) -> Admits:
    """For waitress: "" if a request's headers are in order, else why it is refused.

    waitress keeps the names of headers as X_SIGNATURE.
    """

    def look(method: str, path: str, headers: Mapping[str, str]) -> str:
        named = {name: headers.get(name.upper().replace("-", "_"), "") for name in HEADERS}
        if method != "POST" and not named[SIGNATURE]:
            return ""  # pages; what they show has a look of its own
        try:
            server.verifier.look(method, path, named, server_time())
        except Unsigned as error:
            return str(error)
        return ""

    return look


def guard(app: Flask, server: Server) -> None:
    """Refuse unsigned calls with 401; a signed one has its body compared and its answer signed."""

    @app.before_request
    def verify() -> ResponseReturnValue | None:
        if request.method != "POST" and SIGNATURE not in request.headers:
            return None
        size = request.content_length or 0
        if size > LARGEST_BODY:
            return jsonify(
                error=f"the body has {size} bytes, at most {LARGEST_BODY} are taken"
            ), 400
        path = request.environ["REQUEST_URI"]  # as it was sent: "/%62eat" is not "/beat"
        verifier: Verifier = server.verifier
        try:
            headers = {name: request.headers.get(name, "") for name in HEADERS}
            call = verifier.check(request.method, path, headers, server_time())
            call.check_body(request.get_data())
        except Unsigned as error:
            return jsonify(error=str(error)), 401
        g.verifier = verifier  # a new token must not sign the answer to the call that asked for it
        g.signature = call.signature
        return None

    @app.after_request
    def sign(response: Response) -> Response:
        if is_signed():
            response.direct_passthrough = False  # a file is read to be signed
            signed = g.verifier.sign_answer(g.signature, response.status_code, response.get_data())
            response.headers.update(signed)
        return response
