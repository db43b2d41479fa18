"""Behind the device: threads that check, encode, hash and publish images, and one that reports to the job server what became of each index.

publisher = Publisher(client, describe, place, quality); publisher.start(bound=32)
publisher.put(sample, image)                # waits while 32 images are on their way: the device must not run ahead of the disk
publisher.finish()
"""

import concurrent.futures
import errno
import queue
import threading
import time
from pathlib import Path

from common.files import sync_folder
from generate.client import image_generator as diffusion
from generate.dataset import samples
from generate.dataset.layout import FOLDER, folder_name, stem
from generate.protocol.connection import Refused, ServerAway

THREADS = (
    4  # they wait for fsync most of the time, and Pillow encodes outside of the interpreter's lock
)
LOOK_AGAIN_S = (
    1,
    2,
    4,
)  # a name just linked may not be seen by the server's node at once (NFS caches)
DISK_PAUSE_S = (5, 300)  # after a failed write: first and longest pause before new work
FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EIO: "the disk has an error",
    errno.EROFS: "the disk is read-only",
}


def disk_error(error):
    """An OSError as one line: what is wrong, and where."""
    return f"{FULL.get(error.errno, 'the disk failed')}: {error.filename or 'the output root'} ({error.strerror})"


class Publisher:
    def __init__(self, client, describe, place, quality):
        self.client, self.describe, self.place, self.quality = client, describe, place, quality
        self.images = self.completed = self.disk_failures = 0
        self.reports = queue.SimpleQueue()

    def start(self, bound):
        self.bound, self.room = bound, threading.BoundedSemaphore(bound)
        self.pool = concurrent.futures.ThreadPoolExecutor(THREADS, "publish")
        self.reporter = threading.Thread(target=self._report_on, name="report", daemon=True)
        self.reporter.start()

    def queued(self):
        return self.bound - self.room._value

    def put(self, sample, image):
        self.room.acquire()
        self.pool.submit(self._publish, sample, image)

    def report(self, index):
        self.reports.put(index)

    def finish(self):
        """Wait until all is published and reported, or the server is given up."""
        self.pool.shutdown(wait=True)
        self.reports.put(None)
        self.reporter.join()

    def disk_pause(self):
        """Seconds before new work after a failed write: more each time, until a write goes well again."""
        self.disk_failures += 1
        return min(DISK_PAUSE_S[0] * 2 ** (self.disk_failures - 1), DISK_PAUSE_S[1])

    def _publish(self, sample, image):
        index = sample.index
        try:
            problem = diffusion.problem_with(
                image, self.client.definition["height"], self.client.definition["width"]
            )
            if problem:
                return self.client.bad(sample, "image", problem)
            if not self.client.good(sample):
                return None
            metadata = self.describe(sample, image)
            samples.publish_sample(
                self.client.dataset_dir,
                image.pixels,
                metadata,
                samples.Place(index.lease, **self.place),
                self.quality,
            )
            with self.client.changed:
                self.images += 1
                self.disk_failures = 0
                index.todo.discard(sample.aug)
                self.client.settle(index)
        except OSError as error:
            self.client.fail(index, sample.aug, "disk", disk_error(error), at_once=True)
        except ValueError as error:
            self.client.fail(index, sample.aug, "prompt", str(error))
        except Exception as error:  # a fault of this program: the pool would swallow it, and the index would never end
            self.client.fail(index, sample.aug, "unknown", f"{type(error).__name__}: {error}")
            raise
        finally:
            self.room.release()

    # ---------------------------------------------------------------- reports

    def _report_on(self):
        """Report indices as they are finished; those that pile up during a call go together with the next."""
        while True:
            batch = [self.reports.get()]
            while not self.reports.empty() and len(batch) < 200:
                batch.append(self.reports.get())
            indices = [index for index in batch if index is not None]
            for lease in dict.fromkeys(index.lease for index in indices):
                try:
                    self._report([index for index in indices if index.lease == lease], lease)
                except Exception as error:
                    if not isinstance(error, (ServerAway, Refused)):
                        self.client.end(error)
                        raise
                    # its images are published all the same, and the next holder will find them
                    print(f"not reported: {error}", flush=True)
                    self.client.job.server_timeout_s = 0
                    for index in indices:
                        self.client.forget(index)
            if None in batch:
                return

    def _report(self, indices, lease):
        good, failed = [i for i in indices if not i.failures], [i for i in indices if i.failures]
        if good and lease not in self.client.job.lost:
            self._complete(good, lease)
        if failed and lease not in self.client.job.lost:
            self._fail(failed, lease)
        for index in indices:
            self.client.forget(index)

    def _complete(self, indices, lease):
        try:
            for folder in {index.number // FOLDER for index in indices}:
                sync_folder(Path(self.client.dataset_dir) / folder_name(folder * FOLDER))
        except OSError as error:
            for index in indices:
                index.failures[0] = ("disk", disk_error(error))
            return self._fail(indices, lease)
        for pause in (*LOOK_AGAIN_S, None):
            results = [
                {
                    "index": i.number,
                    "images": len(i.record["texts"]),
                    "short": (i.record["short"] or {}).get("missing", 0),
                }
                for i in indices
            ]
            verdicts = self.client.job.complete(lease, results)
            self.completed += sum(
                verdict in ("accepted", "already_done") for verdict in verdicts.values()
            )
            indices = [index for index in indices if verdicts.get(index.number) == "missing"]
            if not indices:
                return
            if pause is not None:
                time.sleep(pause)
        for index in indices:
            index.failures[0] = (
                "disk",
                "the job server does not see files that this client has published: is the output root the same file system on both nodes?",
            )
        self._fail(indices, lease)

    def _fail(self, indices, lease):
        """Report failures; "set aside" makes the .failed files, a failing disk or quarantine gives everything back."""
        results = [
            {"index": i.number, "reason": reason, "error": error[:2000]}
            for i in indices
            for reason, error in [next(iter(i.failures.values()))]
        ]
        for result, index in zip(results, indices):
            result |= {} if index.known_good is None else {"known_good": index.known_good}
        job = self.client.job
        verdicts = job.fail(lease, results)
        on_disk = next((result["error"] for result in results if result["reason"] == "disk"), None)
        for index in indices:
            if verdicts.get(index.number) == "set aside":
                self.client.set_aside += 1
                print(f"prompt {index.number} was set aside by the job server", flush=True)
                for aug, (reason, error) in index.failures.items():
                    try:
                        samples.publish_failed(
                            self.client.dataset_dir, index.number, aug, reason, error, lease
                        )
                    except OSError as problem:
                        print(
                            f"{stem(index.number, aug)}.failed was not written: {problem}",
                            flush=True,
                        )
            self.client.forget(index)
        if on_disk:
            pause = self.disk_pause()
            print(
                f"everything is given back, new work in {pause} s at the earliest: {on_disk}",
                flush=True,
            )
            self.client.feeder.next_try = time.monotonic() + pause
        if on_disk or job.quarantined_until_s is not None:
            self.client.feeder.give_back("disk" if on_disk else "released")
