"""Where a sample lies in the dataset folder and how it is published: the image is the commit.

    000012/12345.prompts      the texts of an index, once, before its first image (.prompts2, … after an extension: the newest counts)
    000012/12345_3.jpg        carries its metadata as a JPEG comment, so that the .json can be made from the image alone
    000012/12345_3.json       that metadata, the place it was made at, and the sha256 of the image's bytes; one line of ASCII
    000012/12345_3.failed     a sample given up, written only after the server said "set aside"

Each file is written to a draft `.12345_3.jpg.<lease>.tmp`, fsynced, and gets its name by an exclusive link: nothing is ever overwritten, a
killed process leaves at most a draft, and a paused one that wakes up finds the name taken. A sample counts when both names exist.

    python -c "import samples; print(samples.scan_folder('outputs/generate_images/generated_images/HPDv2', 12))"
"""

import errno
import hashlib
import io
import json
import os
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

FOLDER = 1000  # prompts a sub-folder: with 200 images a prompt that is 400,000 names
MAX_COMMENT = 65533  # bytes in a JPEG comment (its length is 16 bits and counts itself)
PLACE = (
    "hostname",
    "gpu_name",
    "slurm_job_id",
    "lease",
)  # where it was made: in the JSON alone, null when unknown
NAME = re.compile(r"(\d+)(?:_(\d+))?\.(jpg|json|failed|prompts\d*)")
DRAFT = re.compile(r"\.(\d+)[._].*\.tmp")


def folder_name(index):
    return f"{index // FOLDER:06d}"


def stem(index, aug):
    return f"{index}_{aug}"


def path_of(dataset_dir, index, aug, suffix):
    return Path(dataset_dir) / folder_name(index) / f"{index}_{aug}{suffix}"


# ---------------------------------------------------------------- one file


def write_draft(final, data, lease):
    """Write bytes to a draft beside `final` and fsync it; return its path. OSError (ENOSPC, EDQUOT, EIO, …) leaves no draft."""
    draft = final.with_name(f".{final.name}.{lease}.tmp")
    draft.unlink(missing_ok=True)  # of this very lease, so of this very process: a try that failed
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    return draft


def publish(draft, final):
    """Give a finished draft its name by an exclusive link; False if the name is taken or the next holder has removed the draft."""
    try:
        os.link(draft, final)
        published = True
    except FileExistsError:
        # NFS may repeat a link whose answer was lost: then the name is taken by this very draft.
        published = _same_file(draft, final)
    except FileNotFoundError:
        published = False
    Path(draft).unlink(missing_ok=True)
    return published


def _same_file(a, b):
    try:
        return os.path.samefile(a, b)
    except FileNotFoundError:
        return False


def probe_folder(dataset_dir):
    """SystemExit if the file system cannot do what publishing needs: an exclusive hard link (no exFAT, no object store)."""
    draft = Path(dataset_dir) / f".probe.{os.uname().nodename}.{os.getpid()}.tmp"
    link = draft.with_name(draft.name.replace(".tmp", ".link.tmp"))
    try:
        draft.write_bytes(b"x")
        os.link(draft, link)
        try:
            os.link(draft, link)
            problem = "a second link to the same name succeeded"
        except FileExistsError:
            problem = None if os.path.samefile(draft, link) else "a hard link is a copy"
    except OSError as error:
        problem = error.strerror
    finally:
        for path in (draft, link):
            if os.path.lexists(path):
                path.unlink()
    if problem:
        raise SystemExit(
            f"generate_images: the file system of {dataset_dir} ({_mount(dataset_dir)}) cannot publish samples: {problem}; "
            "choose an --output_root on a POSIX file system with hard links"
        )


def _mount(path):
    """The type of the file system a path lies on, and where it is mounted: "exfat at /mnt/usb"."""
    try:
        mounts = [line.split()[1:3] for line in open("/proc/mounts")]
    except OSError:
        return "type unknown"
    path = str(Path(path).resolve())
    here = [m for m in mounts if f"{path}/".startswith(m[0].rstrip("/") + "/")]
    return "{1} at {0}".format(*max(here, key=lambda m: len(m[0]))) if here else "type unknown"


