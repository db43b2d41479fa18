"""How a run is doing, on the terminal: what the job server says, the errors with the log to read, and what a run will take.

    python generate/generate_images.py HPDv2.json --status
    python generate/image_server.py --status
"""


def show(output_root, dataset=None):
    """Print the status of the server of this output root (of one data set, or of all); return the exit status: 0, or 1 if no server answers."""


def render(document, dataset=None, url=None, output_root=None):
    """The status document of the server (GET /status) as lines for a terminal: str."""


def estimate(args, definition, items, output_root, document=None):
    """What the run will take, as lines: images, files, bytes against what the disk or a quota leaves, GPU hours if images an hour were
    measured (in the status document), LLM calls, tokens and their cost."""
