"""The state of the run as a whole in words, and what to do about it.

The field's names and values in /status ("weather", "storm", "fair") are published and stay.
"""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Json = dict[str, Any]
WHAT_TO_DO: dict[str, list[str]] = {
    "disk": [
        "Look at the space left: df -h {root}; quota -s",
        "Make room, or raise the quota. Nothing is lost: the next probe that succeeds starts "
        "everybody again.",
    ],
    "llm": [
        "See the table of LLM backends below for what they answer.",
        "Start the LLM servers again (ollama serve), or correct the key or the budget. The clients "
        "try again by themselves.",
    ],
    "gpu": [
        "Read the log named below: a driver, CUDA or memory error that every worker meets is "
        "usually the container's or the --batch_size's."
    ],
    "image": [
        "Look at the newest images: every check of a generated image fails. Is it the right model, "
        "revision and dtype?"
    ],
    "prompt": ["Read the errors below: every prompt is refused. Is it the right prompts file?"],
}
UNKNOWN = [
    "Read the log named below; leases start again by themselves with the first probe that succeeds."
]


def command(output_root: Path, option: str) -> str:
    """The command line that orders the server of this output root to do something."""
    root = shlex.quote(str(output_root))
    return f"python generate/image_server.py --output_root {root} {option}"


def health(known: Json, document: Json, output_root: Path, notice: Sequence[str]) -> Json:
    """The "weather" of the status document: the ledger's own verdict first.

    known: that verdict, with state, reason, since, probe_in_s and errors as the document has them.
    notice: what the server is busy with beside its clients, and what to do about it.
    """
    answer = {**known, "what_to_do": []}
    if known["state"] == "storm":
        todo = WHAT_TO_DO.get(known["reason"] or "", UNKNOWN)
        return answer | {
            "headline": "Halted: every worker fails. No work is granted but for a probe; no prompt "
            "and no worker is held responsible.",
            "what_to_do": [line.format(root=output_root) for line in todo],
        }
    if known["state"] == "draining":
        return answer | {
            "headline": "Draining: running leases are finished, no new ones are granted.",
            "what_to_do": [command(output_root, "--resume")],
        }
    if notice:
        return answer | {
            "state": "rebuilding",
            "headline": notice[0],
            "what_to_do": list(notice[1:]),
        }
    return answer | _by_the_figures(document, output_root)


def _by_the_figures(document: Json, output_root: Path) -> Json:
    workers = document["workers"]
    datasets: Sequence[Json] = document["datasets"]
    if not datasets:
        return {
            "state": "idle",
            "headline": "No data set yet: no client has asked for work.",
            "what_to_do": ["python generate/generate_images.py PROMPTS.json …"],
        }
    here = [dataset for dataset in datasets if not dataset["detached"]]
    if not sum(dataset["waiting"] + dataset["leased"] for dataset in here):
        but = " but for the prompts that failed" if document["set_aside"]["total"] else ""
        return {"state": "finished", "headline": f"All work is done{but}."}
    if document["stopped"]:
        run = document["stopped"][-1]
        log = run["log"]
        return {
            "state": "storm",
            "reason": "command",
            "since": run["time"],
            "headline": f"Stopped: no worker can do what the command for {run['dataset']} asks: "
            f"{run['error']}",
            "what_to_do": [
                f"Found on {run['host']}" + (f": read {output_root}/{log}" if log else ""),
                "Correct it, then submit again (after --cancel, where tasks still wait).",
            ],
        }
    if not workers["total"]:
        return {
            "state": "idle",
            "headline": "Work is left, and no client is asking for it.",
            "what_to_do": [
                *(["squeue --me"] if shutil.which("squeue") else []),
                "python generate/generate_images.py PROMPTS.json …",
            ],
        }
    healthy = any(backend["clients"].get("healthy") for backend in document["llm"]["backends"])
    if workers["by_state"].get("waiting_llm") == workers["total"] and not healthy:
        return {
            "state": "storm",
            "reason": "llm",
            "headline": "Every client waits for an LLM, and none is healthy.",
            "what_to_do": WHAT_TO_DO["llm"],
        }
    return {"state": "fair", "headline": "Running."}


def ledger_silent(silent_s: float, output_root: Path, since: str) -> Json:
    """The "weather" while the ledger does not answer."""
    return {
        "state": "storm",
        "reason": "disk",
        "since": since,
        "probe_in_s": None,
        "errors": [],
        "headline": f"The ledger has not answered for {silent_s:.0f} s: the file system of the "
        "output root hangs, or is away.",
        "what_to_do": [
            f"ls {output_root}",
            "If that hangs too, ask who runs the file system; the run goes on by itself once it is "
            "back.",
        ],
    }
