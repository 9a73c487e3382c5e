# `make` lists the targets. ARGS are passed on: make run ARGS="--only 01 -p final_sparsity 0.9"
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run full test test-browser lab site record bench doctor lock environment

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

run: environment ## run every notebook, quick profile, into runs/
	@$(BIN)/python -m helpers tour $(ARGS)

full: environment ## run with notebooks/profiles/full.yaml, then full_flowers.yaml (see README for the data they need)
	@$(BIN)/python -m helpers tour --profile full $(ARGS)
	@$(BIN)/python -m helpers tour --profile full_flowers $(ARGS)

test: environment ## unit and property tests, then every notebook against its recorded outputs
	$(BIN)/python -m pytest --nbval tests notebooks/[0-9]*.ipynb $(ARGS)

test-browser: environment ## run notebook 01 in JupyterLab and look at the site, in a Chromium; says what it needs
	$(BIN)/python -m pytest -m browser tests/test_browser.py $(ARGS)

lab: environment ## open JupyterLab in notebooks/
	$(BIN)/jupyter lab --notebook-dir notebooks $(ARGS)

site: environment ## render README and the recorded notebooks as a static site, in runs/site/
	@$(BIN)/python -m helpers site

record: environment ## run notebooks and keep outputs, results and figures in the repository
	@$(BIN)/python -m helpers record $(ARGS)

bench: environment ## measure what the helpers promise about speed
	@$(BIN)/python benchmarks/batched_evaluation.py $(ARGS)
	@$(BIN)/python benchmarks/ptq_variants.py
	@$(BIN)/python benchmarks/sensitivity.py
	@$(BIN)/python benchmarks/sweep.py

doctor: environment ## check this machine and environment
	@$(BIN)/python -m helpers doctor

lock: environment ## resolve pyproject.toml anew into requirements.txt and environment.yml
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --fork-strategy fewest \
	  --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" -q -o requirements.txt $(ARGS)
	@{ printf '%s\n' '# Generated from requirements.txt by: make lock' 'name: compression-lab' 'channels:' \
	  '  - conda-forge' 'dependencies:' '  - python=3.11' '  - pip' '  - pip:'; \
	  sed -n -e 's/ *\\$$//' -e '/^[a-z0-9].*;/s/.*/      - "&"/p' -e '/^[a-z0-9]/s/.*/      - &/p' requirements.txt; \
	} > environment.yml.new && mv environment.yml.new environment.yml

environment:
	@if $(MAKE) -q $(STAMP); then echo "Environment up to date, nothing to install."; else $(MAKE) --no-print-directory $(STAMP); fi

# The stamp comes last: without it a former installation was interrupted, and is begun anew.
$(STAMP): requirements.txt pyproject.toml
	@test -e $@ && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	  { echo "Error: PYTHON=$(PYTHON) is not Python 3.11, 3.12 or 3.13; name one, as in: make run PYTHON=python3.12" >&2; exit 1; }; \
	  $(PYTHON) -m venv --clear .venv; }
	@echo "Installing the locked packages into .venv: two minutes or so, once."
	@$(BIN)/python -m pip install -q --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@
