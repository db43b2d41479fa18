"""Stored answers, so that a repeated request gets the same one (guarantee 7)."""

import json
from typing import Any

from generate.server.storage.store import Store

KEPT = 50_000  # 1,000 clients can repeat a request 50 calls later


class StoredAnswers:
    """The answers, by verb ("lease", …), client and request."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def find(self, verb: str, client_id: str, request_id: str | None) -> Any:
        """What the request was answered, as JSON; None: it is a new one, or has no id."""
        row = request_id and self.store.one(
            "SELECT answer FROM answers WHERE client_id = ? AND request_id = ?",
            client_id,
            f"{verb} {request_id}",
        )
        return json.loads(row[0]) if row else None

    def keep(self, verb: str, client_id: str, request_id: str | None, answer: Any) -> None:
        """Keep an answer, as JSON; the oldest of more than KEPT go. Without an id: nothing."""
        if not request_id:
            return
        self.store.run(
            "INSERT INTO answers (client_id, request_id, answer) VALUES (?, ?, ?)",
            client_id,
            f"{verb} {request_id}",
            json.dumps(answer),
        )
        self.store.run("DELETE FROM answers WHERE n <= (SELECT MAX(n) FROM answers) - ?", KEPT)
