"""Orders of the user to a running server: POST /admin, sent by image_server.py."""

import logging

from flask import jsonify
from flask.typing import ResponseReturnValue

from generate.protocol.fields import BadField, Fields
from generate.server.state import Server

KNOWN = (
    "drain, resume, retry_failed, release_quarantine, forget, llm_budget_usd, llm_spent_usd, "
    "rotate_token"
)
log = logging.getLogger("image_server")


class Orders:
    """Carries out orders on a running server."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def take(self, fields: Fields) -> ResponseReturnValue:
        """Carry out the orders; the answer has a sentence for each."""
        ledger = self.server.ledger
        done = []
        if fields.values.get("drain") is True and fields.values.get("resume") is True:
            raise BadField("drain and resume do not go together: one at a time")
        if fields.values.get("drain") is True:
            ledger.read(lambda ledger: ledger.store.drain())
            done.append("draining: leases that run are finished, no more are granted")
        if fields.values.get("resume") is True:
            ledger.read(lambda ledger: ledger.store.drain(False))
            done.append("leases are granted again")
        name = fields.text("retry_failed", 200, None)
        if name is not None:
            if name:
                self._check_known("retry_failed", name)
            count, stay = self.server.folders.retry_failed(name)
            done.append(f"{count:,} failed prompts will be tried again")
            if stay:
                why = "files of theirs may not be removed (the server's log names them)"
                done.append(f"{stay:,} stay failed: {why}")
        host = fields.text("release_quarantine", 255, None)
        if host is not None:
            count = ledger.read(lambda ledger: ledger.blame.release_quarantine(host or None))
            done.append(f"{count:,} workers are trusted again")
        name = fields.text("forget", 200, None)
        if name is not None:
            done.append(self._forget(name))
        budget = fields.dollars("llm_budget_usd")
        spent = fields.dollars("llm_spent_usd")
        if budget is not None or spent is not None:
            done.append(ledger.run(lambda *_: self._set_budget(budget, spent)))
        if fields.values.get("rotate_token") is True:
            self.server.rotate_token()
            done.append("a new token: clients take it from server.json; links and cookies ended")
        if not done:
            raise BadField(f"no order that is known: {KNOWN}")
        for sentence in done:
            log.info("an order was carried out: %s", sentence)
        return jsonify(done=done)

    def _check_known(self, order: str, name: str) -> None:
        """BadField for a data set that the ledger does not know."""
        known = self.server.ledger.read(lambda ledger: ledger.store.names())
        if name not in known:
            shown = ", ".join(known) or "none"
            raise BadField(f"{order}: there is no data set {name!r}; known are: {shown}")

    def _forget(self, name: str) -> str:
        self._check_known("forget", name)
        leased = self.server.ledger.read(lambda ledger: ledger.queries.counts(name))["leased"]
        if leased:
            raise BadField(
                f"forget: {leased:,} prompts of {name} are leased; end its clients first, or wait "
                "until their leases have expired"
            )
        self.server.data_sets.forget(name)
        return f"{name} is forgotten; what lies in its folder stays as it is"

    def _set_budget(self, budget: float | None, spent: float | None) -> str:
        """Under the ledger's lock, whose file the accounts share."""
        accounts = self.server.accounts
        accounts.set_budget(budget_usd=budget, spent_usd=spent)
        return f"LLMs: {accounts.spent():.2f} USD of {accounts.budget_usd:.2f} USD are spent"
