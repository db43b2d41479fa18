"""The calls of the job server as a Flask application: who may call, whether every field is in order, and then the ledger's word.

    app = application(server)          # server: image_server.Server

What is slow (the data set folder) is looked at before the ledger's lock is taken, so that a file system that hangs delays only those who
report what lies on it: leases and beats go on.
"""

import dataclasses
import hmac
import logging
import sqlite3
import time
from json import JSONDecodeError

from flask import Flask, json, jsonify, request
from werkzeug.exceptions import HTTPException

from generate.dataset import definition as definitions
from generate.protocol import answers
from generate.protocol.connection import proof_of
from generate.server import fields as request_fields
from generate.server import folder_check
from generate.server import page as status_page
from generate.server.fields import BadField, Fields

log = logging.getLogger("image_server")
LARGEST_BODY = 1 << 20
ERROR_TEXT = 2000  # characters of an error that are kept


def application(server):
    app = Flask("image_server", static_folder=None)
    app.json.sort_keys = app.json.ensure_ascii = False
    calls = Calls(server)
    for path in ("get_indices", "repair", "beat", "complete", "fail", "release", "admin"):
        app.add_url_rule(f"/{path}", path, guarded(server, getattr(calls, path)), methods=["POST"])
    app.register_blueprint(status_page.blueprint(server))

    @app.get("/healthz")
    def healthz():
        """Open to all: says that it lives, and proves, to who sends a nonce, that it knows the run's token."""
        nonce = request.args.get("nonce", "")
        proof = proof_of(server.token, nonce[:128], server.run_id, server.epoch)
        return jsonify(ok=True, run_id=server.run_id, epoch=server.epoch, proof=proof)

    @app.after_request
    def last_look(response):
        server.stop_if_overtaken()
        return response

    @app.errorhandler(HTTPException)
    def known(error):
        return jsonify(error=f"{error.code} {error.name}"), error.code

    @app.errorhandler(Exception)
    def unknown(error):
        log.exception("%s %s failed", request.method, request.path)
        return jsonify(error="internal error: the server's log has it"), 500

    return app


