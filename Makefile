# `make serve` and `make test` are all that a newcomer needs; both make .venv themselves (Python 3.11+ and make suffice).
PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check
ARGS ?=
TARGET ?= cuda
CLIENTS ?= openai_v3 openai_v2 evaluation load node
NODE_MODULES := tests/clients/node/node_modules
DASHBOARD_MODULES := tests/deploy/grafana/node_modules
C_FILES := $(wildcard kernels/peregrine_kernels/native/*.[ch] tests/*.h)

.PHONY: serve test test-fast test-gpu test-sanitized test-clients $(CLIENTS:%=test-clients-%) test-chart \
	test-chart-security test-dashboard test-image quickstart chart image wheel install check fmt lock bench bench-7b \
	bench-router bench-traces bench-gpu kernels-report roofline compare simulate performance demo clean

serve: .venv/.runtime ## Serve the demo Falcon, or any other: make serve ARGS="--model-id tiiuae/falcon-7b-instruct"
	$(BIN)/peregrine serve $(ARGS)

test: .venv/.dev ## Run the tests on two workers: make test ARGS="-n 0 -k scheduler"
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-fast: .venv/.dev ## Run the tests that take seconds, in every folder
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

test-gpu: .venv/.dev ## Run the tests that need a GPU; fails where there is none
	TRITON_INTERPRET=0 $(BIN)/python -m pytest -m gpu $(ARGS)

test-sanitized: .venv/.dev ## Run the C kernels' tests with address and undefined-behaviour sanitizers; needs gcc
	$(BIN)/python -m scripts.sanitize $(ARGS)

test-clients: $(CLIENTS:%=test-clients-%) ## Run published clients against the server: make test-clients CLIENTS=evaluation
	$(BIN)/python -m tests.clients.table

test-clients-node: $(NODE_MODULES)/.package-lock.json .venv/.runtime
	PYTHONPATH=tests $(BIN)/python tests/clients/node/run.py

test-dashboard: $(DASHBOARD_MODULES)/.package-lock.json ## Type-check the Grafana dashboard against Grafana's types; needs Node 18
	node tests/deploy/grafana/check.mjs

$(patsubst %,test-clients-%,$(filter-out node,$(CLIENTS))): test-clients-%: .clients/%/.installed .venv/.runtime
	.clients/$*/bin/python -m pytest --record $* tests/clients/$* $(ARGS)

chart: .venv/.chart ## Bring the Helm chart's generated files up to date and package it into dist/
	$(BIN)/python -m scripts.chart

test-chart: .venv/.chart ## Render the Helm chart with both Helms, check every object, start what a pod runs
	$(BIN)/python -m scripts.chart.helm
	$(BIN)/python -m pytest tests/helm $(ARGS)

test-chart-security: .venv/.chart .chart/security/.installed ## Run checkov on the chart's default values
	$(BIN)/python -m scripts.chart.security

wheel: .venv/.dev ## Build the wheel into dist/
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

quickstart: .venv/.dev ## A new operator's quarter of an hour: server, dashboard, an alert: make quickstart ARGS="--image NAME"
	scripts/prometheus.sh
	$(BIN)/python -m scripts.quickstart $(ARGS)

image: ## Build the image with docker, podman or buildah, for GPUs or for a CPU: make image TARGET=cpu
	scripts/image/build.sh $(TARGET)

test-image: .venv/.dev ## Build both images on a base made here and run them; needs root on Debian
	scripts/image/test.sh $(ARGS)

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

bench-7b: .venv/.dev ## Load and serve Falcon-7B's shape on this CPU: time, GB/s, memory, tokens/s; 14 GB of disk, 20 of memory
	$(BIN)/python -m benchmarks.real_size $(ARGS)

bench-router: .venv/.dev ## Measure the router against a bare ASGI loop, interleaved, on one core
	$(BIN)/python -m benchmarks.router $(ARGS)

bench-traces: .venv/.dev ## Measure what traces cost the router, interleaved, on one core
	$(BIN)/python -m benchmarks.traces $(ARGS)

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
	scripts/lock_clients.sh $(ARGS)

clean: ## Remove what the other targets made
	rm -rf .venv .clients .chart .bench .image .mypy_cache .ruff_cache .pytest_cache .hypothesis

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

.venv/.chart: requirements/chart.txt .venv/.dev
	$(PIP_INSTALL) --require-hashes --no-deps --requirement requirements/chart.txt
	@touch $@

.chart/security/.installed: requirements/checkov.txt
	$(PYTHON) -m venv --clear .chart/security
	.chart/security/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.clients/%/.installed: requirements/clients/%.txt
	$(PYTHON) -m venv --clear .clients/$*
	.clients/$*/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(NODE_MODULES)/.package-lock.json: tests/clients/node/package-lock.json
	@node -e 'process.exit(process.versions.node.split(".")[0] < 20)' || \
		{ echo "The Node clients need Node 20 or newer"; exit 1; }
	npm ci --prefix tests/clients/node --no-audit --no-fund

$(DASHBOARD_MODULES)/.package-lock.json: tests/deploy/grafana/package-lock.json
	npm ci --prefix tests/deploy/grafana --no-audit --no-fund
