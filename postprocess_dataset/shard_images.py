"""A row's image: where it lies, how large it is, its bytes.

sizes = image_sizes("/data", [("HPDv2/000012/12345_3.jpg", "HPDv2/000012/12345_3"), …])
image, fault = read_image("/data", image_path, key, sha256, bytearray(1 << 20))
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from postprocess_dataset.sample_checks import bytes_fault

COLD_S = 40e-6  # a stat; a warm one takes 2 us, and then more threads only cost CPU
THREADS = 8
Place = tuple[str | None, str]  # image_path and key of a row


def image_places(base_dir: str, image_path: str | None, key: str) -> list[str]:
    """Where a row's image may be, likeliest first."""
    beside = f"{base_dir}/{key}.jpg"
    return (
        [image_path if image_path[0] == "/" else f"{base_dir}/{image_path}", beside]
        if image_path
        else [beside]
    )


def image_size(base_dir: str, place: Place) -> int | None:
    """Bytes of a row's image, or None."""
    for path in image_places(base_dir, *place):
        try:
            return os.stat(path).st_size
        except OSError:
            continue
    return None


def image_sizes(base_dir: str, places: Sequence[Place]) -> list[int | None]:
    """The sizes of many images; by several threads when the disk is slow."""
    begun = time.monotonic()
    probe = places[:64]
    rest = places[64:]
    sizes = [image_size(base_dir, place) for place in probe]
    if time.monotonic() - begun < COLD_S * len(probe):
        return sizes + [image_size(base_dir, place) for place in rest]
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda place: image_size(base_dir, place), rest, chunksize=64)
        return sizes + list(found)


def read_image(
    base_dir: str, place: Place, sha256: str | None, buffer: bytearray
) -> tuple[bytes | memoryview, str | None]:
    """(the bytes of a row's image, mostly as a view of `buffer`, None), or (b"", its fault)."""
    for path in image_places(base_dir, *place):
        try:
            fd = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return b"", f"image cannot be read: {error.strerror}"
        image: bytes | memoryview
        try:
            size = os.readv(fd, [buffer])
            image = memoryview(buffer)[:size]
            if size == len(buffer):
                with open(fd, "rb", closefd=False) as rest:
                    image = bytes(buffer) + rest.read()
        except OSError as error:
            return b"", f"image cannot be read: {error.strerror}"
        finally:
            os.close(fd)
        fault = bytes_fault(image, sha256)
        if fault and sha256:
            fault = (
                "image is not the one of the table's row (sha256 differs); "
                "if it was generated again since, --rebuild the table"
            )
        return image, fault
    return b"", "image is missing"
