"""WebDataset shards: which rows go into which, writing one, and the files beside them.

    output_dataset_000000.tar               KEY.jpg (the very bytes), KEY.txt (caption), KEY.json (metadata) a sample
    output_dataset_000000_stats.json        its done mark: rows, samples, bytes, and what was left out with its reason
    output_dataset_plan.json                the table's digest and each shard's rows, fixed before the first shard is written
    index.json                              url, nsamples, filesize of each (wids reads it), written when all are done

The plan makes shard borders the same for any number of workers, restarts and pieces. It grows with the table: when the new table begins
with the rows of the old one, all shards but the last of each split stay.
"""

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

from postprocess_dataset import sample_checks, table
from postprocess_dataset.publish import Draft, publish_text
from postprocess_dataset.tar_header import header, padded

STEM = "output_dataset"
KEY = "__key__"
OWN = (KEY, "caption", "extra")  # in the tar as names, as .txt, and merged into .json
NO_TEXT = "row has no key or no caption"
COLD_S = 40e-6  # a stat; a warm one takes 2 us, and then more threads only cost CPU
ZEROS = bytes(512)
TAIL = 1024  # a tar ends with two empty blocks
SEND = (
    8 << 20
)  # bytes after which Linux is asked to begin sending them to the disk, which else waits for the fsync: 0.8 of the wall time


def name_of(split, number):
    return f"{STEM}_{split}_{number:06d}.tar" if split else f"{STEM}_{number:06d}.tar"


def plan_path(output):
    return os.path.join(output, f"{STEM}_plan.json")


def load_plan(output):
    """The plan of an output folder, or None. SystemExit for a folder that holds tars without one."""
    try:
        with open(plan_path(output)) as f:
            return json.load(f)
    except FileNotFoundError:
        foreign = sorted(n for n in os.listdir(output) if n.endswith(".tar"))
        if foreign:
            raise SystemExit(
                f"{output} holds {foreign[0]}{f' and {len(foreign) - 1} other tars' if len(foreign) > 1 else ''} of another table (no "
                f"{STEM}_plan.json); choose an empty --output_dir"
            )
    except ValueError as error:
        raise SystemExit(f"{plan_path(output)} is damaged ({error}); choose an empty --output_dir")


def digest_rows(files, borders):
    """{border: sha256 over the values of the rows before it}, however the table is cut into files and row groups. ~3 s a million rows."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    digest, found, row = hashlib.sha256(repr(pq.read_schema(files[0]).names).encode()), {}, 0
    for border in sorted(set(borders)):
        for batch in table.read_rows(files, row, border):
            lines = pc.binary_join_element_wise(
                *map(as_text, batch.columns),
                pa.scalar(""),
                "\x1f",
                null_handling="replace",
                null_replacement="\x00",
            )
            digest.update(lines.buffers()[2] or b"")
        found[border], row = digest.hexdigest(), border
    return found


def as_text(column):
    """Any column as one of strings."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type == pa.list_(pa.string()):
        return pc.binary_join(column, "\x1e")
    if pa.types.is_nested(column.type) or pa.types.is_binary(column.type):
        return pa.array(
            [None if value is None else repr(value) for value in column.to_pylist()], pa.string()
        )
    return column.cast(pa.string())


def image_places(base_dir, image_path, key):
    """Where a row's image may be, likeliest first."""
    beside = f"{base_dir}/{key}.jpg"
    return (
        [image_path if image_path[0] == "/" else f"{base_dir}/{image_path}", beside]
        if image_path
        else [beside]
    )


def image_size(base_dir, image_path, key):
    """Bytes of a row's image, or None."""
    for place in image_places(base_dir, image_path, key):
        try:
            return os.stat(place).st_size
        except OSError:
            continue


def row_keys(batch, first):
    """The rows' keys in a tar: `__key__`, or the row's number in a table that has none. No dot in the last part."""
    if KEY not in batch.schema.names:
        return [f"{row:09d}" for row in range(first, first + len(batch))]
    return [
        key
        if not key or "." not in key.rsplit("/", 1)[-1]
        else table.key_of(*f"/{key}".rsplit("/", 1))[1:]
        for key in batch[KEY].to_pylist()
    ]


def check_unique(files):
    """SystemExit when a key stands twice: readers raise at that, or mix two samples. 8 bytes a row."""
    import numpy as np

    if KEY not in columns_of(files):
        return
    row, hashes = 0, []
    for batch in table.read_rows(files, columns=[KEY]):
        hashes.append(np.fromiter(map(hash, row_keys(batch, row)), np.int64, len(batch)))
        row += len(batch)
    found, counts = np.unique(np.concatenate(hashes or [np.empty(0, np.int64)]), return_counts=True)
    twice, seen = set(found[counts > 1].tolist()), {}
    if not twice:
        return
    row = 0
    for batch in table.read_rows(files, columns=[KEY]):
        for key in row_keys(batch, row):
            if hash(key) in twice:
                if key in seen:
                    raise SystemExit(
                        f"{files[0]}: the key {key!r} stands twice (rows {seen[key]} and {row}); keys must be unique"
                    )
                seen[key] = row
            row += 1