def sync_folder(dataset_dir, index):
    """Make the names in the index's sub-folder durable: once before its completion is reported."""
    fd = os.open(Path(dataset_dir) / folder_name(index), os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# ---------------------------------------------------------------- texts


def wanted(record):
    """Images that were asked for when a .prompts record was made: its texts and what the LLMs failed to give."""
    return len(record["texts"]) + (record["short"] or {}).get("missing", 0)


def read_texts(dataset_dir, index):
    """The newest .prompts record of an index, or None."""
    return _newest_texts(Path(dataset_dir) / folder_name(index), index)[0]


def _newest_texts(folder, index):
    """(record, its generation: 1 for .prompts, 2 for .prompts2, …); (None, 0) when there is none."""
    generation, record = 0, None
    while True:
        try:
            record = json.loads(
                (folder / f"{index}.prompts{generation + 1 if generation else ''}").read_bytes()
            )
        except FileNotFoundError:
            return record, generation
        generation += 1


def publish_texts(dataset_dir, record, lease):
    """Publish {"prompt_index", "original_prompt", "source", "texts", "short"}; return the record that stands: this or another holder's.

    A record that stands is only followed by a newer one (.prompts2, …) if that one was asked for more images (an extension), and then
    begins with the texts that stand: an image's text never changes."""
    index = record["prompt_index"]
    folder = Path(dataset_dir) / folder_name(index)
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        stands, generation = _newest_texts(folder, index)
        if stands and wanted(stands) >= wanted(record):
            return stands
        if stands:
            record = record | {"texts": stands["texts"] + record["texts"][len(stands["texts"]) :]}
        final = folder / f"{index}.prompts{generation + 1 if generation else ''}"
        publish(write_draft(final, ascii_json(record), lease), final)


# ---------------------------------------------------------------- samples


def publish_sample(dataset_dir, index, aug, image, metadata, place, lease, quality):
    """Publish an image (PIL, or uint8 array H×W×3) and its JSON; True if the sample now counts with this image, False if another stands.

    metadata: what the image carries (all fields but the place), a dict of JSON values; place: dict with the keys of PLACE.
    ValueError: metadata too long for a JPEG comment. OSError: the disk; nothing is left behind but what counts."""
    final = path_of(dataset_dir, index, aug, ".jpg")
    final.parent.mkdir(parents=True, exist_ok=True)
    data = encode(image, metadata, quality)
    mine = publish(write_draft(final, data, lease), final)
    if not mine and not final.exists():
        return False  # the draft was taken away by the next holder of this index
    if not mine:
        roll_forward(dataset_dir, index, aug, lease)
        return False
    _publish_json(final, data, place, lease)
    return True


def encode(image, metadata, quality):
    """The bytes of the JPEG that carries `metadata` as a comment of UTF-8 JSON."""
    from PIL import Image

    comment = json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode(
        "utf-8", "replace"
    )  # a lone surrogate becomes "?"
    if len(comment) > MAX_COMMENT:
        raise ValueError(
            f"the texts of {stem(metadata['prompt_index'], metadata['augmentation_idx'])} take {len(comment):,} bytes, "
            f"more than the {MAX_COMMENT:,} of a JPEG comment"
        )
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, "JPEG", quality=quality, comment=comment)
    return file.getvalue()


def roll_forward(dataset_dir, index, aug, lease):
    """Give an image that has no JSON its JSON, made from the image alone; False if the image is broken or not of this project.

    Only the holder of the index's lease (or a repair) may call this."""
    final = path_of(dataset_dir, index, aug, ".jpg")
    try:
        data = final.read_bytes()
        metadata = read_comment(data)
    except (FileNotFoundError, ValueError):
        return False
    if (metadata.get("prompt_index"), metadata.get("augmentation_idx")) != (index, aug):
        return False
    if not final.with_suffix(".json").exists():
        _publish_json(final, data, {}, lease)
    return True


