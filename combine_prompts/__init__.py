import common.command_line  # noqa: F401 - first: it says which package is missing
