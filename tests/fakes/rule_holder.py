"""A client that takes a prompt of which a changed rule opens captions: killed at each disk call.

forking.py runs it: Forking("rule_holder")("killed_at", folder, step).
"""

import threading
from pathlib import Path
from types import SimpleNamespace

from generate.client.feeder import Feeder
from generate.client.judge import Judge
from generate.client.recipes import Recipes
from generate.client.work import ClientSettings, Work
from generate.dataset.accept_rule import Rule
from generate.pipelines.pipeline import GeneratorSettings
from generate.protocol.answers import Grant
from tests.fakes.sample_holder import INDEX, RECORD, kill_at

RECIPES = Recipes(GeneratorSettings("tiny", height=64, width=64).resolved())
ITEM = {"prompt": RECORD["original_prompt"], "source": []}


def taken(folder, lease, accept, max_tries):
    """The index, as a client of that rule has just taken it."""
    rule = Rule.of({"accept": accept, "max_tries": max_tries})
    judge = Judge([], rule.accept, rule.max_tries, changed=rule)
    work = Work(threading.Event(), RECIPES)
    job = SimpleNamespace(release=lambda *_: None)
    settings = ClientSettings(Path(folder), 2, RECIPES, judge=judge)
    feeder = Feeder(work, job, None, {INDEX: ITEM}, settings)
    feeder._take(Grant(lease, [INDEX], 60))
    [index] = work.leases[lease]
    return index


def killed_at(folder, step):
    """A holder that is killed at a step."""
    kill_at(step)
    taken(folder, "1-2", "luck > 0", 4)
