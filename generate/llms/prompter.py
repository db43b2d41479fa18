"""class Prompter: asks LLMs for variations of prompts, in a thread and event loop of its own, until each prompt has as many as wanted.

prompter = Prompter("llm_backends.yaml", budget_usd=5.0)
future = prompter.submit("a corgi in a top hat", 9)
future.result().texts     # [{"text", "llm_model_name", "backend", "overlap"}, …]
prompter.close()
"""

import asyncio
import collections
import hashlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from generate.llms import backends_file as llm_backends
from generate.llms import variations
from generate.llms.failures import Failure
from generate.llms.router import LATENCY_BOUNDS_S, AllOff, Purse, Router, Unanswered  # noqa: F401  AllOff is what submit()'s futures may raise

INSTRUCTION = Path(__file__).resolve().parent / "instruction.txt"
TYPICAL_BYTES = 6000  # of a request: instruction, 30 texts not to repeat, prompt; the first guess of what one call may cost
MENDED_EVERY_S = 2.0  # how often a configuration file is looked at while everything is off
RETURNING = ("model", "credit")  # a model can be pulled, an account topped up, while a client waits
SAID_AGAIN_S = 600.0


@dataclass
class Variations:
    """texts: [{"text", "llm_model_name", "backend", "overlap"}]; short: None or {"missing", "reason"}."""

    texts: list
    short: dict | None