def make_shards(ordered, kept, size_mb, base_dir, gone):
    """[{"name", "split", "start", "stop"}]: shards of at most `size_mb` MB (10**6 bytes; a larger sample stands alone), after those `kept`.

    Images are only stat'ed. One that is missing, or whose key is in `gone`, takes no room. SystemExit when no image is found at all.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    shards, present, tried = [], 0, None
    for split, files in ordered.items():
        mine = [shard for shard in kept if shard["split"] == split]
        start = row = mine[-1]["stop"] if mine else 0
        names = columns_of(files)
        texts = [
            n
            for n, kind in names.items()
            if pa.types.is_string(kind) or pa.types.is_large_string(kind)
        ]
        size = TAIL
        for batch in table.read_rows(
            files, row, columns=sorted({KEY, "image_path", *texts} & names.keys())
        ):
            keys = row_keys(batch, row)
            places = list(
                zip(
                    batch["image_path"].to_pylist()
                    if "image_path" in names
                    else [None] * len(keys),
                    keys,
                )
            )
            lengths = {
                n: pc.fill_null(pc.binary_length(batch[n]), 0)
                .to_numpy(zero_copy_only=False)
                .astype(np.int64)
                for n in texts
            }
            metadata = sum(
                lengths.values(), np.full(len(keys), 30 * len(names))
            )  # names, numbers, and caption and key twice: an upper bound
            captions = lengths.get("caption", lengths.get("augmented_prompt", metadata))
            for key, text, length, image in zip(
                keys, captions.tolist(), metadata.tolist(), image_sizes(base_dir, places)
            ):
                tried = tried or places[0]
                if image is not None and key not in gone:
                    present += 1
                    room = 3 * 512 + padded(image) + padded(text) + padded(length)
                    if size + room > size_mb * 10**6 and row > start:
                        mine.append({"split": split, "start": start, "stop": row})
                        start, size = row, TAIL
                    size += room
                row += 1
        if size > TAIL:
            mine.append({"split": split, "start": start, "stop": row})
        elif mine and row > start:
            mine[-1] = {
                **mine[-1],
                "stop": row,
            }  # nothing but missing images at the end: reported with the last shard
        shards += [{**shard, "name": name_of(split, number)} for number, shard in enumerate(mine)]
    if not present and not kept:
        raise SystemExit(
            "none of the table's images was found, the first neither at "
            f"{' nor at '.join(image_places(base_dir, *tried)) if tried else '(no rows)'}; "
            "is --base_dir right?"
        )
    return shards


def image_sizes(base_dir, places):
    """[bytes or None] of the images at `places` [(image_path, key)]; by several threads when the disk is slow."""
    begun, probe = time.monotonic(), places[:64]
    sizes = [image_size(base_dir, *place) for place in probe]
    rest = places[64:]
    if time.monotonic() - begun < COLD_S * len(probe):
        return sizes + [image_size(base_dir, *place) for place in rest]
    with ThreadPoolExecutor(8) as pool:
        return sizes + list(
            pool.map(lambda place: image_size(base_dir, *place), rest, chunksize=64)
        )


def columns_of(files):
    """{name: Arrow type} of a table."""
    import pyarrow.parquet as pq

    return {field.name: field.type for field in pq.read_schema(files[0])}


def samples(batch, first):
    """Yield (key, caption, metadata as JSON bytes, sha256 or None, image_path or None) of a batch's rows."""
    import orjson
    import pyarrow as pa
    import pyarrow.compute as pc

    keys, rows, values = row_keys(batch, first), len(batch), {}
    for name, column in zip(batch.schema.names, batch.columns):
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if (
            pa.types.is_timestamp(column.type) and column.type.unit == "ns"
        ):  # older pandas writes these; a datetime holds microseconds
            column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_finite(column), column, None)  # NaN and infinity are no JSON
        values[name] = column.to_pylist()
    none = [None] * rows
    captions = [
        caption or text
        for caption, text in zip(values.get("caption", none), values.get("augmented_prompt", none))
    ]
    extras, sums, paths = (
        values.get(name, none) for name in ("extra", "image_sha256", "image_path")
    )
    kept = [name for name in values if name not in OWN]
    for key, caption, extra, sha256, path, *row in zip(
        keys, captions, extras, sums, paths, *(values[name] for name in kept)
    ):
        record = {
            name: value for name, value in zip(kept, row) if value is not None
        }  # `datasets` takes five nulls for a column's type and fails at a sixth value
        if extra:
            more = {
                name: value
                for name, value in orjson.loads(extra).items()
                if value is not None and name not in record
            }
            record = {**record, **more}
        yield (
            key,
            caption,
            orjson.dumps(record, default=in_json),
            sha256,
            path,
        )  # dates as ISO 8601; NaN inside a list as null


