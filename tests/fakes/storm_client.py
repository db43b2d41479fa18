"""A client in 100 lines for storms: the real JobClient and samples.py around FakePipeline.

    python tests/fakes/storm_client.py OUTPUT_ROOT --total 600 --images 2 --host node3

It starts in 0.3 s, to be killed by the hundred.

Faults are those of fake_pipeline.py's environment variables. Prompts are "prompt <index>".
"""

import argparse
import contextlib
import errno
import os
import random
import signal
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from common.files import sync_folder
from generate.client.job_client import JobClient
from generate.client.worker import WorkerIdentity
from generate.dataset import samples
from generate.dataset.captions import publish_captions
from generate.dataset.layout import FOLDER, folder_name, path_of
from generate.dataset.scan import IndexFiles, scan_folder
from generate.protocol.answers import AllDone, Wait
from generate.protocol.connection import Refused, ServerAway
from tests.fakes.fake_pipeline import FakeGenerator, FakePipeline

SIZE = 16


def definition(name, total, images):
    return {
        "name": name,
        "prompts_file": f"{name}.json",
        "prompts_sha256": "0" * 64,
        "total": total,
        "images_per_prompt": images,
        "order_seed": 7,
        "run_seed": 0,
        "model": "fake",
        "revision": None,
        "height": SIZE,
        "width": SIZE,
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "augment_prompts": images > 1,
    }


class Storm:
    def __init__(self, args):
        self.args = args
        self.stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, lambda *_: self.stopping.set())
        self.folder = Path(args.output_root).resolve() / "generated_images" / args.name
        self.job = JobClient(
            args.output_root,
            definition(args.name, args.total, args.images),
            WorkerIdentity(args.host, f"GPU-{args.host}"),
            server_timeout_s=args.server_timeout_s,
            stopping=self.stopping,
        )
        self.report = {"leases": [], "state": "idle", "drawing": [], "images": 0}
        self.pipe = FakePipeline()

    def run(self):
        self.job.start_heartbeats(lambda: dict(self.report))
        while not self.stopping.is_set():
            answer = self.job.get_indices(self.args.chunk_size)
            if isinstance(answer, AllDone):
                return 0
            if isinstance(answer, Wait):
                self.stopping.wait(min(answer.retry_after_s, 2.0) * random.uniform(0.5, 1))
                continue
            self.work(answer)
        return 0

    def work(self, grant):
        good = self.known_good() if grant.canary else None
        for index in grant.indices:
            if self.stopping.is_set() or grant.lease in self.job.lost:
                break
            self.report.update(leases=[grant.lease], state="drawing", drawing=[index])
            with contextlib.suppress(ServerAway):
                self.job.heartbeat(
                    self.report
                )  # should this index kill the process, the server knows which it was
            try:
                if good is False:
                    raise RuntimeError(
                        "CUDA error: not even a text that is known to be good can be drawn"
                    )
                images = self.draw(index, grant.lease)
            except (RuntimeError, ValueError, OSError) as error:
                reason = (
                    "disk"
                    if isinstance(error, OSError)
                    else "gpu"
                    if "CUDA" in str(error)
                    else "image"
                )
                failure = {
                    "index": index,
                    "reason": reason,
                    "error": f"{type(error).__name__}: {error}",
                }
                verdict = self.job.fail(
                    grant.lease, [failure | ({} if good is None else {"known_good": good})]
                )[index]
                if verdict == "set aside":
                    self.give_up(index, reason, str(error), grant.lease)
                if self.job.quarantined_s:
                    break
                continue
            sync_folder(self.folder / folder_name(index))
            self.job.complete(grant.lease, [{"index": index, "images": images, "short": 0}])
        self.report.update(leases=[], state="idle", drawing=[])
        if grant.lease not in self.job.lost:
            self.job.release(grant.lease, "preempted" if self.stopping.is_set() else "released")

    def known_good(self):
        try:
            return bool(
                0.01
                < self.pipe(["a red cube"], [FakeGenerator(1)], SIZE, SIZE).images[0].mean()
                < 1
            )
        except RuntimeError:
            return False

    def draw(self, index, lease):
        files = scan_folder(self.folder, index // FOLDER, {index}).get(index, IndexFiles())
        samples.remove_temporary(self.folder, index, lease, files.temporary)
        texts = [
            {
                "text": f"prompt {index}" + f", variation {aug}" * (aug > 0),
                "llm_model_name": None,
                "backend": None,
            }
            for aug in range(self.args.images)
        ]
        record = {
            "prompt_index": index,
            "original_prompt": f"prompt {index}",
            "source": ["storm"],
            "texts": texts,
            "short": None,
        }
        record = publish_captions(self.folder, record, lease)
        for aug, text in enumerate(record["texts"]):
            if samples.roll_forward(self.folder, index, aug, lease):
                continue
            seed = index * 1000 + aug
            image = self.pipe([text["text"]], [FakeGenerator(seed)], SIZE, SIZE).images[0]
            if not 0.01 < image.mean() < 1:
                raise ValueError("the image is black or not a number")
            metadata = {
                "prompt_index": index,
                "augmentation_idx": aug,
                "original_prompt": record["original_prompt"],
                "augmented_prompt": text["text"],
            }
            if os.path.exists(
                os.environ.get("FAKE_DISK_FULL", "")
            ):  # where no small disk can be mounted
                raise OSError(errno.ENOSPC, "No space left on device (injected)")
            pixels = (image.transpose(1, 2, 0) * 255).astype("uint8")
            samples.publish_sample(
                self.folder,
                pixels,
                metadata,
                samples.Place(lease, hostname=self.args.host),
                80,
            )
            self.report["images"] += 1
        return len(record["texts"])

    def give_up(self, index, reason, error, lease):
        for aug in range(self.args.images):
            if not path_of(self.folder, index, aug, ".jpg").exists():
                samples.publish_failed(self.folder, index, aug, reason, error, lease)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("output_root")
    parser.add_argument("--name", default="storm")
    parser.add_argument("--total", type=int, default=600)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--chunk_size", type=int, default=5)
    parser.add_argument("--host", default=os.uname().nodename)
    parser.add_argument("--server_timeout_s", type=float, default=60)
    try:
        sys.exit(Storm(parser.parse_args()).run())
    except (ServerAway, Refused) as error:
        sys.exit(f"storm_client: {error}")
