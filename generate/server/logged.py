"""Warnings that would come again and again, from a thousand clients that try again.

logged = Logged(60)
logged.warning_once("the disk is full")     # again after 60 s at the earliest
"""

import logging
import time

log = logging.getLogger("image_server")


class Logged:
    """What was logged within the last `again_s` seconds."""

    def __init__(self, again_s: float) -> None:
        self.again_s = again_s
        self._when: dict[str, float] = {}

    def warning_once(self, text: str, about: str = "") -> None:
        """Log a text, unless one about the same (a client, for example) was; else the text."""
        now = time.monotonic()
        about = about or text
        if now - self._when.get(about, float("-inf")) > self.again_s:
            self._when = {said: at for said, at in self._when.items() if now - at < self.again_s}
            self._when[about] = now
            log.warning("%s", text)
