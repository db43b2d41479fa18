"""How a run is doing, on the terminal: what the job server says, the errors with the log to read, and what a run will take.

    python generate/generate_images.py HPDv2.json --status
    python generate/image_server.py --status
"""

import json
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from collections import namedtuple
from pathlib import Path

Answer = namedtuple("Answer", "document why url")  # the server's status document, or None and why there is none; its address


def fetch(output_root):
    """Ask the server of this output root for its status document: an Answer."""
    path = Path(output_root) / ".server" / "server.json"
    try:
        server = json.loads(path.read_text())
    except FileNotFoundError:
        return Answer(None, "none was ever started: there is no .server/server.json", None)
    except (OSError, ValueError) as error:
        return Answer(None, f"{path} cannot be read: {error}", None)
    request = urllib.request.Request(f"{server['url']}/status", headers={"Authorization": f"Bearer {server['token']}"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a cluster's proxy leads outside, the server is inside
    try:
        with direct.open(request, timeout=10) as answer:
            return Answer(json.load(answer), None, server["url"])
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Answer(None, f"the last one, {server['url']} on {server.get('hostname', '?')}, does not answer: {reason}", server["url"])


def estimate(args, definition, items, output_root, document=None):
    return []
