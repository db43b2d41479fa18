# make demo   the whole flow on embedded models: no GPU, no key, no cluster (below two minutes on 2 cores, after the set-up)
# make test   every test (about 16 minutes on 2 cores)
# make lint   ruff and mypy; `make test` runs it first
# make soak   the long tests; make bench: the measurements of docs/benchmarks.md
# make mutants   each guarantee broken once: its test must fail; make lock: the requirements' hashes anew
# Each sets up .venv by itself; a second call skips what is done. Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
# two torch threads on two busy cores are several times slower than one; nothing here may ask a hub
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# the tests start Python some two thousand times: without .pyc files each start compiles all anew
unexport PYTHONDONTWRITEBYTECODE

demo: .venv/base .venv/demo
	@$(BIN)/python examples/run_demo.py

lint: .venv/base .venv/tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# six at a time on 2 cores: most of the time they wait, for clusters, clocks and disks
test: .venv/base .venv/demo .venv/scores .venv/c2pa .venv/tests
	@$(MAKE) --no-print-directory -j 2 lint collected
	@$(BIN)/python -m pytest -n 6 --durations=15 || { [ $$? = 1 ] && $(AGAIN); }

# writes the .pyc files of the tests, which each of the six would else make for itself
collected:
	@$(BIN)/python -m pytest --collect-only -qq >/dev/null 2>&1 || true

# Clusters, browsers and kills share two cores here: a test that failed beside others is tried once more
# alone. If it fails again, it failed; if it passes, it is named, and the test must be corrected.
AGAIN = echo "make: what failed runs once more, alone:" && \
  $(BIN)/python -m pytest --last-failed --last-failed-no-failures none -x -rA --tb=short -q && \
  echo "make: these passed only alone: mend them, see CONTRIBUTING.md"

soak: .venv/base .venv/demo .venv/scores .venv/c2pa .venv/tests
	@$(BIN)/python -m pytest -m soak -n 2 --timeout=7200

bench: .venv/base .venv/demo .venv/scores .venv/c2pa .venv/tests
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script; done

mutants: .venv/base .venv/scores .venv/c2pa .venv/tests
	@$(BIN)/python tests/mutations/run.py

# --- set-up: each file under .venv is the mark of a step that has ended well ---

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "make: Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | tail -n 1); try make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	  { echo "make: $(PYTHON) has no venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "setting up .venv, once: some minutes, and 2 GB for the demo"
	@$(PYTHON) -m venv --clear .venv && touch $@

PIP = log=.venv/$(notdir $@).log; echo "  installing $(1)"; \
  $(BIN)/pip install --retries 2 $(2) >$$log 2>&1 || \
  { echo "make: could not install $(1): $$(grep -E '^ERROR|error:' $$log | tail -n 1); is there a network? the whole story is in $$log" >&2; exit 1; }

# what the lock names comes with its hash; torch, whose build depends on the machine, comes after it
LOCKED = --require-hashes --no-deps -r

.venv/base: requirements.txt requirements.lock .venv/made
	@$(call PIP,requirements.lock,$(LOCKED) requirements.lock)
	@$(call PIP,requirements.txt,-r requirements.txt) && touch $@

.venv/demo: requirements-demo.lock .venv/base
	@$(call PIP,$<,$(LOCKED) $<) && touch $@

.venv/scores: requirements-scores.lock .venv/base
	@$(call PIP,$<,$(LOCKED) $<) && touch $@

.venv/c2pa: requirements-c2pa.lock .venv/base
	@$(call PIP,$<,$(LOCKED) $<) && touch $@

.venv/tests: tests/requirements.lock .venv/base | tests/node_modules/axe-core/axe.min.js
	@$(call PIP,$<,$(LOCKED) $<) && touch $@

# the locks anew, after a change of a requirements file; torch's build brings NVIDIA's libraries itself
NOT_LOCKED = torch triton cuda-bindings cuda-pathfinder cuda-toolkit $(addprefix nvidia-, \
  cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse \
  cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx)
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
lock: .venv/made
	@$(BIN)/pip install --quiet uv==0.13.9
	@$(COMPILE) requirements.txt $(addprefix --no-emit-package ,$(NOT_LOCKED)) -o requirements.lock
	@$(COMPILE) --no-deps requirements-demo.txt -o requirements-demo.lock
	@$(COMPILE) -c requirements.lock requirements-scores.txt -o requirements-scores.lock
	@$(COMPILE) -c requirements.lock requirements-c2pa.txt -o requirements-c2pa.lock
	@$(COMPILE) -c requirements.lock tests/requirements.txt -o tests/requirements.lock

# axe-core checks the status page's accessibility; without npm that one test says what to install
tests/node_modules/axe-core/axe.min.js:
	@if command -v npm >/dev/null; then npm install --prefix tests --no-save --no-package-lock --no-audit --no-fund --silent axe-core@4.14.1 || \
	  { echo "make: npm could not install axe-core; is there a network?" >&2; exit 1; }; fi

.PHONY: demo lint test collected soak bench mutants lock
