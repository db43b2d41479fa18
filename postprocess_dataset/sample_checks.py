"""Is it a sample? Files' bytes to rows with the table's columns, each fault named; images to what `--verify` asks.

A chunk is parsed by pyarrow as one text; one with anything out of the ordinary is parsed again file by file, which names each fault.
"""

import hashlib
import os
import stat

from postprocess_dataset import sorted_rows, table


def parse(contents):
    """(table of the JSON's columns and `extra`, rows kept, {row: reason}) of the files' bytes, by pyarrow when all are clean."""
    clean = parse_together(contents)
    return (clean, range(len(contents)), {}) if clean is not None else parse_apart(contents)


def parse_together(contents):
    """The table, or None when any file is not one plain object of known keys, one a line: then only parse_apart() can say which.

    Every line begins with an object and no known key holds one, so as many rows as lines means a row a line.
    """
    import orjson
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.json

    if any(type(c) is not bytes or c[:1] != b"{" for c in contents):
        return None
    text = b"\n".join(contents)
    if text.count(b"\n") != len(contents) - 1:
        text = b"\n".join(map(bytes.strip, contents))  # a newline at the end of each file is fine
        if text.count(b"\n") != len(contents) - 1:
            return None
    try:
        keys = orjson.loads(
            contents[0]
        ).keys()  # a column asked for that no file has costs 0.3 us a row
        asked = pa.schema([f for f in table.json_schema() if f.name in keys])
        found = pa.json.read_json(
            pa.BufferReader(text),
            read_options=pa.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            parse_options=pa.json.ParseOptions(
                explicit_schema=asked, unexpected_field_behavior="error"
            ),
        )
        found.validate(full=True)  # text is UTF-8
    except (pa.ArrowInvalid, orjson.JSONDecodeError):
        return None
    rows = found.num_rows
    for name, (kind, nullable) in table.JSON_FIELDS.items():
        if name not in keys:
            found = found.append_column(name, pa.nulls(rows, table.arrow_types()[kind]))
        if not nullable and found[name].null_count:
            return None
    if (
        rows != len(contents)
        or pc.min(found["prompt_index"]).as_py() < 0
        or pc.min(found["augmentation_idx"]).as_py() < 0
        or not pc.all(
            pc.is_finite(found["guidance_scale"])
        ).as_py()  # NaN and Infinity are no JSON, but Arrow takes them
        or pc.list_flatten(found["source"]).null_count
    ):
        return None
    return found.append_column("extra", pa.nulls(rows, pa.string()))


def parse_apart(contents):
    """The same, file by file."""
    import orjson
    import pyarrow as pa

    kept, records, reasons = [], [], {}
    for row, content in enumerate(contents):
        if isinstance(content, OSError):
            reasons[row] = f"cannot be read: {content.strerror}"
            continue
        try:
            record = orjson.loads(content)
        except orjson.JSONDecodeError as error:
            reasons[row] = "an empty file" if not content else f"not JSON: {error}"
            continue
        if fault := fault_of(record):
            reasons[row] = fault
            continue
        unknown = {name: record[name] for name in record.keys() - table.JSON_FIELDS.keys()}
        record["extra"] = (
            orjson.dumps(unknown, option=orjson.OPT_SORT_KEYS).decode() if unknown else None
        )
        kept.append(row)
        records.append(record)
    whole = table.json_schema().append(pa.field("extra", pa.string()))
    return (
        pa.table(
            {f.name: pa.array([r.get(f.name) for r in records], f.type) for f in whole},
            schema=whole,
        ),
        kept,
        reasons,
    )


def fault_of(record):
    """Why a parsed JSON is no sample, or None. A `source` that is one string becomes a list of it, a whole number where a float
    belongs a float (Arrow takes no integer beyond 2**53 for one)."""
    if not isinstance(record, dict):
        return "not a JSON object"
    if isinstance(record.get("source"), str):
        record["source"] = [record["source"]]
    for name, (kind, nullable) in table.JSON_FIELDS.items():
        value = record.get(name)
        if value is None:
            if not nullable:
                return f"{name} is {'null' if name in record else 'missing'}"
        elif kind == "int":
            if (
                type(value) is not int
                or not -1 << 63 <= value < 1 << 63
                or value < 0
                and name in ("prompt_index", "augmentation_idx")
            ):
                return f"{name} is {value!r:.60}, not {'a whole number' if type(value) is not int else 'in range'}"
        elif kind == "float" and type(value) is int:
            record[name] = float(value)
        elif (
            kind == "float"
            and type(value) is not float
            or kind == "bool"
            and type(value) is not bool
            or kind == "str"
            and type(value) is not str
            or kind == "list of str"
            and not (isinstance(value, list) and all(type(v) is str for v in value))
        ):
            return f"{name} is {value!r:.60}, not a {kind}"
    return None


