"""Where the five sources live, under which terms, and how their files are fetched and read.

Hub files go through huggingface_hub (cached, resumed, HF_ENDPOINT and HF_HOME respected); SAC's and Gecko's single files come over HTTP
into ~/.cache/prompt_sources with a `.part` file that the next try resumes.
"""

import hashlib
import os
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

BATCH = 20_000  # rows a batch: 17 columns or not, only one column of so many rows is in memory

TERMS = {  # by the name of the prompts file; combine.py copies it into its report
    "image_reward": {
        "name": "ImageRewardDB",
        "licence": "Apache-2.0",
        "home": "https://huggingface.co/datasets/zai-org/ImageRewardDB",
        "note": "prompts sampled from DiffusionDB (CC0-1.0)",
        "citation": "Xu et al., ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation, NeurIPS 2023, "
        "arXiv:2304.05977",
    },
    "sac": {
        "name": "Simulacra Aesthetic Captions",
        "licence": "CC0-1.0",
        "home": "https://github.com/JD-P/simulacra-aesthetic-captions",
        "note": "",
        "citation": "Pressman, Crowson and Simulacra Captions Contributors, Simulacra Aesthetic Captions, Stability AI, 2022",
    },
    "pickscore": {
        "name": "Pick-a-Pic v1 and v2",
        "licence": "none stated on the cards (the code is MIT)",
        "home": "https://huggingface.co/datasets/yuvalkirstain/pickapic_v2_no_images",
        "note": "whether the texts may be passed on is unclear: process them at run time, do not publish the file; "
        "holds prompts unfit for work",
        "citation": "Kirstain et al., Pick-a-Pic: An Open Dataset of User Preferences for Text-to-Image Generation, NeurIPS 2023, "
        "arXiv:2305.01569",
    },
    "HPDv2": {
        "name": "Human Preference Dataset v2, benchmark prompts",
        "licence": "Apache-2.0",
        "home": "https://huggingface.co/datasets/ymhao/HPDv2",
        "note": "DiffusionDB prompts rewritten by ChatGPT, and COCO captions (CC-BY-4.0)",
        "citation": "Wu et al., Human Preference Score v2, 2023, arXiv:2306.09341",
    },
    "gecko": {
        "name": "Gecko benchmark",
        "licence": "CC-BY-4.0",
        "home": "https://github.com/google-deepmind/gecko_benchmark_t2i",
        "note": "a validation set: keep it out of training; its posescript rows are CC-BY-NC-SA-4.0, its whoops rows "
        "must not be trained on (--trainable leaves both out)",
        "citation": "Wiles et al., Revisiting Text-to-Image Evaluation with Gecko, ICLR 2025, arXiv:2404.16820",
    },
}


def hub_files(repo, patterns, revision="main"):
    """Fetch the files of a hub data set that match `patterns` (in their order, sorted within one); returns local paths."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        names = [
            file.rfilename
            for file in HfApi().dataset_info(repo, revision=revision, timeout=30).siblings
        ]
        wanted = [name for pattern in patterns for name in sorted(names) if fnmatch(name, pattern)]
        if missing := [
            pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in names)
        ]:
            raise OSError(f"revision {revision} holds no {', '.join(missing)}")
        paths = []
        for number, name in enumerate(wanted, 1):
            print(f"{repo}: {name} ({number} of {len(wanted)})", file=sys.stderr, flush=True)
            paths.append(Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision)))
        return paths
    except Exception as error:  # huggingface_hub raises its own, httpx's and OSError
        fetch_by_hand(
            f"{repo} on the hub",
            f"{', '.join(patterns)} of https://huggingface.co/datasets/{repo}",
            error,
        )


def web_file(url):
    """Fetch `url` into the cache (once; a broken transfer is resumed); returns the local path."""
    import requests
    from tqdm import tqdm

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "prompt_sources" / hashlib.sha256(url.encode()).hexdigest()[:12]
    path, part = folder / url.rsplit("/", 1)[-1], folder / "part"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(5):
            have = part.stat().st_size if part.exists() else 0
            try:
                # compressed, the lengths would differ
                headers = {"Accept-Encoding": "identity"} | (
                    {"Range": f"bytes={have}-"} if have else {}
                )
                with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
                    if answer.status_code == 416:  # the part is not a part of this file
                        part.unlink()
                        continue
                    answer.raise_for_status()
                    print(
                        f"fetching {url}"
                        + (f" from byte {have:,}" if answer.status_code == 206 else ""),
                        file=sys.stderr,
                        flush=True,
                    )
                    resumed = have if answer.status_code == 206 else 0
                    total = int(answer.headers.get("Content-Length", 0)) + resumed
                    bar = tqdm(
                        total=total,
                        initial=resumed,
                        unit="B",
                        unit_scale=True,
                        desc=path.name,
                        disable=None,
                    )
                    with open(part, "ab" if resumed else "wb") as file, bar:
                        for block in answer.iter_content(1 << 13):
                            file.write(block)
                            bar.update(len(block))
                        file.flush()
                        os.fsync(file.fileno())
                if total and part.stat().st_size != total:
                    raise requests.ConnectionError(
                        f"got {part.stat().st_size:,} of {total:,} bytes"
                    )
                os.replace(part, path)
                return path
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ) as error:
                last = error
                if attempt == 4 or not (
                    part.exists() and part.stat().st_size > have
                ):  # no progress: no use in trying on
                    raise
                time.sleep(attempt)
        raise OSError(str(last))
    except (OSError, requests.RequestException) as error:
        fetch_by_hand(url, url, error)


def fetch_by_hand(what, files, error):
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    raise SystemExit(
        f"{Path(sys.argv[0]).stem}: cannot fetch {what} ({reason}); fetch {files} where there is a network and pass it with --input"
    )


def parquet_column(path, column):
    """Yield (row number from 0, value) of one column, in batches; nothing else is read. Raises ValueError if the column is not there."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if column not in file.schema_arrow.names:
            raise ValueError(
                f"no column {column!r}; its columns are {', '.join(file.schema_arrow.names[:20])}"
            )
        row = 0
        for batch in file.iter_batches(BATCH, columns=[column]):
            values = batch.column(0)
            try:
                values = values.to_pylist()
            except UnicodeDecodeError:
                values = values.cast(
                    "large_binary" if "large" in str(values.type) else "binary"
                ).to_pylist()
            for value in values:
                yield row, value
                row += 1
