"""A dataset folder: which samples lie in it, reading their JSON fast, checking each one.

    listing = list_folder("/data/HPDv2/000012")
    for rows, rejects in read_samples(Reader(), "/data", "HPDv2/000012", stems(listing.jsons), has_image, "exists"): ...

Read are this project's folders (sub-folders of 1,000 prompts) and flat ones with an absolute `image_path`, as the published scripts wrote.
Files are opened relative to their directory's descriptor (1.7 times less CPU than by their whole path), read in chunks and parsed by
pyarrow as one text (sample_checks.py).
"""

import errno
import itertools
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from postprocess_dataset.sample_checks import check, is_utf8

CHUNK = 16384  # samples: 11-20 MB of JSON, about 100 MB at the peak with the parsed columns and the next chunk
READERS = 8  # threads for a cold disk, where a file costs 100 us of waiting
COLD_S = 40e-6  # per file; a warm one takes 4-8 us, and then more threads only cost CPU
BLOCK = 1000  # prompts a sub-folder
STEM = r"(?P<prompt>0|[1-9][0-9]{0,11})_(?P<augmentation>0|[1-9][0-9]{0,5})"
NAME = rf"^{STEM}\.(?P<kind>jpg|json)$"
CODE = 1 << 20  # prompt_index and augmentation_idx in one integer: 8 bytes a name instead of 70
MARGIN_NS = (
    60 * 10**9
)  # a folder is skipped when its mtime was this much older than the last scan: NFS may show an mtime this late


@dataclass
class Listing:
    """The names of one directory. Numbered samples as sorted codes (prompt_index << 20 | augmentation_idx), others by stem."""

    mtime_ns: int
    jsons: object = None
    images: object = None
    odd_jsons: list = field(default_factory=list)
    odd_images: set = field(default_factory=set)
    folders: list = field(default_factory=list)
    links: list = field(default_factory=list)

    def add_other(self, entry):
        """A name that is not NUMBER_NUMBER.json or .jpg."""
        name = entry.name
        if name[0] == "." or name.endswith((".prompts", ".failed")):
            return
        if name.endswith(".json"):
            self.odd_jsons.append(name[:-5])
        elif name.endswith(".jpg"):
            self.odd_images.add(name[:-4])
        elif entry.is_dir(follow_symlinks=False):
            self.folders.append(name)
        elif entry.is_symlink() and entry.is_dir():
            self.links.append(name)


