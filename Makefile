# Everything in .venv; needs Python 3.11 or newer and make. `make env` is quick when nothing has changed.

PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	command -v $$python >/dev/null 2>&1 && $$python -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
	>/dev/null 2>&1 && echo $$python && break; done)
BIN := .venv/bin
STAMP := .venv/.made

.PHONY: env demo test test-bugs test-trino test-spark lint simulate nightly mutate chaos soak fuzz bench site image lock clean help
.DEFAULT_GOAL := help

# The tests start hundreds of commands: without bytecode each of them compiles everything that it imports.
unexport PYTHONDONTWRITEBYTECODE

help: ## What there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: $(STAMP) ## The environment in .venv, with the command .venv/bin/headwater

$(STAMP): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; install one or say PYTHON=/path/to/python" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements/dev.txt
	VIRTUAL_ENV=$(CURDIR)/.venv $(BIN)/uv pip install --quiet --no-deps -e .
	@touch $@

demo: env ## The whole pipeline on an embedded AWS, audited
	$(BIN)/headwater demo

# Three, as many tests wait for leases and servers; in the order of folders, so that short ones fill up the end. A worker
# that dies ends the run: one started in its place may wait for work for ever.
test: env ## All tests
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 --durations 20

test-bugs: env ## Every mistake planted in the code is found by the simulation; many minutes
	$(BIN)/pytest -n 2 -m "long or not long" tests/simulation -k planted

test-trino: env ## A real Trino over the lake; fetches 821 MB once, needs a JDK of 24 or newer and Maven
	$(BIN)/python -m tests.trino.server
	$(BIN)/pytest -m trino tests/trino

test-spark: env ## Spark 3.5 and 4 over the lake, with Iceberg 1.9 and 1.10; fetches 1.2 GB once, needs Java and Maven
	$(BIN)/python -m tests.spark.server
	$(BIN)/pytest -m spark tests/spark

lint: env ## ruff, mypy strict, import-linter, bandit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -ll -c pyproject.toml -r headwater producers processors sinks serving commands

SEEDS ?= 0:1000
JOBS ?= 2
COUNT ?= 20000
SAMPLE ?= 200
SECONDS ?= 3600
MINUTES ?= 20

simulate: env ## Crashes, lies and delays in simulated time: SEEDS=0:10000 JOBS=2, or SEEDS=17 for one and its trace
	$(BIN)/python -m tests.simulation.run --seeds $(SEEDS) --jobs $(JOBS)

nightly: env ## Seeds that were never run before, counted in build/simulation-total.json: COUNT=20000
	$(BIN)/python -m tests.simulation.nightly --count $(COUNT) --jobs $(JOBS)

mutate: env ## The tests against small mistakes in what exactly-once rests on: SAMPLE=200, or 0 for all of them
	$(BIN)/python -m tests.mutation.run --sample $(SAMPLE)

fuzz: env ## What reads the bytes of others, over the inputs kept in tests/corpus: SECONDS=3600
	$(BIN)/python -m tests.fuzzing $(SECONDS)

chaos: env ## Two minutes of killed, stopped and cut-off processes, then the audit; needs Node, Java and Maven
	$(BIN)/python -m tests.chaos.run --seconds 120

soak: env ## A steady load, hurt now and then; memory, descriptors, items and files stay flat, plotted below build/soak/: MINUTES=20
	$(BIN)/python -m tests.chaos.soak --seconds $$(( $(MINUTES) * 60 ))

bench: env ## Benchmarks, side by side on one core
	$(BIN)/python -m bench.engine
	$(BIN)/python -m bench.path
	$(BIN)/python -m bench.placement
	$(BIN)/python -m bench.lake
	$(BIN)/python -m bench.scale
	$(BIN)/python -m bench.state
	$(BIN)/python -m bench.ids
	$(BIN)/python -m bench.kcl
	$(BIN)/python -m bench.gateway
	$(BIN)/python -m bench.serving
	$(BIN)/python -m bench.formats
	$(BIN)/python -m bench.hot_row
	$(BIN)/python -m bench.invalid

site: env ## The documentation site in build/site, links checked; runs the notebooks that have changed
	$(BIN)/python -m infra.notebooks
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

SERVICE ?= publish

image: env ## An image where no container engine is: SERVICE=gateway; needs root, buildah and mmdebstrap
	$(BIN)/python -m infra.image $(SERVICE)

lock: ## Resolve the requirements anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --no-annotate --no-header \
		-o requirements/dev.txt

clean: ## Remove the environment and everything that was made
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
