"""What a client reports of a finished prompt.

result_of(index, judge.report(index.tried))     # {"index": 12345, "images": 199, "short": 0, …}
"""

from typing import Any

from generate.client.origins import origins_of
from generate.client.work import Index
from generate.dataset.captions import missing_of


def captions_of(index: Index) -> int:
    """How many captions a prompt has."""
    assert index.record is not None, "an index without captions has no image"
    return len(index.record["texts"])


def result_of(index: Index, acceptance: dict[str, Any]) -> dict[str, Any]:
    """Its entry in the report to the job server; acceptance: as of Judge.report()."""
    assert index.record is not None, "an index without captions has no image"
    captions = captions_of(index)
    # a .failed of a run with more captions counts for nothing
    failed = {aug for aug in index.given_up | index.files.failed if aug < captions}
    given_up = failed - index.files.images
    return {
        "index": index.number,
        "images": captions - len(given_up),
        "short": missing_of(index.record),
        "truncated": index.truncated,
        "origins": origins_of(index.record, given_up, index.tried),
        **acceptance,
    }
