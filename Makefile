# make demo and make test need nothing but Python 3.11 or newer, venv and pip.
# Both install sklebm, with the versions of constraints.txt, into .venv/.

PYTHON ?= python3
VENV := .venv
CONSTRAINTS := constraints.txt
CONSTRAINTS_LOWEST ?= constraints-lowest.txt
PYTEST_ARGS ?=
# One process for each core, each on one thread.
WORKERS ?= auto
BENCHMARKS ?= $(sort $(wildcard benchmarks/bench_*.py))

run := $(VENV)/bin/python
# scikit-learn's common tests check array namespaces only under this variable,
# which SciPy reads when it is imported.
# Tests that ask for a second thread share the cores with other tests: one that waits must sleep, as
# a thread that spins keeps the core from those it waits for.
test-environment := SCIPY_ARRAY_API=1 OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE
parallel := -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-full test-gpu test-lowest docs check-docs bench generated lint format release-check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo ## run the main job on digits and photographs (writes a PNG)
	$(run) examples/demo.py

test: lint ## check style and types, then run the tests and every doctest
	$(test-environment) $(run) -m pytest $(parallel) $(PYTEST_ARGS)

test-full: lint ## run all of the large test tables, which make test samples
	$(test-environment) SKLEBM_TEST_FULL=1 $(run) -m pytest $(parallel) $(PYTEST_ARGS)

test-gpu: $(VENV)/.installed-test ## run the device tests (each skips, saying why, without CUDA)
	$(test-environment) $(run) -m pytest --device cuda -m gpu $(PYTEST_ARGS)

test-lowest: $(VENV)-lowest/.installed-test ## run the tests on the lowest supported versions
	$(test-environment) $(VENV)-lowest/bin/python -m pytest $(parallel) $(PYTEST_ARGS)

docs: $(VENV)/.installed-docs ## build the documentation into docs/_build/html
	$(run) -m sphinx -b html -W --keep-going -E -a -d docs/_build/doctrees docs docs/_build/html

check-docs: ## open every built page in headless Chromium (after make docs)
	$(run) docs/check_pages.py

bench: $(VENV)/.installed-test ## run the benchmarks (or BENCHMARKS=FILE), one after the other
	@set -e; for script in $(BENCHMARKS); do echo "$$script"; $(run) $$script; done

generated: $(VENV)/.installed-test ## write imports, README's table of estimators and the list of messages anew
	$(test-environment) $(run) -m tests.generated

lint: $(VENV)/.installed-test ## check style, format and types
	$(run) -m ruff check .
	$(run) -m ruff format --check .
	$(run) -m mypy

format: $(VENV)/.installed-test ## format the code and mend what ruff can mend
	$(run) -m ruff check --fix .
	$(run) -m ruff format .

# What users get from an index today, and the lowest versions that pyproject.toml promises; the
# interpreter sees neither the checkout nor the environment's variables (-I).
release-check: $(VENV)/.installed-dev ## build a release, and try its wheel in empty environments
	@set -eu; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(run) -m build --outdir "$$folder/dist" .; \
	$(run) -m twine check --strict "$$folder"/dist/*; \
	for versions in "" "-c $(CONSTRAINTS_LOWEST)"; do \
	    echo "an environment with pip install $$versions"; \
	    $(PYTHON) -m venv --clear "$$folder/empty"; \
	    "$$folder/empty/bin/python" -m pip install --quiet $$versions "$$folder"/dist/*.whl; \
	    (cd "$$folder" && empty/bin/python -I "$(CURDIR)/tests/smoke.py"); \
	done

clean: ## remove what builds, tests, docs and the demo leave (the environments stay)
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis demo.png
	rm -rf docs/_build docs/auto_examples docs/generated docs/api.rst docs/sg_execution_times.rst
	find benchmarks docs examples sklebm tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- set-up: one environment, one stamp for each set of extras -------------

extras-demo := plot,progress
extras-test := test
extras-docs := docs
extras-dev := dev

$(VENV)/.installed-%: $(VENV)/.created pyproject.toml $(CONSTRAINTS)
	$(run) -m pip install --quiet -c $(CONSTRAINTS) -e ".[$(extras-$*)]"
	@touch $@

$(VENV)-lowest/.installed-%: $(VENV)-lowest/.created pyproject.toml $(CONSTRAINTS_LOWEST)
	$(VENV)-lowest/bin/python -m pip install --quiet -c $(CONSTRAINTS_LOWEST) -e ".[$(extras-$*)]"
	@touch $@

.PRECIOUS: $(VENV)/.created $(VENV)-lowest/.created
%/.created:
	@command -v $(PYTHON) >/dev/null || { \
	    echo "$(PYTHON) was not found: install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3"; \
	    exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "sklebm needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	         "Name another: make PYTHON=/path/to/python3"; \
	    exit 1; }
	@$(PYTHON) -m venv $* || { \
	    echo "$(PYTHON) cannot make a virtual environment (Debian and Ubuntu: apt install python3-venv)"; \
	    exit 1; }
	@touch $@