def in_json(value):
    """What orjson does not know, in tables of other hands: bytes as hexadecimal digits, durations and decimals as text."""
    return value.hex() if isinstance(value, bytes) else str(value)


def write_shard(output, shard, files, base_dir, gone, counted):
    """Write one shard, unless all its images are left out. `counted(images, bytes)` is called on the way. Returns the stats."""
    buffer = bytearray(1 << 20)  # one for all images: 0.3 s less a GB than new memory for each
    with Draft(os.path.join(output, shard["name"])) as draft:
        fd, left_out, dropped, written, size, sent, row = (
            draft.file.fileno(),
            [],
            0,
            0,
            0,
            0,
            shard["start"],
        )
        for batch in table.read_rows(files, shard["start"], shard["stop"], batch_size=2048):
            before = size
            for key, caption, metadata, sha256, path in samples(batch, row):
                row += 1
                if key in gone:
                    dropped += 1
                    continue
                image, fault = read_image(base_dir, path, key, sha256, buffer)
                fault = fault or (None if key and isinstance(caption, str) else NO_TEXT)
                if fault:
                    left_out.append(
                        {
                            "row": row - 1,
                            KEY: key,
                            "image_path": path,
                            "image_sha256": sha256,
                            "reason": fault,
                        }
                    )
                    continue
                text = caption.encode()
                members = []
                for suffix, content in ((".jpg", image), (".txt", text), (".json", metadata)):
                    members += [
                        header(key + suffix, len(content)),
                        content,
                        ZEROS[: -len(content) % 512],
                    ]
                size += write_all(fd, members)
                written += 1
                if size - sent > SEND:
                    os.posix_fadvise(fd, sent, size - sent, os.POSIX_FADV_DONTNEED)
                    sent = size
            counted(len(batch), size - before)
        if written:  # readers stumble over a tar without a member
            size += write_all(fd, [ZEROS * 2])
            draft.publish()
    return {**shard, "nsamples": written, "filesize": size, "gone": dropped, "left_out": left_out}


def mark_done(output, shard, stats):
    publish_text(stats_path(output, shard), json.dumps(stats))


def read_image(base_dir, image_path, key, sha256, buffer):
    """(the bytes of a row's image, mostly as a view of `buffer`, None), or (None, why it cannot be taken)."""
    for place in image_places(base_dir, image_path, key):
        try:
            fd = os.open(place, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            return None, f"image cannot be read: {error.strerror}"
        try:
            size = os.readv(fd, [buffer])
            image = memoryview(buffer)[:size]
            if size == len(buffer):
                with open(fd, "rb", closefd=False) as rest:
                    image = bytes(buffer) + rest.read()
        except OSError as error:
            return None, f"image cannot be read: {error.strerror}"
        finally:
            os.close(fd)
        fault = sample_checks.bytes_fault(image, sha256)
        if fault and sha256:
            fault = "image is not the one of the table's row (sha256 differs); if it was drawn again since, --rebuild the table"
        return image, fault
    return None, "image is missing"


def write_all(fd, pieces):
    """writev of all the pieces; the number of bytes."""
    total = sum(map(len, pieces))
    done = os.writev(fd, pieces)
    if done < total:  # a signal, or a disk that fills up: the next write says so
        rest = memoryview(b"".join(pieces))
        while done < total:
            done += os.write(fd, rest[done:])
    return total


def stats_path(output, shard):
    return os.path.join(output, shard["name"].removesuffix(".tar") + "_stats.json")


def remove(output, shard):
    """Remove a shard and its done mark, the mark first."""
    for path in (stats_path(output, shard), os.path.join(output, shard["name"])):
        if os.path.exists(path):
            os.unlink(path)


def stats_of(output, shard, base_dir):
    """A shard's stats when it is done: whole, of these rows, and no image that was left out then can be taken now. Else None."""
    try:
        with open(stats_path(output, shard)) as f:
            stats = json.load(f)
        whole = os.path.getsize(os.path.join(output, shard["name"])) == stats["filesize"]
    except (FileNotFoundError, ValueError):
        return None
    same, buffer = (
        all(stats[name] == shard[name] for name in ("split", "start", "stop")),
        bytearray(1 << 20),
    )
    back = any(
        line["reason"] != NO_TEXT
        and read_image(base_dir, line["image_path"], line[KEY], line["image_sha256"], buffer)[1]
        is None
        for line in stats["left_out"]
    )
    return stats if whole and same and not back else None


def write_index(output, stats):
    """index.json of all shards, and index_SPLIT.json of each split's."""
    for split in {None, *(s["split"] for s in stats)}:
        listed = [
            {"url": s["name"], "nsamples": s["nsamples"], "filesize": s["filesize"]}
            for s in stats
            if split in (None, s["split"])
        ]
        index = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed}
        publish_text(
            os.path.join(output, f"index_{split}.json" if split else "index.json"),
            json.dumps(index, indent=1) + "\n",
        )
