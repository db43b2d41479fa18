"""Calls of clients: ask for indices, send heartbeats, report results.

Data set folders, which can be slow, are looked at before the ledger's lock is taken: so a file
system that hangs delays only reports on its own files, and leases and heartbeats go on.
"""

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any

from flask import jsonify
from flask.typing import ResponseReturnValue

from common.console import visible
from generate.protocol import answers
from generate.protocol import fields as wire
from generate.protocol.fields import BadField, Fields
from generate.protocol.output_root import can_be_dataset
from generate.server.ledger import acceptance, origins
from generate.server.ledger.blame import FOLDER
from generate.server.ledger.granting import WorkRequest
from generate.server.ledger.ledger import Ledger
from generate.server.ledger.live_leases import Heartbeat
from generate.server.ledger.rejected import reported as rejected_lately
from generate.server.logged import Logged
from generate.server.state import Server
from generate.server.submissions import Fault

MOST_LEASES = 16  # named in one heartbeat; a client holds two
MOST_DRAWING = 1000
LONGEST_ERROR = 1 << 20
MISREPORT_AGAIN_S = 3600  # a client's wrong count comes with each heartbeat
ERROR_TEXT = 2000  # characters of an error that are kept
Json = dict[str, Any]
log = logging.getLogger("image_server")


