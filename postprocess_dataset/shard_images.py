"""Read the image of a row: where it lies, how large it is, its bytes.

images = Images("/data", ["/scratch/images"])
sizes = images.sizes([("HPDv2/000012/12345_3.jpg", "HPDv2/000012/12345_3"), …])
image, fault = images.read((image_path, key), sha256, bytearray(BUFFER))
"""

import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from common.command_line import UserError
from common.packed_folder import LOOK_EVERY_S, member_of, packed
from common.packed_tar import Member
from common.untrusted import IMAGE_BYTES, Refused, open_untrusted, real_folders
from postprocess_dataset.sample_checks import DIFFERS, bytes_fault

BUFFER = 1 << 20  # one for all images: 0.3 s less a GB than new memory for each
COLD_S = 40e-6  # a stat; a warm one takes 2 us, and then more threads only cost CPU
THREADS = 8
TASK = 64  # images
Place = tuple[str | None, str]  # image_path and key of a row


def check_folders(folders: Iterable[str]) -> None:
    """UserError if one of the folders where images may lie is none."""
    for folder in folders:
        if not os.path.isdir(folder):
            raise UserError(
                f"{folder!r} is no folder, and images should lie there: --base_dir, --image_dir"
            )


class Images:
    """Images below `base_dir`; links and absolute paths may also lead into the other folders."""

    def __init__(self, base_dir: str, image_dirs: Iterable[str] = ()) -> None:
        self.base_dir = base_dir
        self.inside = real_folders([base_dir, *image_dirs])
        self._unpacked = "", 0.0  # a folder that had no mark, and until when that is believed

    def places(self, image_path: str | None, key: str) -> list[str]:
        """Where a row's image may be, likeliest first."""
        beside = f"{self.base_dir}/{key}.jpg"
        return (
            [image_path if image_path[0] == "/" else f"{self.base_dir}/{image_path}", beside]
            if image_path
            else [beside]
        )

    def size(self, place: Place) -> int | None:
        """Bytes of a row's image; None if there is none, or it is too large for read()."""
        for path in self.places(*place):
            try:
                member = self._member(path)
                size = member.size if member else self._loose_size(path)
            except (OSError, ValueError):  # a NUL in the name
                continue
            return size if size <= IMAGE_BYTES else None
        return None

    def sizes(self, places: Sequence[Place]) -> list[int | None]:
        """The sizes of many images; by several threads when the disk is slow."""
        begun = time.monotonic()
        probe = places[:64]
        rest = places[64:]
        sizes = [self.size(place) for place in probe]
        if time.monotonic() - begun < COLD_S * len(probe):
            return sizes + [self.size(place) for place in rest]
        with ThreadPoolExecutor(THREADS) as pool:  # a task of each image takes 12 us more
            some = [rest[first : first + TASK] for first in range(0, len(rest), TASK)]
            for found in pool.map(lambda each: [self.size(place) for place in each], some):
                sizes += found
        return sizes

    def read(
        self, place: Place, sha256: str | None, buffer: bytearray
    ) -> tuple[bytes | memoryview, str | None]:
        """(the bytes of a row's image, mostly as a view of `buffer`, None), or (b"", its fault)."""
        fault = "image is missing"
        for path in self.places(*place):
            try:
                image = self._read(path, buffer)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except Refused as error:
                fault = f"image is not taken: {error.strerror}"
                continue
            except OSError as error:
                return b"", f"image cannot be read: {error.strerror}"
            wrong = bytes_fault(image, sha256)
            if wrong == DIFFERS:
                wrong = (
                    "image is not the one of the table's row (sha256 differs); "
                    "if it was generated again since, --rebuild the table"
                )
            return image, wrong
        return b"", fault

    def _member(self, path: str) -> Member | None:
        """Where a packed image lies. None: it is loose, or was packed a moment ago.

        A look for the mark at each image would be a tenth of the time.
        """
        folder, _, name = path.rpartition("/")
        known, until = self._unpacked
        now = time.monotonic()
        if folder == known and now < until:
            return None
        found = packed(folder)
        if found:
            return found.find(name)
        self._unpacked = folder, now + LOOK_EVERY_S
        return None

    def _loose_size(self, path: str) -> int:
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            if member := member_of(path):  # packed since
                return member.size
            raise

    def _read(self, path: str, buffer: bytearray) -> bytes | memoryview:
        member = self._member(path)
        if not member:
            try:
                return self._read_loose(path, buffer)
            except FileNotFoundError:
                member = member_of(path)  # packed since
                if not member:
                    raise
        if not os.path.realpath(member.path).startswith(self.inside):
            raise Refused(f"it lies outside of {' and '.join(self.inside)}", path)
        return member.read(IMAGE_BYTES)

    def _read_loose(self, path: str, buffer: bytearray) -> bytes | memoryview:
        fd = open_untrusted(path, self.inside)
        try:
            size = os.readv(fd, [buffer])
            if size < len(buffer):
                return memoryview(buffer)[:size]
            with open(fd, "rb", closefd=False) as file:
                rest = file.read(IMAGE_BYTES - size + 1)
        finally:
            os.close(fd)
        if size + len(rest) > IMAGE_BYTES:
            raise Refused(f"it is larger than {IMAGE_BYTES:,} bytes", path)
        return bytes(buffer) + rest