def image_fault(path, level, sha256=None):
    """Why the image at `path` does not pass `--verify` level `level`, or None."""
    try:
        if level == "exists":
            os.stat(path)
            return None
        with open(path, "rb") as f:
            if not stat.S_ISREG(os.fstat(f.fileno()).st_mode) or not os.fstat(f.fileno()).st_size:
                return "image is empty"
            data = f.read() if level != "size" else b""
    except FileNotFoundError:
        return "image is missing"
    except OSError as error:
        return f"image cannot be read: {error.strerror}"
    if level in ("sha256", "decode") and (fault := bytes_fault(data, sha256)):
        return fault
    if level == "decode":
        import io

        from PIL import Image

        try:
            with Image.open(io.BytesIO(data)) as image:
                image.load()
        except (
            Exception
        ) as error:  # Pillow raises a dozen kinds for a broken file, SyntaxError among them
            return f"image does not decode: {error}"
    return None


def bytes_fault(data, sha256):
    """Why an image's bytes are not those of its sample, or None: by its JSON's sha256, else (older data sets) by the JPEG's two ends."""
    if sha256 is not None:
        return (
            None
            if hashlib.sha256(data).hexdigest() == sha256
            else "image is not the one its JSON tells of (sha256 differs)"
        )
    if bytes(data[:2]) != b"\xff\xd8" or bytes(data[-2:]) != b"\xff\xd9":
        return "image is truncated or no JPEG"
    return None


def is_utf8(name):
    """Python keeps the bytes of other names as lone surrogates, which no table takes."""
    return name.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in name)


def check(pool, base, subdirectory, names, has_image, contents, verify, relative):
    """(sorted rows or None, [(stem, reason)]) of one chunk: parsed, its images verified, the table's own columns added."""
    import pyarrow as pa

    found, kept, reasons = parse(contents)
    folder = os.path.join(base, subdirectory)
    places = [f"{folder}/{names[row]}.jpg" for row in kept]
    stored, sums = found["image_path"], found["image_sha256"]

    def look(position):
        """The fault of one row's image; an image that is not beside its JSON may be where the JSON says."""
        row = kept[position]
        if (
            not has_image[row]
            and not os.path.exists(places[position])
            and (elsewhere := image_elsewhere(folder, stored[position].as_py()))
        ):
            places[position] = elsewhere
        return image_fault(places[position], verify, sums[position].as_py())

    to_look = (
        [p for p, row in enumerate(kept) if not has_image[row]]
        if verify == "exists"
        else range(len(kept))
    )
    for position, fault in zip(to_look, pool.map(look, to_look)):
        if fault:
            reasons[kept[position]] = fault
    for row, name in enumerate(names):
        if not is_utf8(name):
            reasons[row] = "file name is not UTF-8"
    rejects = [(names[row], reason) for row, reason in sorted(reasons.items())]
    good = [position for position, row in enumerate(kept) if row not in reasons]
    if not good:
        return None, rejects
    if len(good) < len(kept):
        found = found.take(good)
        kept, places = [kept[p] for p in good], [places[p] for p in good]
    if relative:
        places = [os.path.relpath(place, base) for place in places]
    own = {
        "image_path": pa.array(places, pa.string()),
        "__key__": pa.array([table.key_of(subdirectory, names[row]) for row in kept], pa.string()),
        "caption": found["augmented_prompt"],
        "subdirectory": pa.repeat(subdirectory, len(kept)),
    }
    columns = {name: own[name] if name in own else found[name] for name in table.row_schema().names}
    return sorted_rows.in_order(pa.table(columns)), rejects


def image_elsewhere(folder, stored):
    """Where a JSON's own image_path leads: absolute, or relative to its folder or the one above. None when there is nothing."""
    if not stored:
        return None
    places = (
        [stored]
        if os.path.isabs(stored)
        else [os.path.normpath(os.path.join(folder, up, stored)) for up in (".", "..")]
    )
    return next((place for place in places if os.path.isfile(place)), None)
