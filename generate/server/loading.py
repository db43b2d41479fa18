"""--parallel_loads: how many clients load their model at the same time.

    ahead = loading.may_load(now, client_id, most=16)     # 0: go on; else ask again
    loading.heard(now, client_id)                         # a heartbeat
    loading.loaded(client_id)

If 128 clients read a model from one disk at once, all of them begin to generate only at the end. A
few at a time, the first begin early. Kept in memory: after a restart a few more may load together.
"""

import threading


class Loading:
    """Safe for several threads. ttl_s: a client not heard of for so long has died."""

    def __init__(self, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self._lock = threading.Lock()
        self._since: dict[str, float] = {}  # client -> when it was heard last

    def may_load(self, now: float, client_id: str, most: int) -> int:
        """0: the client has a place. Else how many others have them all."""
        with self._lock:
            self._since = {
                client: at for client, at in self._since.items() if now - at < self.ttl_s
            }
            others = len(self._since.keys() - {client_id})
            if others >= most:
                return others
            self._since[client_id] = now
            return 0

    def heard(self, now: float, client_id: str) -> None:
        """The client is alive."""
        with self._lock:
            if client_id in self._since:
                self._since[client_id] = now

    def loaded(self, client_id: str) -> None:
        """The client has its model, or gives its place up."""
        with self._lock:
            self._since.pop(client_id, None)
