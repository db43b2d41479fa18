"""Images an hour of each worker and data set, and the curve of the whole run.

    history = RunHistory(output_root / ".server" / "history.json")
    history.observe(now, unix_s, {"HPDv2": 1200}, [{"client_id": "c1", "images": 40}])
    history.save(now)
    history.per_hour("HPDv2"), history.worker_per_hour("c1"), history.points("HPDv2")

Only the curve is kept on disk (at most 300 points for each data set, whatever the run's length);
the rates are measured again within a minute.
"""

import contextlib
import json
import logging
import math
from collections import deque
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from common.files import keep_damaged, read_json, write_whole

SPACING_S = 10  # between the line's first points; doubles each time that POINTS is reached
POINTS = 300  # about 2 px each of a 600 px plot; in four weeks they stand 2-4 hours apart
WINDOW_S = 900  # the present speed is that of the last quarter of an hour
WORKER_SPACING_S = 15  # 1,000 workers x 60 samples stay below 10 MB
LEAST_S = 10  # a speed is given after this long
SAVE_EVERY_S = 10  # what a killed server loses of the line
LEAST_COUNTS = 4  # different counts of images until the ledger's speed is used
log = logging.getLogger("image_server")
Samples = deque[tuple[float, int]]  # (seconds, images)


class RunHistory:
    """Rates in memory, curves on disk."""

    def __init__(self, path: str | Path) -> None:
        """path: the JSON file of the curve. If it is damaged or missing, the curve begins anew."""
        self.path = Path(path)
        self.lines: dict[str, dict[str, Any]] = {}  # data set -> {"spacing": s, "points": [[t, n]]}
        self.recent: dict[str, Samples] = {}  # data set -> its images
        self.workers: dict[str, Samples] = {}  # client_id -> its images
        self.saved_at: float | None = None
        self.problem: str | None = None
        try:
            lines = read_json(self.path)
            self.lines = {str(name): _line(line) for name, line in lines.items()}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            if not isinstance(error, OSError):
                with contextlib.suppress(OSError):
                    keep_damaged(self.path)
            self.problem = (
                f"the line of images an hour starts anew: {self.path.name} cannot be read ({error})"
            )
            log.warning("%s", self.problem)

    def observe(
        self,
        now: float,
        unix_s: float,
        images: dict[str, int],
        workers: Iterable[dict[str, Any]],
        active: Collection[str] = (),
    ) -> None:
        """Take in one look at the run.

        now: monotonic seconds. images: data set -> images so far. workers: dicts with client_id and
        images (running total of the process). active: data sets with leases, whose line also goes
        on while no image is finished.
        """
        for name, count in images.items():
            _sample(self.recent.setdefault(name, deque()), now, count, SPACING_S)
            self._extend_line(name, unix_s, count, name in active)
        seen = {worker["client_id"]: worker["images"] or 0 for worker in workers}
        self.workers = {client: self.workers.get(client, deque()) for client in seen}
        for client, count in seen.items():
            _sample(self.workers[client], now, count, WORKER_SPACING_S)

    def _extend_line(self, name: str, unix_s: float, count: int, active: bool) -> None:
        line = self.lines.setdefault(name, {"spacing": SPACING_S, "points": []})
        points = line["points"]
        due = not points or unix_s - points[-1][0] >= line["spacing"]
        if due and (not points or active or count != points[-1][1]):
            points.append([round(unix_s), count])
        if len(points) > POINTS:
            line.update(points=points[::2], spacing=line["spacing"] * 2)

    def points(self, name: str) -> list[list[float]]:
        """[[unix seconds, images], …] of a data set since it began."""
        points: list[list[float]] = self.lines.get(name, {"points": []})["points"]
        return points

    def per_hour(self, name: str) -> float | None:
        """Images an hour over the last quarter of an hour, or None.

        None while fewer than LEAST_COUNTS counts came in: the ledger counts whole prompts, so the
        workers' heartbeats (worker_per_hour) are then the better figure.
        """
        samples = self.recent.get(name, deque())
        if len({count for _, count in samples}) < LEAST_COUNTS:
            return None
        return _per_hour(samples)

    def worker_per_hour(self, client_id: str) -> float | None:
        return _per_hour(self.workers.get(client_id, deque()))

    def watched_s(self, client_id: str) -> float:
        samples = self.workers.get(client_id)
        return samples[-1][0] - samples[0][0] if samples else 0

    def save(self, now: float) -> None:
        """Write the line, at most every SAVE_EVERY_S.

        A full disk costs its newest points, never the server.
        """
        if self.saved_at is not None and now - self.saved_at < SAVE_EVERY_S:
            return
        self.saved_at = now
        try:
            write_whole(self.path, json.dumps(self.lines))
            self.problem = None
        except OSError as error:
            self.problem = f"the line of images an hour is not saved: {error}"


def _line(line: dict[str, Any]) -> dict[str, Any]:
    """A data set's line as it was saved. ValueError, TypeError, …: it is damaged."""
    points = [[float(t), int(n)] for t, n in line["points"]]
    spacing = float(line["spacing"])
    if not all(math.isfinite(t) for t, _ in [[spacing, 0], *points]) or spacing < SPACING_S:
        raise ValueError("numbers out of bounds")
    return {"spacing": spacing, "points": points[-POINTS:]}


def _sample(samples: Samples, now: float, count: int, spacing: float) -> None:
    """Add the present sample; those before it stand `spacing` seconds apart, for WINDOW_S."""
    if samples and count < samples[-1][1]:
        samples.clear()  # a rebuilt ledger or a restarted count: no negative speed
    if len(samples) >= 2 and samples[-1][0] - samples[-2][0] < spacing:
        samples.pop()
    samples.append((now, count))
    while len(samples) > 2 and now - samples[1][0] >= WINDOW_S:
        samples.popleft()


def _per_hour(samples: Samples) -> float | None:
    if not samples or samples[-1][0] - samples[0][0] < LEAST_S:
        return None
    start, before = samples[0]
    end, after = samples[-1]
    return (after - before) / (end - start) * 3600
