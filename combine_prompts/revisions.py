"""Pin the commit that a source is fetched at, until --revision asks for another.

    revision = chosen("sac", args.revision)      # a file in a repository on GitHub
    notes = Revisions(Path("prompts"))           # sets on the hub: prompts/revisions.json
    revision = notes.chosen("ymhao/HPDv2", args.revision)
    notes.note("ymhao/HPDv2", commit)            # after its files were fetched

For data sets on the hub this project has checked no commit. The first fetch takes the newest one
and notes it beside the prompts; later fetches take that commit again.
"""

import json
import re
from pathlib import Path

from common.command_line import UserError
from common.files import read_json, write_whole

# the commits that facts about these files were counted on
PINNED = {
    "gecko": "e5f8ac247584fe5ba1663b155fd09c5992ced8f1",
    "sac": "5b78f9eee45698ba8629fbaa461952952433553d",
}
NEWEST = "main"
COMMIT = re.compile("[0-9a-f]{40}")


def chosen(source: str, asked: str | None) -> str:
    """What --revision says, or the commit of this checkout."""
    return asked or PINNED[source]


class Revisions:
    """The commits that were fetched into `folder`: {repository: commit} in revisions.json."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "revisions.json"

    def chosen(self, repo: str, asked: str | None) -> str:
        """What --revision says, the commit that was noted, or the newest one."""
        return asked or self._noted().get(repo, NEWEST)

    def note(self, repo: str, commit: str) -> None:
        """Fetch this commit from now on."""
        noted = self._noted()
        if noted.get(repo) != commit:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(noted | {repo: commit}, indent=1) + "\n")

    def _noted(self) -> dict[str, str]:
        """The noted commits. UserError if the file is damaged: no other commit is fetched then."""
        try:
            noted = read_json(self.path)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: {error}; delete it to fetch the newest") from None
        if not isinstance(noted, dict) or not all(
            isinstance(commit, str) and COMMIT.fullmatch(commit) for commit in noted.values()
        ):
            raise UserError(
                f"{self.path}: not a table of repositories and commits; delete it to fetch "
                "the newest"
            )
        return noted
