# The commands a person types; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Another interpreter may measure, one with PyTorch: make bench BENCH_PYTHON=/path/to/its/python
BENCH_PYTHON ?= $(BIN)/python
# Some parts of bench-service, and a folder of datasets with mnist for it: PARTS="post share" DATA=...
PARTS ?=
VIEWS ?=
# Some of the attacks: ATTACKS="broker_errors slow_bodies".
ATTACKS ?=
# How long the soak takes; SEED=n repeats an earlier plan, DATABASE=postgresql takes another database.
MINUTES ?= 30
REQUESTS ?= 5000
COMPILE := CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile --quiet --allow-unsafe --generate-hashes \
	--no-emit-index-url --no-emit-find-links --strip-extras
SBOM := requirements --pyproject pyproject.toml --spec-version 1.6 --output-format JSON --output-reproducible

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check up format lock slow faults fuzz fuzz-api hostile attack soak drill browser screenshots compose bench bench-service bench-page results audit licences sbom pin-images judge clean

help:  ## list all targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## ?/  make \1|/' | column -t -s '|'

demo: $(VENV)/installed  ## train a classifier and a GAN on real digits; write the results to demo/
	@$(BIN)/tapeline demo

up: $(VENV)/installed  ## run the web page and API on http://127.0.0.1:8000 until Ctrl-C
	@$(BIN)/tapeline up

test: check  ## format check, lint, types, import rules, tests
	$(BIN)/pytest -n 4 --dist worksteal  # many of them wait for processes

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

slow: $(VENV)/installed-dev  ## the tests that take longer than a few seconds each
	$(BIN)/pytest -m slow

faults: $(VENV)/installed-dev  ## kill, stop and cut off real processes at every named point, on both databases
	$(BIN)/pytest -n 4 --dist worksteal -m "faults or not faults" tests/faults

fuzz: $(VENV)/installed-dev  ## mutate IDX and NPZ files and read them for MINUTES=10; SEED=n repeats
	@PYTHONPATH=. $(BIN)/python -m tests.security.reader_fuzz --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

fuzz-api: $(VENV)/installed-dev  ## schemathesis over the whole stack: REQUESTS=5000 compared with /openapi.json
	@PYTHONPATH=. $(BIN)/python -m tests.security.api_fuzz --requests $(REQUESTS) $(if $(SEED),--seed $(SEED))

hostile: $(VENV)/installed-dev  ## send files and bodies that mean harm, and measure time and memory
	$(BIN)/pytest -m hostile tests/security

attack: $(VENV)/installed-dev  ## attack a web process with what once hurt it; print its peak memory and the latency of others (3 minutes)
	@PYTHONPATH=. $(BIN)/python -m tests.security.attacks $(ATTACKS)

soak: $(VENV)/installed-dev  ## kill at random for MINUTES=30, and see that nothing is lost, doubled or different
	@PYTHONPATH=. $(BIN)/python -m tests.faults.soak --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(DATABASE),--database $(DATABASE))

drill: $(VENV)/installed-dev  ## lose database and files, restore a backup, and measure the recovery: JOBS=20 in the backup
	@PYTHONPATH=. $(BIN)/python -m tests.faults.drill $(if $(JOBS),--jobs $(JOBS))

browser: $(VENV)/installed-dev  ## drive the pages in Chromium, which root gets from apt; skips where there is none
	@command -v chromium google-chrome > /dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get > /dev/null \
		|| { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium > /dev/null; } \
		|| echo "Chromium could not be installed: the browser tests will say so and skip" >&2
	$(BIN)/pytest -m browser tests/browser

screenshots: $(VENV)/installed-dev  ## update the screenshots in docs/page, light and dark (3 minutes); VIEWS="jobs draw" selects some
	@PYTHONPATH=. $(BIN)/python -m tests.browser.screenshots $(VIEWS)

compose: $(VENV)/installed-dev  ## docker compose for real; skips where no Docker engine answers
	$(BIN)/pytest -m compose

bench: $(VENV)/installed  ## engine speed beside its floor, and PyTorch if BENCH_PYTHON has it; some 8 minutes
	@$(BENCH_PYTHON) -m benchmarks

bench-service: $(VENV)/installed-dev  ## measure the performance of the service on SQLite and PostgreSQL (15 minutes), or PARTS="post scale"
	@PYTHONPATH=. $(BIN)/python -m benchmarks.service $(PARTS) $(if $(DATA),--data $(DATA))

bench-page: $(VENV)/installed-dev  ## measure the latency of the web page in Chromium (2 minutes)
	@PYTHONPATH=. $(BIN)/python -m benchmarks.page

results: $(VENV)/installed  ## the table of what the presets reach: make results DATA=folder-of-datasets ONLY="gan stable"
	@$(BIN)/python -m benchmarks.presets $(if $(DATA),--data $(DATA)) $(if $(INDEPENDENT),--independent) $(ONLY)

judge: $(VENV)/installed  ## retrain the reference classifier on MNIST: make judge DATA=folder-of-datasets
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m workers.make_judge $(DATA)

audit: $(VENV)/installed-dev  ## ask the advisory database about everything in requirements.lock; exit 2: not all was checked
	@$(BIN)/python .ci/audit.py requirements.lock

licences: $(VENV)/installed-dev  ## write docs/licences.md: what everything in requirements.lock is licensed under
	@{ printf '# Licences\n\nOf everything that is installed with Tapeline, as its makers state it. Written by `make licences`.\n\n'; \
	$(BIN)/pip-licenses --format=markdown --from=mixed --with-urls --with-system --no-version \
		--packages $$(sed -nE 's/^([a-z0-9-]+)==.*/\1/p' requirements.lock); \
	printf '\nThe page brings uPlot (MIT), which draws its charts: see `service/web/static/lib`.\n'; } > docs/licences.md

sbom: $(VENV)/installed-dev  ## write dist/tapeline.cdx.json, a CycloneDX list of everything in requirements.lock
	@mkdir -p dist
	@$(BIN)/python -W ignore -m cyclonedx_py $(SBOM) --output-file dist/tapeline.cdx.json requirements.lock

pin-images: $(VENV)/installed  ## write the digests that the base images have in their registry today to .env
	@$(BIN)/python .ci/pin_images.py

format: $(VENV)/installed-dev  ## rewrite the code as the format check wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/installed-dev  ## resolve the dependencies anew (on Python 3.11: one NumPy for all Pythons)
	$(COMPILE) --all-build-deps --output-file requirements.lock pyproject.toml
	$(COMPILE) --all-build-deps --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean:  ## remove the environment and what the tools left behind
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Tapeline needs Python 3.11 or newer; name one with: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# Hashes hold for everything that is installed; the project itself is linked, so edits count at once.
$(VENV)/installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV); this is done once"
	@$(BIN)/python .ci/install.py requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	@$(BIN)/python .ci/install.py requirements-dev.lock
	@touch $@
