"""The ledger's file while the server runs: was it deleted, and how it is written again.

file = LedgerFile(path)                 # while the database is open
if file.is_away():
    file.write_again(connection)
"""

import os
import sqlite3
from pathlib import Path

from common.files import is_away, sync_folder


class LedgerFile:
    """A file that this process holds open by a connection to it."""

    def __init__(self, path: Path) -> None:
        """OSError: it cannot be looked at."""
        self.path = path
        self._opened = os.stat(path)  # no other file gets its inode while it is open

    def is_away(self) -> bool:
        """Whether the file was deleted, moved or replaced: what is written is then lost."""
        return is_away(self.path, self._opened)

    def write_again(self, connection: sqlite3.Connection) -> bool:
        """Put a deleted file back, whole, from what this process still holds open.

        False: another file stands there. sqlite3.OperationalError, OSError: the disk fails.
        """
        draft = self.path.with_name(f".{self.path.name}.draft")
        draft.unlink(missing_ok=True)
        connection.execute("VACUUM INTO ?", (str(draft),))
        with open(draft, "rb+") as file:
            os.fchmod(file.fileno(), self._opened.st_mode & 0o777)
            os.fsync(file.fileno())
        try:
            os.link(draft, self.path)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        sync_folder(self.path.parent)
        return True
