"""An image on its way from the device to the folder, where --scores has to judge it first."""

from dataclasses import dataclass
from typing import Any

from generate.client.work import Sample
from generate.dataset.samples import Metadata


@dataclass(frozen=True, eq=False)
class Candidate:
    """An image that is whole and may be published.

    jpeg: as it will be published, but for its comment; metadata: what its JSON will say; pixels:
    what the JPEG shows.
    """

    sample: Sample
    jpeg: bytes
    metadata: Metadata
    pixels: Any
