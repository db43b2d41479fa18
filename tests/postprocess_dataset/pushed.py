"""A release to push, and push_to_hub.py against a FakeHub."""

import json
import os
import subprocess
import sys
from pathlib import Path

from postprocess_dataset.manifest import manifest
from tests.postprocess_dataset.conftest import SCRIPTS

REPO = "me/birds"


def birds(folder):
    """A verified release: what push_to_hub.py asks for, with contents that are no images."""
    place = folder / "birds"
    for name in ("data/train-00000.parquet", "data/train-00001.parquet"):
        write(place, name, f"{name} ".encode() * 200)
    for number in range(3):
        write(place, f"webdataset/train-{number:06d}.tar", f"tar {number} ".encode() * 300)
    write(place, "README.md", b"---\nlicense: mit\n---\n")
    write(place, "report.html", b"<p>report</p>" * 500)
    vouch(place)
    return place


def write(place, name, content):
    path = Path(place, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def vouch(place, good=True):
    """Manifest and verification of what lies there now, without a look at the samples."""
    files = [manifest._file(str(place), path) for path in manifest.files_below(str(place))]
    document = {"format": manifest.FORMAT, "files": files, "shards": [], "allowed": []}
    document["root"] = manifest.root_of(files, [])
    (place / "MANIFEST.json").write_text(json.dumps(document))
    work = Path(f"{place}.work")
    work.mkdir(exist_ok=True)
    (work / "verification.json").write_text(json.dumps({"good": good, "root": document["root"]}))


def command(hub, release, *options):
    """(words, environment) of the script."""
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_fake"}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": f"{release}.hf"}
    return [sys.executable, str(SCRIPTS / "push_to_hub.py"), str(release), *options], environment


def push(hub, release, *options, repo=REPO, status=0, **changes):
    words, environment = command(hub, release, repo, *options)
    ended = subprocess.run(
        words, env=environment | changes, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == status, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr and "\r" not in ended.stderr
    return ended.stdout if status == 0 else ended.stderr.splitlines()[-1]


def contents(place):
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in place.rglob("*")
        if path.is_file()
    }


def limits(tmp_path, module="common.web", **values):
    """The environment of a process with other limits."""
    lines = [f"import {module} as module", *(f"module.{name} = {values[name]}" for name in values)]
    hook = f"import sys\nsys.path[:0] = {sys.path!r}\n" + "\n".join(lines)
    (tmp_path / "sitecustomize.py").write_text(hook)
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{SCRIPTS.parent}"}