def guarded(server, call):
    """The view of a POST: token, size and form of the body, and each expected way of failing as one line that names the field."""

    def view():
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode("utf-8", "replace"), server.token.encode()):
            return jsonify(
                error="the run's token is missing or wrong: Authorization: Bearer …, see server.json"
            ), 401
        if (request.content_length or 0) > LARGEST_BODY:
            return jsonify(
                error=f"the body has {request.content_length} bytes, at most {LARGEST_BODY} are taken"
            ), 400
        server.asked_at = time.monotonic()
        try:
            fields = Fields(json.loads(request.get_data(cache=False)))
            return call(fields)
        except BadField as error:
            return jsonify(error=str(error)), 400
        except (JSONDecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            return jsonify(error=f"the body is not JSON: {type(error).__name__}"), 400
        except definitions.Differs as error:
            return jsonify(error=str(error), field=error.field), 409
        except sqlite3.OperationalError as error:
            log.error("the ledger cannot be written: %s", error)
            return jsonify(error=f"the server cannot write its ledger: {error}"), 503

    return view


class Calls:
    def __init__(self, server):
        self.server, self.look, self.write = server, server.look, server.write
        self.folders = folder_check.Folders(server)

    # ------------------------------------------------------------ work

    def get_indices(self, fields):
        name, who, definition = self._asker(fields)
        chunk = fields.number("chunk_size", 0, request_fields.MOST_CHUNK)
        llm = request_fields.llm(fields, "llm")
        self.folders.settle(name, definition)
        if chunk == 0:  # a client that wants to know whether it should load a model
            return self._answer(self.look(lambda ledger, now: ledger.peek(now, name)), None)
        if who["request_id"] is None:
            self._finished(who["client_id"])
        answer = self.write(lambda ledger, now: ledger.lease(now, name, chunk_size=chunk, **who))
        share = (
            None
            if llm is None
            else self.look(lambda ledger, now: self._llm_share(now, who["client_id"], limits=llm))
        )
        return self._answer(answer, share)

    def _finished(self, client_id):
        """A bare published client never says what it finished: that is looked up in the folder, for what it holds."""
        for lease, (name, indices) in self.look(
            lambda ledger, now: ledger.held_by(client_id)
        ).items():
            exists = {
                index: there for index, there in self.folders.done(name, indices).items() if there
            }
            results = [{"index": index, **self.folders.count(name, index)} for index in exists]
            if results:
                self.look(
                    lambda ledger, now: ledger.complete(
                        now, client_id, None, lease, results, exists
                    )
                )

    def repair(self, fields):
        name, who, definition = self._asker(fields)
        indices = fields.numbers("indices", 1000, 0, definition["total"] - 1)
        self.folders.settle(name, definition)
        answer = self.write(lambda ledger, now: ledger.repair(now, name, indices=indices, **who))
        # before the client hears of it, and after the ledger does: a check that ends just now leaves no new mark
        self.folders.unmark(name, {index // folder_check.FOLDER for index in indices})
        return self._answer(answer, None)

    def _asker(self, fields):
        """(data set, who asks, its definition) of a request for work; the published form brings none of the later fields."""
        server = self.server
        name = request_fields.output_dir(fields, server.output_root)
        total = fields.number("total_indices", 1, request_fields.MOST_INDICES)
        images = fields.number("expected_samples_per_index", 1, request_fields.MOST_IMAGES)
        job = request_fields.slurm_job_id(fields, "slurm_job_id")
        worker = request_fields.worker(fields)
        definition = request_fields.definition(fields) or {
            "name": name,
            "total": total,
            "images_per_prompt": images,
            "order_seed": None,
            "bare": True,
        }
        for field, asked in (("name", name), ("total", total), ("images_per_prompt", images)):
            if definition[field] != asked:
                raise BadField(
                    f"dataset.{field} is {definition[field]!r}, which is not what the request's other fields say: {asked!r}"
                )
        client_id = fields.word(
            "client_id", request_fields.NAME, "1 to 80 letters, digits or _.:@-", None
        )
        if client_id is None and job is None:
            raise BadField("client_id is missing (or slurm_job_id, in the published form)")
        request_id = fields.word(
            "request_id", request_fields.NAME, "1 to 80 letters, digits or _.:@-", None
        )
        who = {
            "client_id": client_id or f"job:{job}"[:80],
            "request_id": request_id,
            "worker": worker,
            "slurm": job and (job, worker["restart"] or 0),
        }
        return name, who, definition

    def _answer(self, answer, share):
        if share is not None and not isinstance(answer, answers.AllDone):
            answer = dataclasses.replace(answer, llm_share=share)
        return jsonify(answer.to_json()), answer.status

    # ------------------------------------------------------------ what becomes of it

    def beat(self, fields):
        client_id = self._client(fields)
        leases = fields.values.get("leases", [])
        if (
            not isinstance(leases, list)
            or len(leases) > 16
            or not all(isinstance(n, str) and request_fields.LEASE.fullmatch(n) for n in leases)
        ):
            raise BadField("leases must be a list of at most 16 leases like 3-17")
        state = fields.one_of("state", request_fields.STATES)
        drawing = fields.numbers("drawing", 1000, 0, request_fields.MOST_INDICES, [])
        images = fields.number("images", 0, 10**12, 0)
        dataset = fields.word("dataset", request_fields.FOLDER_NAME, "the name of a data set", None)
        worker, use = request_fields.worker(fields), request_fields.llm(fields, "llm_use")
        job = request_fields.slurm_job_id(fields, "slurm_job_id")

        def step(ledger, now):
            answer = ledger.beat(
                now,
                client_id,
                leases,
                state,
                drawing,
                images,
                worker=worker,
                dataset=dataset,
                slurm=job and (job, worker["restart"] or 0),
            )
            share = self._llm_share(now, client_id, use=use) if use is not None else None
            return answer, share

        return self._answer(*self.look(step))

    def complete(self, fields):
        client_id, lease, request_id = (
            self._client(fields),
            self._lease(fields),
            self._request(fields),
        )
        results = [
            {
                "index": item.number("index", 0, request_fields.MOST_INDICES),
                "images": item.number("images", 0, request_fields.MOST_IMAGES),
                "short": item.number("short", 0, request_fields.MOST_IMAGES, 0),
            }
            for item in fields.objects("results", request_fields.MOST_RESULTS)
        ]
        name = self.look(lambda ledger, now: ledger.dataset_of(lease))
        exists = self.folders.done(name, [result["index"] for result in results]) if name else {}
        verdicts = self.write(
            lambda ledger, now: ledger.complete(now, client_id, request_id, lease, results, exists)
        )
        return jsonify(answers.CompletionAnswer(verdicts).to_json())

    def fail(self, fields):
        client_id, lease, request_id = (
            self._client(fields),
            self._lease(fields),
            self._request(fields),
        )
        results = [
            {
                "index": item.number("index", 0, request_fields.MOST_INDICES),
                "reason": item.one_of("reason", request_fields.FAILED),
                "error": item.text("error", LARGEST_BODY, "")[:ERROR_TEXT],
                "known_good": request_fields.truth(item, "known_good"),
            }
            for item in fields.objects("results", request_fields.MOST_RESULTS)
        ]
        answer = self.write(
            lambda ledger, now: ledger.fail(now, client_id, request_id, lease, results)
        )
        return self._answer(answer, None)

    def release(self, fields):
        client_id, lease, request_id = (
            self._client(fields),
            self._lease(fields),
            self._request(fields),
        )
        reason = fields.one_of("reason", request_fields.RELEASED, "released")
        ours = self.write(
            lambda ledger, now: ledger.release(now, client_id, request_id, lease, reason)
        )
        return self._answer(answers.ReleaseAnswer([] if ours else [lease]), None)

    def _client(self, fields):
        return fields.word("client_id", request_fields.NAME, "1 to 80 letters, digits or _.:@-")

    def _request(self, fields):
        return fields.word("request_id", request_fields.NAME, "1 to 80 letters, digits or _.:@-")

    def _lease(self, fields):
        return fields.word("lease", request_fields.LEASE, "a lease like 3-17")

    def _llm_share(self, now, client_id, limits=None, use=None):
        """Under the ledger's lock. What was granted is on disk before anybody hears of it."""
        accounts = self.server.accounts
        if limits is not None:
            accounts.register(limits)
        if use is not None:
            accounts.report(now, client_id, use)
        share = accounts.share(now, client_id) if limits is not None or use is not None else None
        return share

    # ------------------------------------------------------------ the user's orders

    def admin(self, fields):
        done = []
        for order in ("drain", "resume"):
            if fields.values.get(order) is True:
                self.look(lambda ledger, now: getattr(ledger, order)(now))
                done.append(
                    "draining: leases that run are finished, no more are given"
                    if order == "drain"
                    else "leases are given again"
                )
        name = fields.text("retry_failed", 200, None)
        if name is not None:
            done.append(
                f"{self.folders.retry_failed(name):,} prompts that were set aside will be tried again"
            )
        host = fields.text("release_quarantine", 255, None)
        if host is not None:
            done.append(
                f"{self.look(lambda ledger, now: ledger.release_quarantine(now, host or None)):,} workers are trusted again"
            )
        budget, spent = (self._dollars(fields, key) for key in ("llm_budget_usd", "llm_spent_usd"))
        if budget is not None or spent is not None:

            def set_budget(ledger, now):
                self.server.accounts.set_budget(budget_usd=budget, spent_usd=spent)
                return f"LLMs: {self.server.accounts.spent():.2f} USD of {self.server.accounts.budget_usd:.2f} USD are spent"

            done.append(self.look(lambda ledger, now: set_budget(ledger, now)))
        if not done:
            raise BadField(
                "no order that is known: drain, resume, retry_failed, release_quarantine, llm_budget_usd, llm_spent_usd"
            )
        return jsonify(done=done)

    def _dollars(self, fields, name):
        value = fields.values.get(name)
        if value is not None and not (type(value) in (int, float) and 0 <= value <= 1e9):
            raise fields._bad(name, "an amount in USD from 0", value)
        return value
