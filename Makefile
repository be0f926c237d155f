# Everything happens in .venv/, made from constraints.txt; nothing else has to be installed or set.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BOARDS := benchmarks/results/board
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: install demo test long quick check lint site leaderboard clean
.DEFAULT_GOAL := help

help:
	@echo "make demo     run alignzoo on the embedded model and data"
	@echo "make test     lint, types and tests"
	@echo "make long     the tests that are too slow for make test"
	@echo "make quick    lint, types and the tests that take seconds, for people at work"
	@echo "make site     the documentation as a site, in build/site/"
	@echo "make check    the laws of plugins, on every built-in and on seeded mistakes"
	@echo "make leaderboard  the README's tables from the boards in $(BOARDS)/"
	@echo "make install  the environment in $(VENV)/"

install: $(VENV)/.installed

# torch first and pinned: left to a range, pip would fetch gigabytes of CUDA libraries.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e '.[dev,docs]'
	@touch $@

demo: install
	$(BIN)/alignzoo run dpo

test: install lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not long and not gpu"

long: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m long

quick: install lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not long and not gpu" --ignore tests/e2e --ignore tests/real

# The laws on every built-in, and on plugins with seeded mistakes.
check: install
	HF_HUB_OFFLINE=1 $(BIN)/alignzoo check alignzoo
	PYTHONPATH=benchmarks $(BIN)/python -m mutants.measure

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks/mutants/measure.py
	for folder in architectures board compare crashes gpu hh_rlhf hooks label environments memory real rubric speed startup statistics teachers; do $(BIN)/mypy benchmarks/$$folder || exit 1; done

site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

leaderboard: install
	@if ls $(BOARDS)/*/board.json >/dev/null 2>&1; then \
	  $(BIN)/alignzoo leaderboard $(BOARDS)/*/ --apart --out build/leaderboard --markdown README.md; \
	else echo "no board in $(BOARDS)/ yet"; fi

clean:
	rm -rf $(VENV) build dist