class WorkCalls:
    """One method for each call; fields: the request's. BadField: one is wrong."""

    def __init__(self, server: Server) -> None:
        self.output_root = server.output_root
        self.ledger = server.ledger
        self.folders = server.folders
        self.data_sets = server.data_sets
        self.accounts = server.accounts
        self.submissions = server.submissions
        self.loading = server.loading
        self.misreported = Logged(MISREPORT_AGAIN_S)

    def get_indices(self, fields: Fields) -> ResponseReturnValue:
        """POST /get_indices: a lease, or why there is none. chunk_size 0: only asks."""
        name, who, definition = self._asker(fields)
        chunk = fields.number("chunk_size", 0, wire.MOST_CHUNK)
        llm = wire.llm(fields, "llm")
        self.data_sets.settle(name, definition, starting=chunk == 0)
        worker = who["worker"]
        self.submissions.heard(self.ledger.clock(), name, worker)
        floor = fields.real("min_accepted") or 0.0
        if floor and (why := self.ledger.read(lambda ledger: _too_few(ledger, name, floor))):
            return jsonify(error=why), 409
        if chunk == 0:  # a client that wants to know whether it should load a model
            if refusal := self.submissions.refusal(name, worker):
                return jsonify(error=refusal), 409
            return reply(self.ledger.run(Ledger.peek, name))
        self.submissions.works(name, worker)
        client_id = who["client_id"]
        if who["request_id"] is None:
            self._find_finished(client_id)
        answer = self.ledger.commit(Ledger.lease, WorkRequest(name, size=chunk, **who))
        share = None if llm is None else self.ledger.run(self._share_of, client_id, limits=llm)
        return reply(answer, share)

    def _find_finished(self, client_id: str) -> None:
        """A bare published client never reports: what it holds is looked up in the folder."""
        held = self.ledger.read(lambda ledger: ledger.store.held_by(client_id))
        for lease, (name, indices) in held.items():
            there = self.folders.done(name, indices)
            exists = {index: True for index, found in there.items() if found}
            results = [{"index": index, **self.folders.count(name, index)} for index in exists]
            if results:
                self.ledger.run(Ledger.complete, client_id, None, lease, results, exists)

    def _asker(self, fields: Fields) -> tuple[str, Json, Json]:
        """(data set, who asks, its definition) of a request for work.

        The published form brings none of the later fields.
        """
        name = wire.output_dir(fields, self.output_root)
        total = fields.number("total_indices", 1, wire.MOST_INDICES)
        images = fields.number("expected_samples_per_index", 1, wire.MOST_IMAGES)
        job = fields.short_id("slurm_job_id")
        worker = wire.worker(fields)
        bare = {"total": total, "images_per_prompt": images, "order_seed": None, "bare": True}
        definition = wire.definition(fields) or {"name": name, **bare}
        for field, asked in (("name", name), ("total", total), ("images_per_prompt", images)):
            if definition[field] != asked:
                raise BadField(
                    f"dataset.{field} is {definition[field]!r}, which is not what the request's "
                    f"other fields say: {asked!r}"
                )
        client_id = fields.word("client_id", wire.NAME, wire.NAME_FORM, None)
        if client_id is None and job is None:
            raise BadField("client_id is missing (or slurm_job_id, in the published form)")
        who = {
            "client_id": client_id or f"job:{job}"[:80],
            "request_id": fields.word("request_id", wire.NAME, wire.NAME_FORM, None),
            "worker": worker,
            "slurm": job and (job, worker["restart"] or 0),
        }
        return name, who, definition

    def heartbeat(self, fields: Fields) -> ResponseReturnValue:
        """POST /beat: renew the client's leases, and take in what it reports."""
        client_id = wire.client_id(fields)
        leases = fields.leases("leases", MOST_LEASES)
        state = fields.one_of("state", wire.STATES)
        drawing = fields.numbers("drawing", MOST_DRAWING, 0, wire.MOST_INDICES, [])
        images = fields.number("images", 0, 10**12, 0)
        dataset = fields.word("dataset", can_be_dataset, "the name of a data set", None)
        worker = wire.worker(fields)
        use = self._llm_report(fields, client_id)
        fields.short_id("slurm_job_id")  # only its form is checked
        rejected = fields.number("rejected", 0, 10**12, 0)
        steps = fields.number("steps", 0, 10**15, 0)
        lately = rejected_lately(fields)
        self.loading.heard(self.ledger.clock(), client_id)
        heartbeat = Heartbeat(
            client_id, leases, state, drawing, images, worker, dataset, rejected, steps, lately
        )

        def step(ledger: Ledger, now: float) -> tuple[answers.HeartbeatAnswer, Json | None]:
            answer = ledger.heartbeat(now, heartbeat)
            share = None if use is None else self._share_of(ledger, now, client_id, use=use)
            return answer, share

        return reply(*self.ledger.run(step))

    def _llm_report(self, fields: Fields, client_id: str) -> Json | None:
        """What a heartbeat says of its LLMs; None, with a line in the log, if it cannot be used.

        The numbers come from LLM hosts and may be wrong: that costs the report, never the lease.
        """
        try:
            return wire.llm(fields, "llm_use")
        except BadField as error:
            self.misreported.warning_once(f"client {client_id}: {visible(error)}", client_id)
            return None

    def complete(self, fields: Fields) -> ResponseReturnValue:
        """POST /complete: a verdict for each index, after a look at its files."""
        client_id, lease, request_id = report(fields)
        results = [
            {
                "index": item.number("index", 0, wire.MOST_INDICES),
                "images": item.number("images", 0, wire.MOST_IMAGES),
                "short": item.number("short", 0, wire.MOST_IMAGES, 0),
                "truncated": item.number("truncated", 0, wire.MOST_IMAGES, 0),
                **acceptance.reported(item),
                **origins.reported(item),
            }
            for item in fields.objects("results", wire.MOST_RESULTS)
        ]
        once_each(results)
        name = self.ledger.read(lambda ledger: ledger.store.dataset_of(lease))
        exists = self.folders.done(name, [result["index"] for result in results]) if name else {}
        verdicts = self.ledger.commit(
            Ledger.complete, client_id, request_id, lease, results, exists
        )
        return reply(answers.CompletionAnswer(verdicts))

    def fail(self, fields: Fields) -> ResponseReturnValue:
        """POST /fail: what happens to each index that failed."""
        client_id, lease, request_id = report(fields)
        results = [
            {
                "index": item.number("index", 0, wire.MOST_INDICES),
                "reason": item.one_of("reason", wire.FAILED),
                "error": item.text("error", LONGEST_ERROR, "")[:ERROR_TEXT],
                "known_good": item.truth("known_good"),
            }
            for item in fields.objects("results", wire.MOST_RESULTS)
        ]
        once_each(results)
        name = self.ledger.read(lambda ledger: ledger.store.dataset_of(lease))
        in_broken = [each["index"] for each in results if each["reason"] == FOLDER]
        if name and in_broken:
            self.folders.look_again(name, in_broken)
        return reply(self.ledger.commit(Ledger.fail, client_id, request_id, lease, results))

    def release(self, fields: Fields) -> ResponseReturnValue:
        """POST /release: the unfinished rest of a lease waits again."""
        client_id, lease, request_id = report(fields)
        reason = fields.one_of("reason", wire.RELEASED, "released")
        name = self.ledger.read(lambda ledger: ledger.store.dataset_of(lease))
        if name and reason == FOLDER:
            held = self.ledger.read(lambda ledger: ledger.store.indices(lease))
            self.folders.look_again(name, held)
        ours = self.ledger.commit(Ledger.release, client_id, request_id, lease, reason)
        return reply(answers.ReleaseAnswer([] if ours else [lease]))

    def load(self, fields: Fields) -> ResponseReturnValue:
        """A client wants to load its model, or has loaded it."""
        client_id = wire.client_id(fields)
        if fields.truth("loaded"):
            self.loading.loaded(client_id)
            return reply(answers.LoadAnswer(0))
        most = fields.number("parallel", 1, wire.MOST_CHUNK)
        ahead = self.loading.may_load(self.ledger.clock(), client_id, most)
        return reply(answers.LoadAnswer(ahead))

    def cannot_start(self, fields: Fields) -> ResponseReturnValue:
        """A worker cannot load its model: the answer says whether any other could."""
        wire.client_id(fields)
        name = fields.word("dataset", can_be_dataset, "the name of a data set")
        worker = wire.worker(fields)
        kind = fields.one_of("kind", wire.CANNOT_START)
        fault = Fault(kind, visible(fields.text("error", LONGEST_ERROR)[:ERROR_TEXT]))
        why = self.submissions.cannot_start(self.ledger.clock(), name, worker, fault)
        if why:
            log.error("data set %s: %s", name, why)
        return reply(answers.StartAnswer(why))

    def _share_of(
        self,
        ledger: Ledger,
        now: float,
        client_id: str,
        limits: Json | None = None,
        use: Json | None = None,
    ) -> Json:
        """A client's share of the LLMs' limits and budget, under the ledger's lock.

        A grant is on disk before the client gets it.
        """
        if limits is not None:
            self.accounts.register(limits)
        if use is not None:
            self.accounts.report(now, client_id, use)
        share: Json = self.accounts.share(now, client_id)
        return share


def once_each(results: Sequence[Json]) -> None:
    """BadField: an index is reported twice in one call, and would be counted twice."""
    if len({result["index"] for result in results}) < len(results):
        raise BadField("results names an index more than once")


def report(fields: Fields) -> tuple[str, str, str]:
    """(client_id, lease, request_id) of a client that reports what became of its indices."""
    lease = fields.word("lease", wire.LEASE, "a lease like 3-17")
    return (
        wire.client_id(fields),
        lease,
        fields.word("request_id", wire.NAME, wire.NAME_FORM),
    )


def _too_few(ledger: Ledger, name: str, floor: float) -> str | None:
    return acceptance.too_few(ledger.queries, name, ledger.store.definition(name), floor)


def reply(answer: Any, share: Json | None = None) -> ResponseReturnValue:
    """The JSON body and the HTTP status of one of generate.protocol.answers."""
    if share is not None and not isinstance(answer, answers.AllDone):
        answer = dataclasses.replace(answer, llm_share=share)
    return jsonify(answer.to_json()), answer.status
