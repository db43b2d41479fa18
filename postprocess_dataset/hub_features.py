"""The columns of a release as `datasets` describes them, without importing it: 2 s and 100 MB.

    schema.with_metadata({HUGGINGFACE: footer_note(schema)})      # of a parquet file
    yaml_features(schema)                                         # of a card

A struct of bytes and path is an Image.
"""

from typing import Any

import orjson
import pyarrow as pa

HUGGINGFACE = b"huggingface"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# What `datasets` calls otherwise than Arrow.
NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}
NAMES |= {"date32[day]": "date32", "date64[ms]": "date64"}


def footer_note(schema: pa.Schema) -> bytes:
    """What a parquet file's footer says, so that `datasets` takes an Image for one."""
    features = {field.name: _feature(field.type) for field in schema}
    return orjson.dumps({"info": {"features": features}})


def yaml_features(schema: pa.Schema) -> list[dict[str, Any]]:
    """What `dataset_info` of a card says."""
    return [{"name": field.name, **_in_yaml(field.type)} for field in schema]


def _feature(kind: pa.DataType) -> Any:
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    return {"dtype": NAMES.get(str(kind), str(kind)), "_type": "Value"}


def _in_yaml(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE:
        return {"dtype": "image"}
    if pa.types.is_struct(kind):
        return {"struct": yaml_features(pa.schema(list(kind)))}
    if pa.types.is_list(kind):
        inside = _in_yaml(kind.value_type)
        return {"list": inside.get("dtype") or inside.get("struct") or inside}
    return {"dtype": NAMES.get(str(kind), str(kind))}
