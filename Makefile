# `make` lists the targets. ARGS are passed on: make run ARGS="--only 01 -p final_sparsity 0.9"
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/installed
# Two workers; a notebook, and any other file, stays with one. The longest come first.
PARALLEL := --nbval -n 2 --dist loadfile --no-loadscope-reorder -m "not timing and not browser"
# Where the lock is said to install: a dry run of the resolver, wheels only.
PLATFORMS := x86_64-manylinux_2_28 aarch64-manylinux_2_28 aarch64-apple-darwin x86_64-pc-windows-msvc
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help run full test test-changed test-browser platforms lab site record bench doctor lock environment

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

run: environment ## run every notebook, quick profile, two at a time, into runs/
	@$(BIN)/compression-lab tour --jobs 2 $(ARGS)

full: environment ## run with notebooks/profiles/full.yaml, then full_flowers.yaml (see README for the data they need)
	@$(BIN)/compression-lab tour --profile full $(ARGS)
	@$(BIN)/compression-lab tour --profile full_flowers $(ARGS)

test: environment ## every notebook against its recorded outputs, unit and property tests; then what times something, alone
	$(BIN)/python -m pytest $(PARALLEL) notebooks/[0-9]*.ipynb tests $(ARGS)
	$(BIN)/python -m pytest -m timing $$(grep -rl --include="*.py" "mark\.timing" tests) $(ARGS)

test-changed: environment ## the same, but only what a change since it last passed can reach
	@$(MAKE) --no-print-directory test ARGS="--changed $(ARGS)"

test-browser: environment ## run notebook 01 in JupyterLab and look at the site, in a Chromium; says what it needs
	$(BIN)/python -m pytest -m browser tests/whole/test_browser.py $(ARGS)

lab: environment ## open JupyterLab in notebooks/
	$(BIN)/jupyter lab --notebook-dir notebooks $(ARGS)

site: environment ## README, recorded notebooks, guides and reference as a site that works offline, in runs/site/
	@$(BIN)/compression-lab site

record: environment ## run notebooks and keep outputs, results and figures in the repository
	@$(BIN)/compression-lab record $(ARGS)

bench: environment ## measure what the helpers promise about speed
	@$(BIN)/python benchmarks/batched_evaluation.py $(ARGS)
	@$(BIN)/python benchmarks/ptq_variants.py
	@$(BIN)/python benchmarks/sensitivity.py
	@$(BIN)/python benchmarks/sweep.py
	@$(BIN)/python benchmarks/minutes_of_tests.py

doctor: environment ## check this machine and environment
	@$(BIN)/compression-lab doctor

lock: environment ## resolve pyproject.toml anew into requirements.txt and environment.yml
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --fork-strategy fewest \
	  --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" -q -o requirements.txt $(ARGS)
	@{ printf '%s\n' '# Generated from requirements.txt by: make lock' 'name: compression-lab' 'channels:' \
	  '  - conda-forge' 'dependencies:' '  - python=3.11' '  - pip' '  - pip:'; \
	  sed -n -e 's/ *\\$$//' -e '/^[a-z0-9].*;/s/.*/      - "&"/p' -e '/^[a-z0-9]/s/.*/      - &/p' requirements.txt; \
	} > environment.yml.new && mv environment.yml.new environment.yml
	@$(MAKE) --no-print-directory platforms

platforms: environment ## check that the lock installs on every platform that README names
	@for platform in $(PLATFORMS); do echo "$$platform"; $(BIN)/uv --no-config pip install -q --dry-run --no-deps \
	  --only-binary :all: --python-platform $$platform --python-version 3.11 --target .venv/none -r requirements.txt || exit 1; done

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
