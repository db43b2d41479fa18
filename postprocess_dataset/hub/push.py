"""Push a release to the hub: shards in few commits, what describes them in the last one.

    push(PushSettings("release/HPDv2", "my-organisation/birds"))

After a kill at any instant the same call goes on: what is committed, or was uploaded, is not sent
again. Only files that were verified and that the manifest lists are uploaded, byte for byte.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)

from common.command_line import DONE, UserError
from common.console import amount, visible
from common.files import read_json
from common.hub import limit_hub, not_a_hub
from common.open_files import need_open_files
from common.untrusted import real_folders
from postprocess_dataset.hub.difference import (
    MOST_FILES,
    Difference,
    RemoteFile,
    commits,
    difference,
)
from postprocess_dataset.hub.local_file import SMALL, LocalFile, source
from postprocess_dataset.manifest import manifest
from postprocess_dataset.progress import tell
from postprocess_dataset.release_folder import is_published, work_folder

DOCUMENT_BYTES = 1 << 26
MOST_ENTRIES = 1_000_000  # the hub advises 100,000 files at most
T = TypeVar("T")
OPEN_FILES = MOST_FILES + 64  # those of a commit; connections
AGAIN = "what is uploaded stays, the same command goes on from there"


@dataclass(frozen=True)
class PushSettings:
    """What push_to_hub.py was asked for; see its --help."""

    release: str
    repo: str
    public: bool = False
    dry_run: bool = False
    allow_unverified: bool = False


def push(settings: PushSettings) -> int:
    """Upload what is new; the exit status. UserError: not verified, or the hub refuses it."""
    files, root = listed(settings.release)
    if not settings.allow_unverified:
        check_verified(settings.release, root)
        refuse_others(settings.release, files)
    need_open_files(OPEN_FILES, OPEN_FILES, "push_to_hub.py")
    limit_hub()
    api = HfApi()
    with hub_errors_as_one_line(settings.repo):
        if not settings.dry_run:
            private = None if settings.public else True
            api.create_repo(settings.repo, repo_type="dataset", private=private, exist_ok=True)
            about = api.repo_info(settings.repo, repo_type="dataset")
            if about.private is False and not settings.public:
                raise UserError(
                    f"{settings.repo} is public: make it private on the hub, or publish the "
                    "release there with --public"
                )
        found = difference(files, remote_files(api, settings))
        if settings.dry_run:
            tell_plan(settings, found)
            return DONE
        count = upload(api, settings, files, found)
    tell(
        f"{settings.repo}: {len(found.shards) + len(found.last):,} files "
        f"({amount(found.bytes)}) in {count} commits, {found.same:,} were there; "
        f"root {root}"
    )
    return DONE


def listed(release: str) -> tuple[list[LocalFile], str]:
    """(the files of a release, its root). UserError: there is no manifest, or not its files."""
    path = os.path.join(release, manifest.NAME)
    try:
        content = manifest.read_content(release)
        document = manifest.parse(content, path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; release.py writes it") from None
    except ValueError as error:
        raise UserError(f"{error}; make the release again with release.py") from None
    root: str = document["root"]
    if root != manifest.root_of(document["files"], document["allowed"]):
        raise UserError(f"{path}: its root is not the one of what it lists; run release.py again")
    inside = real_folders([release])
    files = [
        LocalFile(release, file["path"], file["bytes"], file["sha256"], inside)
        for file in document["files"]
    ]
    for file in files:
        try:
            size = os.path.getsize(file.place)
        except OSError as error:
            raise UserError(f"{visible(file.place)}: {error.strerror}") from None
        if size != file.bytes:
            raise UserError(
                f"{visible(file.place)} has {size:,} bytes, {manifest.NAME} states "
                f"{file.bytes:,}: run release.py again"
            )
    digest = hashlib.sha256(content).hexdigest()
    return [*files, LocalFile(release, manifest.NAME, len(content), digest, inside)], root


def check_verified(release: str, root: str) -> None:
    """UserError unless release.py has verified this very release."""
    path = os.path.join(work_folder(release), "verification.json")
    try:
        document: dict[str, Any] = read_json(path, DOCUMENT_BYTES)
        good = document["good"] is True and document["root"] == root
    except (OSError, ValueError, KeyError, TypeError):
        good = False
    if not good:
        raise UserError(
            f"{release}: {path} does not say that this very release was verified; run release.py "
            "again, or publish it all the same with --allow_unverified"
        )


def refuse_others(release: str, files: Iterable[LocalFile]) -> None:
    """UserError: the manifest lists a file that no release writes, a key for example."""
    for file in files:
        if not is_published(file.path):
            raise UserError(
                f"{visible(file.place)} is no file of a release: move it to another folder, and "
                f"run release.py again"
            )


def remote_files(api: HfApi, settings: PushSettings) -> dict[str, RemoteFile]:
    """What the repository holds; {} for one that is not there."""
    try:
        tree = api.list_repo_tree(settings.repo, repo_type="dataset", recursive=True)
        return {
            str(entry.path): RemoteFile(
                entry.size, entry.lfs.sha256 if entry.lfs else "", entry.blob_id
            )
            for entry in at_most(MOST_ENTRIES, tree)
            if hasattr(entry, "blob_id")
        }
    except RepositoryNotFoundError:
        if not settings.dry_run:
            raise
        return {}


def at_most(count: int, entries: Iterable[T]) -> Iterator[T]:
    """The entries. UserError: more than `count`, as in a list whose next page is itself."""
    for number, entry in enumerate(entries):
        if number == count:
            raise UserError(
                f"the hub lists more than {count:,} files of the repository: is it the right one?"
            )
        yield entry


def tell_plan(settings: PushSettings, found: Difference) -> None:
    """What a call without --dry_run would do."""
    for file in (*found.shards, *found.last):
        tell(f"would upload {file.path} ({amount(file.bytes)})")
    for path in found.stale:
        tell(f"would remove {path}")
    count = len(list(commits(found.shards))) + bool(found.last or found.stale)
    tell(
        f"{settings.repo}: would upload {len(found.shards) + len(found.last):,} files "
        f"({amount(found.bytes)}) in {count} commits; {found.same:,} are there"
    )


def upload(
    api: HfApi, settings: PushSettings, files: Sequence[LocalFile], found: Difference
) -> int:
    """Upload and commit; the number of commits. UserError: what was committed is not there."""
    count = 0
    total = len(list(commits(found.shards)))
    for batch in commits(found.shards):
        count += 1
        commit(api, settings, batch, [], f"Shards, part {count} of {total}")
        tell(f"{settings.repo}: {batch[-1].path} and {len(batch) - 1} others are committed")
    if found.shards:  # before the card says that they are there
        refuse_missing(settings.repo, difference(files, remote_files(api, settings)).shards)
    if found.last or found.stale:
        count += 1
        commit(api, settings, found.last, found.stale, "Card and manifest")
        after = difference(files, remote_files(api, settings))
        refuse_missing(settings.repo, [*after.shards, *after.last])
    return count


def refuse_missing(repo: str, missing: Sequence[LocalFile]) -> None:
    """UserError if files that were committed are missing.

    From a commit the hub's client leaves out, without a word, what the hub says to ignore.
    """
    if missing:
        others = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise UserError(
            f"{repo}: {visible(missing[0].path)}{others} is not there after its commit; if a "
            ".gitignore of the repository names it, remove that, then the same command again"
        )


def commit(
    api: HfApi, settings: PushSettings, files: Sequence[LocalFile], stale: Sequence[str], what: str
) -> None:
    """One commit. UserError: a file is not the one of the manifest, or too large for this hub."""
    removals = [CommitOperationDelete(path, is_folder=False) for path in stale]
    with ExitStack() as opened:
        additions = [CommitOperationAdd(file.path, source(file, opened)) for file in files]
        api.preupload_lfs_files(settings.repo, additions, repo_type="dataset", free_memory=False)
        for file, addition in zip(files, additions, strict=True):
            if addition.upload_info.sha256.hex() != file.sha256:
                raise file.another()
            if file.bytes > SMALL and addition._upload_mode == "regular":
                # it would be read once more for the commit, and no hub compares what git holds
                raise UserError(
                    f"{settings.repo}: the hub wants to keep {file.path} ({amount(file.bytes)}) in "
                    "git, without its sha256: a release needs a hub that takes large files as LFS"
                )
        api.create_commit(
            settings.repo, [*additions, *removals], commit_message=what, repo_type="dataset"
        )


@contextmanager
def hub_errors_as_one_line(repo: str) -> Iterator[None]:
    """The hub's errors, and the network's, as one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause = error.__cause__  # a thread that uploads has wrapped it
        if type(error) is RuntimeError and isinstance(cause, Exception):
            error = cause
        raise UserError(f"{repo}: {in_words(error)}") from None


def in_words(error: Exception) -> str:
    """An error of the hub's library, or of the network; any other is raised again."""
    if isinstance(error, UserError):  # of the limits
        return str(error)
    if isinstance(error, HFValidationError):
        return str(error).splitlines()[0]
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        hint = "; hf auth login with a token that may write" if status in (401, 403) else ""
        text = error.server_message or str(error).splitlines()[0]
        return f"the hub says {status}: {text}{hint}; {AGAIN}"
    if isinstance(error, (HTTPError, OSError)):
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"the hub cannot be reached: {text}; {AGAIN}"
    return not_a_hub(error)
