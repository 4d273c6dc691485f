# `make serve` and `make test` are all that a newcomer needs; both make .venv themselves (Python 3.11+ and make suffice).
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
ARGS ?=
C_FILES := $(wildcard kernels/peregrine_kernels/native/*.[ch] tests/*.h)

.PHONY: serve test test-fast test-gpu test-sanitized install check fmt lock bench bench-router bench-gpu kernels-report \
	roofline compare simulate performance demo clean

serve: .venv/.runtime ## Serve the demo Falcon, or any other: make serve ARGS="--model-id tiiuae/falcon-7b-instruct"
	$(BIN)/peregrine serve $(ARGS)

test: .venv/.dev ## Run the tests: make test ARGS="-k scheduler"
	$(BIN)/python -m pytest $(ARGS)

test-fast: .venv/.dev ## Run the tests that take seconds, in every folder
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-gpu: .venv/.dev ## Run the tests that need a GPU; fails where there is none
	TRITON_INTERPRET=0 $(BIN)/python -m pytest -m gpu $(ARGS)

test-sanitized: .venv/.dev ## Run the C kernels' tests with address and undefined-behaviour sanitizers; needs gcc
	$(BIN)/python -m scripts.sanitize $(ARGS)

install: .venv/.dev ## Create .venv with the command .venv/bin/peregrine

check: .venv/.dev ## Lint, format check, strict types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(C_FILES)
	$(BIN)/mypy

fmt: .venv/.dev ## Format and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(C_FILES)

bench: .venv/.dev ## Measure against the bare GEMMs and transformers, interleaved
	$(BIN)/python -m benchmarks.model $(ARGS)

bench-router: .venv/.dev ## Measure the router against a bare ASGI loop, interleaved, on one core
	$(BIN)/python -m benchmarks.router $(ARGS)

bench-gpu: .venv/.dev ## Measure kernels and whole steps on a GPU against their roofs
	$(BIN)/python -m benchmarks.gpu $(ARGS)

kernels-report: .venv/.dev ## Compile every GPU kernel without a GPU: registers, spills, shared memory, tensor cores
	$(BIN)/python -m benchmarks.kernels $(ARGS)

roofline: .venv/.dev ## Predict the time of a step of every Falcon on every GPU
	$(BIN)/python -m benchmarks.roofline

compare: .venv/.dev ## Every installed server on the same weights and loads, interleaved (scripts/peers.sh installs them)
	$(BIN)/python -m benchmarks.compare $(ARGS)

simulate: .venv/.dev ## The real scheduler through a day of bursty arrivals on modelled GPUs
	$(BIN)/python -m benchmarks.simulate $(ARGS)

performance: .venv/.dev ## Make docs/performance.md anew from benchmarks/results
	$(BIN)/python -m benchmarks.report

lock: ## Pin the dependencies anew after a change of pyproject.toml: make lock ARGS=--upgrade; needs uv
	scripts/lock.sh $(ARGS)

clean: ## Remove what the other targets made
	rm -rf .venv .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Peregrine needs Python 3.11 or newer; name one: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv

# All but torch by hash (scripts/lock.sh says why); then torch and the package itself.
.venv/.runtime: pyproject.toml requirements/serve.txt | .venv/bin/python
	$(PIP_INSTALL) --require-hashes --no-deps --requirement requirements/serve.txt
	$(PIP_INSTALL) --editable .
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.runtime
	$(PIP_INSTALL) --require-hashes --no-deps --requirement requirements/dev.txt
	$(PIP_INSTALL) --editable '.[dev]'
	@touch $@