class Prompter:
    def __init__(
        self,
        backends=None,
        budget_usd=0.0,
        seed=0,
        instruction=None,
        ollama_hosts=None,
        min_overlap=0.0,
        accounts=None,
        log=print,
    ):
        """backends: a file, "embedded", or None = llm_backends.yaml, else the example. accounts: None = limits and money come from the job
        server by set_share(); a path or ":memory:" = this process keeps them itself. instruction: a text file with {n} and {prompt}.

        Raises SystemExit with one line for a file that cannot be used.
        """
        self.embedded = backends == "embedded"
        self.file = None if self.embedded else Path(backends or llm_backends.default_file())
        self.budget_usd, self.seed, self.ollama_hosts, self.min_overlap, self.log = (
            float(budget_usd),
            seed,
            ollama_hosts,
            min_overlap,
            log,
        )
        self.instruction = read_instruction(instruction or INSTRUCTION)
        self.backends = [] if self.embedded else self._read(log)
        self.purse = Purse()
        self.purse.call_usd = max(
            [b.worst_usd(TYPICAL_BYTES) for b in self.backends if b.paid and not b.off_kind],
            default=0.0,
        )
        self.accounts_path, self.accounts, self.reports, self.refilled = (
            accounts,
            None,
            0,
            float("-inf"),
        )
        self.retired, self.server, self.router, self.closed = [], None, None, False
        self.lock, self.ready, self.tasks = threading.Lock(), threading.Event(), set()
        self.thread, self.loop, self.start_error = None, None, None

    def _read(self, log):
        return llm_backends.read(self.file, self.ollama_hosts, self.budget_usd, log)

    # ------------------------------------------------------------ what the client calls, from any thread

    def start(self):
        """Start the thread and the embedded model now instead of at the first submit()."""
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="LLMs", daemon=True)
                self.thread.start()
        self.ready.wait()
        if self.start_error:
            raise self.start_error

    def submit(self, prompt, n, known=()):
        """Future of Variations: n texts that are no copies of each other, of the prompt, or of `known`. It waits out any weather; it raises
        AllOff (one line with each backend's remedy) when everything is off for the run and nothing may return."""
        self.start()
        return asyncio.run_coroutine_threadsafe(self._variations(prompt, n, list(known)), self.loop)

    def limits(self):
        """What the job server is to know of the backends: {"budget_usd", "call_usd", "wanted_usd", "backends": {name: limits a minute}}."""
        backends = {
            b.name: {
                "model": b.model,
                "paid": b.paid,
                "tier": b.tier,
                "requests_per_minute": b.requests_per_minute,
                "tokens_per_minute": b.tokens_per_minute,
            }
            for b in self.backends
        }
        return {
            "budget_usd": self.budget_usd,
            "call_usd": self.purse.call_usd,
            "wanted_usd": self.purse.wanted_usd,
            "backends": backends,
        }

    def use(self):
        """Running totals: {"backends": {name: …}, "usd", "granted_usd", "reserved_usd", "wanted_usd", "call_usd", "closed"}."""
        now = time.monotonic()  # the event loop's clock
        self.reports += 1
        backends = {}
        for backend in self.retired + self.backends:
            backends[backend.name] = _sum(backends.get(backend.name), backend.use(now))
        purse = self.purse
        return {
            "reported": self.reports,
            "backends": backends,
            "usd": purse.spent_usd,
            "granted_usd": purse.granted_usd,
            "reserved_usd": purse.reserved_usd,
            "wanted_usd": purse.wanted_usd,
            "call_usd": purse.call_usd,
            "closed": self.closed,
        }

    def set_share(self, share):
        """share: Accounts.share() of the job server: limits a minute and the money granted so far. Any order, any number of times."""
        if share and self.router and not self.closed:
            self.loop.call_soon_threadsafe(self._set_share, share)
        elif share:
            self._set_share(share)

    def state(self):
        """ "healthy", "waiting" (all backends pause) or "off" (all are off for the run)."""
        if not self.router:
            return (
                "healthy" if self.embedded or any(not b.off_kind for b in self.backends) else "off"
            )
        return self.router.state()

    def waiting_since(self):
        """Seconds for which calls have waited without any healthy backend; 0.0 while there is one."""
        since = self.router.away_since if self.router else None
        return 0.0 if since is None else time.monotonic() - since

    def lines(self):
        """A line per backend that was asked: calls, failures by kind, latency, tokens, cost, state."""
        return [_line(name, use) for name, use in self.use()["backends"].items() if use["calls"]]

    def close(self):
        """Cancel what is under way and stop. use() stays good; its "closed" gives the unspent money back to the run."""
        with self.lock:
            thread, self.closed = self.thread, True
        if thread and thread.is_alive():
            self.ready.wait()
            if not self.start_error:
                self.loop.call_soon_threadsafe(self.stopping.set)
            thread.join()

    # ------------------------------------------------------------ inside the thread

    def _run(self):
        try:
            asyncio.run(self._main())
        finally:
            self.ready.set()

    async def _main(self):
        self.loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
        try:
            if self.embedded:
                from examples import embedded_llm

                self.server = embedded_llm.Server(self.log)
                self.backends = [self.server.backend()]
            if self.accounts_path is not None:
                self._open_accounts()
            self.router = Router(self.backends, self.purse, self.log, self.seed, self._may_return)
        except BaseException as error:  # handed to start(), in the caller's thread
            self.start_error = error
            return
        self.ready.set()
        watching = asyncio.create_task(self._watch())
        try:
            await self.stopping.wait()
        finally:
            watching.cancel()
            for task in list(self.tasks):
                task.cancel()
            self._say_lines()
            await asyncio.gather(watching, *self.tasks, return_exceptions=True)
            if self.accounts:
                self._refill()
                self.accounts.connection.close()
            if self.server:
                self.server.stop()

    async def _variations(self, prompt, n, known):
        self.tasks.add(asyncio.current_task())
        asyncio.current_task().add_done_callback(self.tasks.discard)
        kept, texts, attempt, short = variations.Kept(prompt, known, self.min_overlap), [], 0, None
        while len(texts) < n:
            attempt += 1
            request = _Request(self, prompt, n - len(texts), kept, attempt)
            try:
                texts += await self.router.call(request, ahead=attempt > 1)
            except Unanswered as error:
                short = {"missing": n - len(texts), "reason": str(error)}
                break
        return Variations(texts, short)

    async def _watch(self):
        """Reload the backends file when everything is off and the file was changed; remind the user of the remedies now and then."""
        changed, said, counted = self._changed(), None, self.loop.time()
        while True:
            await asyncio.sleep(MENDED_EVERY_S)
            if self.loop.time() - counted > SAID_AGAIN_S:
                counted = self.loop.time()
                self._say_lines()
            if (
                not self.backends
                or any(not b.off_kind for b in self.backends)
                or not self._may_return()
            ):
                continue
            if said is None or self.loop.time() - said > SAID_AGAIN_S:
                said = self.loop.time()
                remedies = "; ".join(f"{b.name}: {b.off_because}" for b in self.backends)
                self.log(
                    f"LLMs: all backends are off; waiting until {self.file} is changed (or touched, once mended): {remedies}"
                )
            if self._changed() != changed:
                changed, said = self._changed(), None
                try:
                    backends = self._read(self.log)
                except SystemExit as error:
                    self.log(f"LLMs: {error}; still waiting")
                    continue
                self.retired, self.backends = self.retired + self.backends, backends
                self.router.replace(backends)
                self.log(
                    f"LLMs: {self.file} was read again: {sum(not b.off_kind for b in backends)} backends"
                )

    def _say_lines(self):
        for line in self.lines():
            self.log(f"LLMs: {line}")

    def _may_return(self):
        """Whether waiting makes sense when all are off: a model can be pulled, an account topped up, the file then touched."""
        return bool(self.file) and any(b.off_kind in RETURNING for b in self.backends)

    def _changed(self):
        try:
            return os.stat(self.file).st_mtime_ns if self.file else None
        except OSError:
            return None

    def _set_share(self, share):
        for backend in self.backends:
            limits = (share.get("backends") or {}).get(backend.name)
            if limits and self.router:
                backend.limit(limits.get("requests_per_minute"), limits.get("tokens_per_minute"))
        self._set_money(share)
        if self.router:
            self.router.dispatch()

    def _set_money(self, share):
        self.purse.granted_usd = max(self.purse.granted_usd, float(share.get("granted_usd") or 0.0))
        if self.purse.paid_off != share.get("paid_off"):
            self.purse.paid_off = share.get("paid_off")
            if self.purse.paid_off and any(b.paid and not b.off_kind for b in self.backends):
                self.log(f"LLMs: the paid backends pause: {self.purse.paid_off}")

    def _open_accounts(self):
        import sqlite3

        from generate.llms.budget import Accounts

        connection = sqlite3.connect(self.accounts_path, isolation_level=None)
        self.accounts = Accounts(
            connection, client_ttl_s=float("inf"), raised_by="--llm_budget_usd"
        )
        for client_id in list(self.accounts.clients):
            if not self.accounts.clients[client_id]["closed"]:
                self.accounts.forget(
                    time.monotonic(), client_id
                )  # an earlier process that was killed: its grant counts as spent
        self.accounts.register(self.limits())
        self.accounts.set_budget(self.budget_usd)
        self.client_id = f"{os.getpid()}-{time.time_ns()}"
        self.purse.refill = self._refill
        self._refill()

    def _refill(self):
        """The share of this process from its own accounts, on disk before it is used. At most every 0.2 s, but for the last one."""
        now = time.monotonic()
        if now - self.refilled < 0.2 and not self.closed:
            return
        self.refilled = now
        self.accounts.report(now, self.client_id, self.use())
        self._set_money(self.accounts.share(now, self.client_id))
        for backend in self.backends if self.purse.paid_off else ():
            if backend.paid and not backend.off_kind:
                backend.turn_off(
                    "budget", self.purse.paid_off
                )  # nobody can raise the cap of this process while it runs