def read_comment(data):
    """The metadata a JPEG's bytes carry; ValueError if it does not decode to the end or carries none."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
        image.load()
        metadata = json.loads(image.info["comment"])
    except (OSError, SyntaxError, KeyError, ValueError) as error:
        raise ValueError(f"not a whole JPEG with metadata: {error}") from None
    if not isinstance(metadata, dict):
        raise ValueError("the JPEG's comment is not metadata")
    return metadata


def _publish_json(image_path, data, place, lease):
    record = (
        read_comment(data)
        | {key: place.get(key) for key in PLACE}
        | {"image_sha256": hashlib.sha256(data).hexdigest()}
    )
    final = image_path.with_suffix(".json")
    publish(write_draft(final, ascii_json(record), lease), final)


def publish_failed(dataset_dir, index, aug, reason, error, lease):
    """Mark a sample as given up. Call it only after the server answered "set aside"."""
    final = path_of(dataset_dir, index, aug, ".failed")
    final.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "prompt_index": index,
        "augmentation_idx": aug,
        "reason": reason,
        "error": error,
        "lease": lease,
        "time": utc_now(),
    }
    return publish(write_draft(final, ascii_json(record), lease), final)


def remove_sample(dataset_dir, index, aug):
    """Take a sample away so that it is drawn again; JSON first, so that no JSON ever stands without its image. Needs the index's lease."""
    for suffix in (".json", ".jpg"):
        path_of(dataset_dir, index, aug, suffix).unlink(missing_ok=True)


def remove_drafts(dataset_dir, index, lease, names=None):
    """Remove the drafts that earlier holders of an index left; return how many. names: its drafts, when a scan has just found them."""
    folder = Path(dataset_dir) / folder_name(index)
    if names is None:
        names = scan_folder(dataset_dir, index // FOLDER).get(index, IndexFiles()).drafts
    stale = [name for name in names if not name.endswith(f".{lease}.tmp")]
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    return len(stale)


# ---------------------------------------------------------------- reading a folder


@dataclass
class IndexFiles:
    """What lies in the folder for one index."""

    texts: int | None = None  # how many texts its newest .prompts holds
    short: dict | None = None  # {"missing", "reason"} of that .prompts
    images: set = field(default_factory=set)
    jsons: set = field(default_factory=set)
    failed: set = field(default_factory=set)
    drafts: list = field(default_factory=list)

    def done(self, images_per_prompt=1):
        """Whether every text is an image with JSON, or given up, and the texts were asked for with at least so many images in mind."""
        given = (self.texts or 0) + (self.short or {}).get("missing", 0)
        return (
            bool(self.texts)
            and given >= images_per_prompt
            and set(range(self.texts)) <= (self.images & self.jsons) | self.failed
        )


def scan_folder(dataset_dir, folder, only=None):
    """{index: IndexFiles} of one sub-folder (an int) by one listing of its names; only: the indices asked for, default all of them.

    Reads each .prompts file; a broken one counts as none. A folder that does not exist is empty."""
    path = Path(dataset_dir) / f"{folder:06d}"
    found, newest = {}, {}
    try:
        entries = os.scandir(path)
    except FileNotFoundError:
        return {}
    with entries:
        for entry in entries:
            match = NAME.fullmatch(entry.name) or DRAFT.fullmatch(entry.name)
            index = int(match[1]) if match else None
            if index is None or (only is not None and index not in only):
                continue
            files = found.setdefault(index, IndexFiles())
            if entry.name.startswith("."):
                files.drafts.append(entry.name)
            elif match[3].startswith("prompts"):
                newest[index] = max(newest.get(index, 0), int(match[3][7:] or 1))
            elif match[2] is not None:
                {"jpg": files.images, "json": files.jsons, "failed": files.failed}[match[3]].add(
                    int(match[2])
                )
    for index, generation in newest.items():
        try:
            record = json.loads(
                (path / f"{index}.prompts{generation if generation > 1 else ''}").read_bytes()
            )
            found[index].texts, found[index].short = len(record["texts"]), record["short"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            if getattr(error, "errno", None) in (errno.EIO, errno.ESTALE):
                raise
    return found


def ascii_json(record):
    """One line of ASCII, as bytes. ValueError for NaN; a lone surrogate becomes "?"."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    return json.dumps(json.loads(text)).encode() + b"\n"


def utc_now():
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
