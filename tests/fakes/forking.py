"""Calls functions of a module of tests/fakes in forked children, which may die at any instruction.

    with Forking("ledger_life") as forked:
        status = forked("die_at", path, 1, 7, log)

status: the exit status; negative = the signal; 99 = an exception, printed to stderr. The children
are forked by a process of their own that has no threads: in a child of the tests' own process a
lock that another thread held at that instant is never released, and the pipes of other tests'
browsers stay open as long as the child hangs.
"""

import importlib
import json
import os
import subprocess
import sys
import traceback


class Forking:
    def __init__(self, module):
        paths = os.pathsep.join(sys.path)
        self.process = subprocess.Popen(
            [sys.executable, __file__, module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.stdout.close()
        if self.process.wait(30) and not any(error):
            raise RuntimeError(f"the forking process ended with status {self.process.returncode}")

    def __call__(self, function, *args):
        self.process.stdin.write(json.dumps([function, *args], default=str) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


def in_child(function, args):
    pid = os.fork()
    if not pid:
        try:
            function(*args)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    module = importlib.import_module(f"tests.fakes.{sys.argv[1]}")
    for line in sys.stdin:
        function, *args = json.loads(line)
        print(in_child(getattr(module, function), args), flush=True)