class _Request:
    """One question for the router: more texts for one prompt."""

    def __init__(self, prompter, prompt, missing, kept, attempt):
        self.prompter, self.prompt, self.missing, self.kept, self.attempt = (
            prompter,
            prompt,
            missing,
            kept,
            attempt,
        )
        self.prompt_bytes = (
            len(prompter.instruction.encode()) * 2
            + 2 * len(prompt.encode())
            + sum(len(t.encode()) + 4 for t in kept.texts[-30:])
            + 1500
        )
        self.asked = 0

    def make(self, backend):
        self.asked += 1
        key = f"{self.prompter.seed}/{self.prompt}/{self.attempt}/{self.asked}"
        seed = (
            int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:4], "big")
            >> 1
        )
        return llm_backends.request_of(
            backend, self.prompter.instruction, self.prompt, self.missing, self.kept, seed
        )

    def probe(self, backend):
        """A plain prompt: does the backend fail at everything or only at this request?"""
        return llm_backends.request_of(
            backend, self.prompter.instruction, variations.EXAMPLE[0], 1, variations.Kept(""), 0
        )

    def judge(self, backend, reply):
        accepted, why = self.kept.sift(reply.text, self.missing)
        if not accepted:
            kind = collections.Counter(why).most_common(1)[0][0] if why else "unusable"
            raise Failure(kind, f"none of the answer's texts could be used ({kind})")
        return [
            {
                "text": text,
                "llm_model_name": backend.model,
                "backend": backend.name,
                "overlap": variations.overlap(self.prompt, text),
            }
            for text in accepted
        ]


def read_instruction(path):
    """The instruction's text. Raises SystemExit when it cannot be read or has no place for the prompt and the number."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"llm_prompting.py: cannot read the instruction {path}: {error}") from None
    for place in ("{n}", "{prompt}"):
        if place not in text:
            raise SystemExit(f"llm_prompting.py: the instruction {path} must hold {place}")
    return text.rstrip() + "\n"


def _line(name, use):
    def below(share):  # upper bound of the class in which that share of the answers lies
        so_far, wanted = 0, share * sum(use["seconds"])
        for bound, count in zip([*LATENCY_BOUNDS_S, float("inf")], use["seconds"]):
            so_far += count
            if so_far and so_far >= wanted:
                return f"{bound:.3g}"

    latency = f"half below {below(0.5)} s, 95 % below {below(0.95)} s; " if use["successes"] else ""
    failures = ", ".join(f"{n} × {kind}" for kind, n in use["failures"].items())
    state = use["state"] + (f" ({use['because']})" if use["because"] else "")
    return (
        f"{name}: {use['calls']:,} calls, {use['successes']:,} good{', ' + failures if failures else ''}; {latency}"
        f"{use['prompt_tokens']:,} + {use['completion_tokens']:,} tokens, {use['usd']:.4f} USD; {state}"
    )


def _sum(a, b):
    """Totals of a backend before and after the configuration was read again; the later one's state stands."""
    if a is None:
        return b
    added = {
        key: a[key] + b[key]
        for key in ("calls", "successes", "prompt_tokens", "completion_tokens", "usd")
    }
    failures = {
        kind: a["failures"].get(kind, 0) + b["failures"].get(kind, 0)
        for kind in {**a["failures"], **b["failures"]}
    }
    return {
        **b,
        **added,
        "failures": failures,
        "seconds": [x + y for x, y in zip(a["seconds"], b["seconds"])],
    }
