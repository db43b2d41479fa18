"""Read `12345.samples`, the JSONs of a prompt in one file, where it agrees with the folder.

    prompts = whole_prompts(codes, listing)        # of a chunk: (prompt, first row, rows)
    read_collected(mark, fd, inside, prompts[0])   # the bytes

It agrees if it has a line for each JSON in the folder, in their order, and each line is of the
sample of that name (checked by sample_checks.py). Else the JSONs are read.
"""

from collections.abc import Sequence

import numpy as np

from common.packed_folder import COLLECTED, PackedFolder
from common.untrusted import read_untrusted
from postprocess_dataset.dataset_folder import CODE, Codes, Listing
from postprocess_dataset.sample_checks import Whole

JSON_BYTES = 16 << 10  # in a .samples, on average; the project's own are below 10 kB
FEWEST = 2  # JSONs of a prompt


def cuts(codes: Codes, most: int) -> list[tuple[int, int]]:
    """(start, stop) of chunks of sorted codes; prompts that fit into a chunk are not split."""
    found = []
    start = 0
    while start < len(codes):
        stop = min(start + most, len(codes))
        if stop < len(codes):
            of_prompt = int(np.searchsorted(codes, codes[stop] // CODE * CODE))
            stop = of_prompt if of_prompt > start else stop
        found.append((start, stop))
        start = stop
    return found


def whole_prompts(codes: Codes, listing: Listing) -> list[Whole]:
    """The prompts of a chunk that have a .samples, and all of whose JSONs are in the chunk."""
    if not listing.collected:
        return []
    prompts, firsts, counts = np.unique(codes // CODE, return_index=True, return_counts=True)
    begins, ends = (np.searchsorted(listing.jsons, (prompts + n) * CODE) for n in (0, 1))
    chosen = np.isin(prompts, listing.collected) & (counts == ends - begins) & (counts >= FEWEST)
    rows = zip(
        prompts[chosen].tolist(), firsts[chosen].tolist(), counts[chosen].tolist(), strict=True
    )
    return [Whole(*row) for row in rows]


def read_collected(
    mark: PackedFolder | None, fd: int, inside: Sequence[str], whole: Whole
) -> bytes:
    """A prompt's .samples, packed or else loose in the open folder `fd`.

    OSError: there is none, it cannot be read, or it is too large for its number of JSONs.
    """
    member = mark.collected(whole.prompt) if mark else None
    if member:
        return member.read(whole.rows * JSON_BYTES)
    return read_untrusted(f"{whole.prompt}{COLLECTED}", whole.rows * JSON_BYTES, inside, fd)
