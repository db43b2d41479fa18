"""How fast a run goes: images an hour per worker and per data set, and the line of the run's whole life.

    history = RunHistory(output_root / ".server" / "history.json")
    history.observe(now, unix_s, images={"HPDv2": 1200}, workers=[{"client_id": "c1", "dataset": "HPDv2", "images": 40}])
    history.save(now)
    history.per_hour("HPDv2"), history.worker_per_hour("c1"), history.points("HPDv2")

Only the line is kept on disk (at most 300 points a data set, whatever the run's length); the rates are learnt again in a minute.
"""

import contextlib
import json
import os
from collections import deque
from pathlib import Path

SPACING_S = 10  # between the line's first points; doubles each time that POINTS is reached
POINTS = (
    300  # a point is about 2 px of a 600 px plot; four weeks then stand a point every 2-4 hours
)
WINDOW_S = 900  # the present speed is that of the last quarter of an hour
WORKER_SPACING_S = 15  # 1,000 workers x 60 samples stay below 10 MB
LEAST_S = 10  # a speed is given after this long
SAVE_EVERY_S = 10  # what a killed server loses of the line


class RunHistory:
    def __init__(self, path):
        """path: the JSON file of the line; one that is torn or missing only costs the line's past."""
        self.path = Path(path)
        self.lines = {}  # data set -> {"spacing": seconds, "points": [[unix seconds, images], …]}
        self.recent = {}  # data set -> deque of (now, images)
        self.workers = {}  # client_id -> the same
        self.saved_at = None
        self.problem = None
        try:
            lines = json.loads(self.path.read_text())
            self.lines = {
                str(name): {
                    "spacing": float(line["spacing"]),
                    "points": [[float(t), int(n)] for t, n in line["points"]],
                }
                for name, line in lines.items()
            }
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.problem = (
                f"the line of images an hour starts anew: {self.path.name} cannot be read ({error})"
            )

    def observe(self, now, unix_s, images, workers, active=()):
        """Take in one look at the run. now: monotonic seconds; images: data set -> images drawn so far; workers: dicts with client_id and
        images (running total of the process); active: data sets with leases, whose line also goes on while no image is finished."""
        for name, count in images.items():
            _sample(self.recent.setdefault(name, deque()), now, count, SPACING_S)
            line = self.lines.setdefault(name, {"spacing": SPACING_S, "points": []})
            points = line["points"]
            if not points or (
                unix_s - points[-1][0] >= line["spacing"]
                and (count != points[-1][1] or name in active)
            ):
                points.append([round(unix_s), count])
            if len(points) > POINTS:
                line.update(points=points[::2], spacing=line["spacing"] * 2)
        seen = {worker["client_id"] for worker in workers}
        self.workers = {
            client: samples for client, samples in self.workers.items() if client in seen
        }
        for worker in workers:
            _sample(
                self.workers.setdefault(worker["client_id"], deque()),
                now,
                worker["images"] or 0,
                WORKER_SPACING_S,
            )

    def points(self, name):
        return self.lines.get(name, {"points": []})["points"]

    def per_hour(self, name):
        """Images an hour over the last quarter of an hour, or None: as long as fewer than three prompts' images came in, the workers' beats
        (worker_per_hour) say more than the ledger, which counts whole prompts."""
        samples = self.recent.get(name, ())
        if len({count for _, count in samples}) < 4:
            return None
        return _per_hour(samples)

    def worker_per_hour(self, client_id):
        return _per_hour(self.workers.get(client_id, ()))

    def watched_s(self, client_id):
        samples = self.workers.get(client_id, ())
        return samples[-1][0] - samples[0][0] if samples else 0

    def save(self, now):
        """Write the line, at most every SAVE_EVERY_S; a full disk costs its newest points, never the server."""
        if self.saved_at is not None and now - self.saved_at < SAVE_EVERY_S:
            return
        self.saved_at = now
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with open(draft, "w") as file:
                json.dump(self.lines, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self.path)
            self.problem = None
        except OSError as error:
            self.problem = f"the line of images an hour is not saved: {error}"
            with contextlib.suppress(OSError):  # the first error is the one to show
                draft.unlink(missing_ok=True)


def _sample(samples, now, count, spacing):
    """The last sample is always the present one; those before it stand `spacing` seconds apart, for WINDOW_S seconds."""
    if samples and count < samples[-1][1]:
        samples.clear()  # a rebuilt ledger or a restarted count: no negative speed
    if len(samples) >= 2 and samples[-1][0] - samples[-2][0] < spacing:
        samples.pop()
    samples.append((now, count))
    while len(samples) > 2 and now - samples[1][0] >= WINDOW_S:
        samples.popleft()


def _per_hour(samples):
    if not samples or samples[-1][0] - samples[0][0] < LEAST_S:
        return None
    (start, before), (end, after) = samples[0], samples[-1]
    return (after - before) / (end - start) * 3600
