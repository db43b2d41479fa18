"""The limit of open files: raised as far as is useful and allowed, or named before work begins.

limit = need_open_files(128, 4192, "the job server")
"""

import resource

from common.command_line import UserError


def need_open_files(least: int, useful: int, who: str) -> int:
    """Raise this process's limit to `useful`, or as far as is allowed; the limit that holds.

    UserError: it is below `least`. Then each further connection or file would fail.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < useful:
        limit = min(useful, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    if limit < least:
        raise UserError(
            f"{who} needs {least:,} open files, and this shell or job allows {limit:,} "
            f"(`ulimit -n`): start it where `ulimit -n {least}` is allowed"
        )
    return limit
