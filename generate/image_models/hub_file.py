"""One small file of a hub repository, through the cache; at once where there is no network.

path = hub_file("stabilityai/sdxl-turbo", "model_index.json")
"""

import socket
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from common.hub import limit_hub

REACH_S = 3.0  # to open a connection to the hub


def hub_file(repo: str, name: str, revision: str | None = None) -> Path:
    """The file in the cache. The errors of huggingface_hub: OSError all, but for wrong names.

    A hub that does not answer is asked only for what is cached: its client would try for 24 s.
    """
    # 0.3 s that a local folder does not need
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    limit_hub()
    away = not constants.HF_HUB_OFFLINE and not _reachable(constants.ENDPOINT)
    try:
        path = hf_hub_download(repo, name, revision=revision, local_files_only=away)
    except LocalEntryNotFoundError:
        raise LocalEntryNotFoundError(
            f"{name} of {repo} is not in the local cache ({constants.HF_HUB_CACHE}) and the "
            "hub cannot be reached; is the name right, is there a network?"
        ) from None
    return Path(path)


def _reachable(url: str) -> bool:
    """Whether something listens at a URL; behind a proxy only a request would tell: True then."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host):
        return True
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((host, port), REACH_S).close()
    except OSError:
        return False
    return True
