"""What a signature costs: heartbeats with the real signatures, and with none that compute anything.

    python benchmarks/signing.py            # about a minute

Two real server processes in one run, asked in turns over 32 keep-alive connections. In the second
one, and in its caller, the HMAC is replaced by a constant: all that a signature costs is gone, the
rest is the same.
"""

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.job_server import Load, rate
from common.command_line import Options, run_script
from generate.protocol import signing
from tests.fakes.running_server import RunningServer, granted

CONNECTIONS = 32
BARE = """
import sys
sys.path.insert(0, {root!r})
from generate.protocol import signing
signing._mac = lambda *words: "0" * 64
import runpy
sys.argv = sys.argv[2:]
runpy.run_path({script!r}, run_name="__main__")
"""


class Side:
    """A server and the heartbeats of one client for it."""

    def __init__(self, folder: Path, prefix: tuple[str, ...] = ()) -> None:
        self.server = RunningServer(folder, ttl_s=600, beat_s=60, prefix=prefix)
        client = self.server.client(total=1000)
        grant = granted(client)
        self.heartbeat = {
            "client_id": client.client_id,
            "leases": [grant.lease],
            "state": "drawing",
            "drawing": grant.indices[:4],
            "images": 1,
        }
        self.load = Load(self.server, CONNECTIONS)

    def heartbeats(self, seconds: float) -> float:
        """Heartbeats a second."""
        answers = self.load.run(seconds, lambda *_: self.load.request("/beat", self.heartbeat))
        return rate(answers, seconds)


def main() -> None:
    parser = Options(__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn (default: 4)")
    parser.add_argument("--turns", type=int, default=5, help="default: 5")
    args = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    folder = Path(tempfile.mkdtemp(prefix="signing_"))
    script = folder / "bare.py"
    script.write_text(BARE.format(root=str(root), script=str(root / "generate/image_server.py")))
    signed = Side(folder / "signed")
    mac = signing._mac
    signing._mac = lambda *words: "0" * 64
    bare = Side(folder / "bare", prefix=(sys.executable, str(script)))
    rates: dict[str, list[float]] = {"signed": [], "bare": []}
    for _ in range(args.turns):
        signing._mac = mac
        rates["signed"].append(signed.heartbeats(args.seconds))
        signing._mac = lambda *words: "0" * 64
        rates["bare"].append(bare.heartbeats(args.seconds))
    signed.server.stop()
    bare.server.stop()
    with_signature, without = (statistics.median(values) for values in rates.values())
    print(f"heartbeats, signed         {with_signature:8,.0f} a second")
    print(f"heartbeats, bare           {without:8,.0f} a second")
    print(f"a signature costs          {without / with_signature - 1:8.1%}")


if __name__ == "__main__":
    run_script(main)
