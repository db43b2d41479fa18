"""HTTP routes of the job server, in Flask: who may call, and each refusal as one line.

app = application(server)          # server: state.Server
"""

import logging
import sqlite3
from collections.abc import Callable

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from common.json_text import parse_json
from generate.dataset.definition import Differs, Extended
from generate.protocol.fields import BadField, Fields
from generate.protocol.signing import proof_of, same, seen_proof
from generate.server.identity import EPOCH
from generate.server.logged import Logged
from generate.server.orders import Orders
from generate.server.page.page import blueprint
from generate.server.signed_calls import guard, server_time
from generate.server.state import Server
from generate.server.work_calls import WorkCalls

log = logging.getLogger("image_server")
LOG_AGAIN_S = 60.0


def application(server: Server) -> Flask:
    """The Flask application over a server."""
    app = Flask("image_server", static_folder=None)
    app.json.sort_keys = app.json.ensure_ascii = False  # type: ignore[attr-defined]
    work = WorkCalls(server)
    calls = {
        "get_indices": work.get_indices,
        "beat": work.heartbeat,
        "cannot_start": work.cannot_start,
        "load": work.load,
        "complete": work.complete,
        "fail": work.fail,
        "release": work.release,
        "admin": Orders(server).take,
    }
    for name, call in calls.items():
        app.add_url_rule(f"/{name}", name, guarded(server, call), methods=["POST"])
    app.register_blueprint(blueprint(server))
    guard(app, server)
    answer_errors(app)

    @app.get("/healthz")
    def healthz() -> ResponseReturnValue:
        """Open to all: says that it lives, and proves that it knows the run's token."""
        nonce = request.args.get("nonce", "")[:128]
        seen = request.args.get("seen", "")
        known = seen_proof(server.token, nonce, server.run_id, seen)
        if EPOCH.fullmatch(seen) and same(request.args.get("seen_proof", ""), known):
            server.client_has_seen(int(seen))
        now = server_time()
        proof = proof_of(server.token, nonce, server.run_id, server.epoch, server.url, now)
        return jsonify(ok=True, run_id=server.run_id, epoch=server.epoch, time=now, proof=proof)

    @app.after_request
    def last_look(response: Response) -> Response:
        server.stop_if_superseded()
        return response

    return app


def answer_errors(app: Flask) -> None:
    """What a call raises becomes a JSON answer with its cause."""
    logged = Logged(LOG_AGAIN_S)

    @app.errorhandler(HTTPException)
    def known(error: HTTPException) -> ResponseReturnValue:
        return jsonify(error=f"{error.code} {error.name}"), error.code or 500

    @app.errorhandler(OSError)
    def disk(error: OSError) -> ResponseReturnValue:
        """503, so that clients try again: a fault of the disk, or of rights, may pass."""
        where = error.filename or "the output root"
        text = f"the server cannot use {where}: {error.strerror or error}"
        logged.warning_once(text)
        return jsonify(error=text), 503

    @app.errorhandler(Exception)
    def unknown(error: Exception) -> ResponseReturnValue:
        log.exception("%s %s failed", request.method, request.path)
        return jsonify(error="internal error: the server's log has it"), 500


def guarded(
    server: Server, call: Callable[[Fields], ResponseReturnValue]
) -> Callable[[], ResponseReturnValue]:
    """The view of a POST: the form of its body, and each expected way of failing.

    Every refusal is one line that names the field.
    """

    def view() -> ResponseReturnValue:
        server.was_asked()
        try:
            fields = Fields(parse_json(request.get_data(cache=False)))
        except BadField as error:
            return jsonify(error=str(error)), 400
        except ValueError as error:
            return jsonify(error=f"the body is not JSON: {type(error).__name__}"), 400
        try:
            return call(fields)
        except (BadField, ValueError) as error:
            return jsonify(error=str(error)), 400
        except Extended as error:
            return jsonify(error=str(error), extended=error.definition), 409
        except Differs as error:
            return jsonify(error=str(error), field=error.field), 409
        except sqlite3.OperationalError as error:
            log.error("the ledger cannot be written: %s", error)
            return jsonify(error=f"the server cannot write its ledger: {error}"), 503

    return view
