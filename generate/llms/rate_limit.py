"""A limit per minute, as a leaky bucket. The caller passes the time.

limit = RateLimit(); limit.set(30, burst=5)
if limit.has_room(now, 1): limit.take(now, 1)
"""


class RateLimit:
    """A leaky bucket: it drains at the rate, and at most `burst` is in it at any time."""

    def __init__(self) -> None:
        self.per_minute: float | None = None  # None: no limit
        self.burst = 0.0
        self.level = 0.0
        self.at = 0.0

    def set(self, per_minute: float | None, burst: float) -> None:
        """Change the limit; what was taken stays counted."""
        self.per_minute = per_minute
        self.burst = burst

    def has_room(self, now: float, amount: float) -> bool:
        """Whether `amount` may be taken now. More than a burst is taken as a whole burst."""
        if self.per_minute is None:
            return True
        return self._level(now) + min(amount, self.burst) <= self.burst

    def take(self, now: float, amount: float) -> None:
        """Count `amount` as used."""
        if self.per_minute is not None:
            self.level = self._level(now) + min(amount, self.burst)
            self.at = now

    def _level(self, now: float) -> float:
        drained = (now - self.at) * (self.per_minute or 0.0) / 60
        return max(0.0, self.level - drained)
