"""A release in Croissant 1.1 (MLCommons), with the fields of its RAI vocabulary.

document = croissant(facts, card)         # JSON-LD, as a dict

Each parquet file belongs to the file set "parquet-files" below the repository; a record set
"samples" has a field for each column. Without a repository it is the folder that croissant.json
lies in, so that a download can be read by mlcroissant as it is.
"""

from typing import Any

import pyarrow as pa

from postprocess_dataset.release_card.columns import holds
from postprocess_dataset.release_card.facts import Facts

CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "arrayShape": "cr:arrayShape",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
CONFORMS = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
# The format asks for a checksum of every file object; a repository as a whole has none.
NO_CHECKSUM = "https://github.com/mlcommons/croissant/issues/80"
Json = dict[str, Any]


def croissant(facts: Facts, words: Json) -> Json:
    """The document. words: of card.py: title, description, licence, url, …, and rai."""
    repo = words["repo"]
    place = f"https://huggingface.co/datasets/{repo}" if repo else ""
    document: Json = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS,
        "name": words["title"],
        "description": words["description"],
        "url": words["url"] or place,
        "license": words["licence"],
        "version": words["version"],
        "datePublished": words["date"],
        "creator": [{"@type": "Person", "name": name} for name in words["authors"]],
        "citeAs": words["bibtex"],
        "keywords": words["tags"],
        "inLanguage": "en",
        "isLiveDataset": False,
        "distribution": _distribution(facts, place),
        "recordSet": [_samples(facts, words["description"])],
    }
    document.update({f"rai:{name}": text for name, text in words["rai"].items() if text})
    return {name: value for name, value in document.items() if value not in ("", None, [])}


def _distribution(facts: Facts, repo: str) -> list[Json]:
    """The repository, if there is one, and the sets of files in it, or beside croissant.json."""
    rows = "the rows with their images" if facts.has_images else "the rows without their images"
    kinds = [("parquet-files", rows, "application/x-parquet", f"{facts.rows_in}/*.parquet")]
    if any(split.tars for split in facts.splits.values()):
        tars = "the samples as WebDataset tars"
        kinds.append(("webdataset-tars", tars, "application/x-tar", "webdataset/*.tar"))
    if "scores" in facts.note:
        scores = "scores of each sample, by __key__, in the order of the rows"
        kinds.append(("score-files", scores, "application/x-parquet", "scores/*.parquet"))
    found = [
        {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "description": what,
            **({"containedIn": {"@id": "repo"}} if repo else {}),
            "encodingFormat": encoding,
            "includes": includes,
        }
        for name, what, encoding, includes in kinds
    ]
    if not repo:
        return found
    whole = {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "description": "the repository on the hub",
        "contentUrl": repo,
        "encodingFormat": "git+https",
        "sha256": NO_CHECKSUM,
    }
    return [whole, *found]


def _samples(facts: Facts, description: str) -> Json:
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": description,
        "key": {"@id": "samples/__key__"},
        "field": [_field(field) for field in facts.schema],
    }


def _field(field: pa.Field) -> Json:
    extract: Json = {"column": field.name}
    source: Json = {"fileSet": {"@id": "parquet-files"}, "extract": extract}
    if field.name == "image":
        source["transform"] = {"jsonPath": "bytes"}
    found = {
        "@type": "cr:Field",
        "@id": f"samples/{field.name}",
        "name": field.name,
        "description": holds(field.name),
        "dataType": _data_type(field),
        "source": source,
    }
    if pa.types.is_list(field.type):
        found |= {"isArray": True, "arrayShape": "-1"}
    return found


def _data_type(field: pa.Field) -> str:
    kind = field.type.value_type if pa.types.is_list(field.type) else field.type
    if field.name == "image":
        return "sc:ImageObject"
    if pa.types.is_boolean(kind):
        return "sc:Boolean"
    if pa.types.is_integer(kind):
        return "cr:Int64"
    return "cr:Float64" if pa.types.is_floating(kind) else "sc:Text"