def list_folder(path):
    """One pass over a directory, as a Listing. OSError when it cannot be read. Names with a leading dot are drafts or not ours."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    listing = Listing(
        os.stat(path).st_mtime_ns
    )  # before the names are read: a later change makes it newer
    jsons, images = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    with os.scandir(path) as entries:
        while block := list(itertools.islice(entries, 65536)):
            try:
                names = pa.array([entry.name for entry in block], pa.string())
            except UnicodeEncodeError:  # a name that is not UTF-8, somewhere among them
                names = pa.array(
                    [os.fsencode(entry.name).decode(errors="replace") for entry in block],
                    pa.string(),
                )
            numbers = pc.extract_regex(
                names, NAME
            )  # 0.2 us a name; a loop over Python's re takes 1
            valid = numbers.is_valid()
            prompts, augmentations = (
                numbers.field(n).filter(valid).cast(pa.int64()).to_numpy() for n in (0, 1)
            )
            codes, is_image = (
                prompts * CODE + augmentations,
                pc.equal(numbers.field(2).filter(valid), "jpg").to_numpy(zero_copy_only=False),
            )
            jsons.append(codes[~is_image])
            images.append(codes[is_image])
            for row in np.flatnonzero(~valid.to_numpy(zero_copy_only=False)).tolist():
                listing.add_other(block[row])
    listing.jsons, listing.images = np.sort(np.concatenate(jsons)), np.sort(np.concatenate(images))
    listing.odd_jsons.sort()
    listing.folders.sort()
    return listing


def stems(codes):
    """File names without extension of an array of codes."""
    return [f"{code >> 20}_{code & (CODE - 1)}" for code in codes.tolist()]


class Reader:
    """Reads the files of one chunk after the other, one chunk ahead of whoever parses them; with more threads when the disk is slow."""

    def __init__(self):
        self.pool = ThreadPoolExecutor(READERS + 1)

    def start(self, folder_fd, names):
        return self.pool.submit(self._read, folder_fd, names)

    def _read(self, folder_fd, names):
        """[bytes or OSError] of the files."""
        probe, rest = names[:256], names[256:]
        begun, slept = time.monotonic(), resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        done = read_files(folder_fd, probe)
        slept = (
            resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - slept
        )  # a busy machine is slow, too, but there nobody waits for a disk
        if time.monotonic() - begun < COLD_S * len(probe) or slept < len(probe) / 2:
            return done + read_files(folder_fd, rest)
        waiting = [
            self.pool.submit(read_files, folder_fd, rest[i : i + 512])
            for i in range(0, len(rest), 512)
        ]
        for future in waiting:
            done += future.result()
        return done


def read_files(folder_fd, names):
    """[bytes or OSError] of files by name relative to an open directory."""
    contents = []
    for name in names:
        try:
            fd = os.open(
                name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=folder_fd
            )  # a named pipe called x.json must not hang us
            try:
                content = os.read(fd, 4096)
                while len(content) and not len(content) % 4096 and (more := os.read(fd, 1 << 20)):
                    content += more
            finally:
                os.close(fd)
        except OSError as error:
            content = error
        contents.append(content)
    return contents


def walk(folders, base, earlier, say, part=None):
    """Yield (subdirectory, Listing), or (subdirectory, None) for one unchanged since the `earlier` run, or (subdirectory, OSError)."""
    waiting = [os.path.relpath(folder, base) for folder in reversed(sorted(folders))]
    while waiting:
        subdirectory = waiting.pop()
        name = os.path.basename(subdirectory)
        if part and name.isdecimal() and int(name) % part[1] != part[0]:
            continue  # a folder of 1,000 prompts is another piece's, whole
        path = os.path.join(base, subdirectory)
        try:
            if not is_utf8(name):
                raise OSError(
                    errno.EILSEQ, "its name is not UTF-8, which a table's text must be; rename it"
                )
            then = earlier.mtimes.get(subdirectory)
            if (
                then is not None
                and then < earlier.scanned_ns - MARGIN_NS
                and os.stat(path).st_mtime_ns == then
            ):
                listing = None
                inside = earlier.inside.get(subdirectory, [])
            else:
                listing = list_folder(path)
                if "output_dataset_plan" in listing.odd_jsons:
                    say(f"{subdirectory}: holds tars made here, no samples; skipped")
                    continue
                inside = [f"{subdirectory}/{name}" for name in listing.folders]
                for link in listing.links:
                    say(
                        f"{subdirectory}/{link}: a link to a folder is not followed; give it as a DIR of its own"
                    )
        except OSError as error:
            listing, inside = error, []
        yield subdirectory, listing
        waiting += reversed(inside)


def read_samples(reader, base, subdirectory, names, has_image, verify, relative=False):
    """Yield (sorted rows without idx, or None, and [(stem, reason)] of what was left out) for chunks of the samples `names` of one folder.

    `has_image`: for each name whether the listing had its image; the others get a second look by name, since a run may be going on.
    """
    folder = os.path.join(base, subdirectory)
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    chunks = [(names[i : i + CHUNK], has_image[i : i + CHUNK]) for i in range(0, len(names), CHUNK)]
    try:
        ahead = [reader.start(folder_fd, [n + ".json" for n in chunk]) for chunk, _ in chunks[:1]]
        for n, (chunk, images) in enumerate(chunks):
            contents = ahead.pop().result()
            if n + 1 < len(chunks):
                ahead.append(reader.start(folder_fd, [name + ".json" for name in chunks[n + 1][0]]))
            yield check(reader.pool, base, subdirectory, chunk, images, contents, verify, relative)
    finally:
        for future in ahead:
            future.result()  # it still uses the descriptor
        os.close(folder_fd)
