"""Modules are imported by their full names from the checkout, as the scripts do."""

import ast
import gc
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# Two torch threads on two busy cores are several times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell's background job ignores Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# an example that takes long on a busy machine is no fault
settings.register_profile("any machine", parent=settings(), deadline=None)
settings.load_profile("any machine")

_parse = ast.parse


_one_parse = threading.RLock()


def parse_alone(*args, **kwargs):
    """ast.parse, of one thread at a time: CPython 3.11 mixes up two that parse at one instant.

    A collection of garbage may let another thread run in the middle of one. So do tracebacks that
    a thread logs, and pytest as it shows a failed test, where the error would end the whole run.
    """
    with _one_parse:
        collects = gc.isenabled()
        gc.disable()
        try:
            return _parse(*args, **kwargs)
        finally:
            if collects:
                gc.enable()


ast.parse = parse_alone

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# Tests that share something costly go to one worker, one after the other: a SLURM cluster,
# Chromium, fake LLMs that time out, diffusers and compiled code, parsed sources.
TOGETHER = {
    "tests/cluster/": "cluster",
    "tests/generate/test_page_": "page",
    "tests/generate/test_llm_": "llm",
    "tests/generate/test_diffusion_": "torch",
    "tests/generate/test_recipe_pipelines.py": "torch",
    "tests/generate/test_compil": "torch",
    "tests/generate/test_pixels.py": "torch",
    "tests/test_structure.py": "structure",
}

# These take longest: they begin first, or two cores wait for the last of them at the end.
FIRST = (
    "tests/cluster/",
    "tests/generate/test_folder_chaos.py",
    "tests/test_end_to_end.py",
    "tests/generate/test_ledger_machine.py",
    "tests/generate/test_llm_",
    "tests/generate/test_page_",
    "tests/generate/test_client_",
    "tests/test_",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: _rank(item.nodeid))


def _rank(nodeid):
    return next((n for n, start in enumerate(FIRST) if nodeid.startswith(start)), len(FIRST))


class Together(LoadScopeScheduling):
    def _split_scope(self, nodeid):
        return next((name for start, name in TOGETHER.items() if nodeid.startswith(start)), nodeid)


def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False  # the order above stands
    return Together(config, log)


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def browser():
    if not CHROMIUM:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "Chromium is missing: apt-get install chromium"
        )
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield chromium
        chromium.close()
