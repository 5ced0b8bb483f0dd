# Everything works on one .venv in this folder. `make demo` and `make test` set it up first where it is missing or not current.
SHELL := /bin/bash
BIN := .venv/bin
DEMO ?= runs/demo
PYTEST_ARGS ?=
# what `make check` runs: no simulator, no training run, no UMAP
FAST_TESTS := tests/world_models tests/analysis tests/packaging tests/cli/test_cli_config.py tests/envs/test_envs_names.py \
  tests/pvr_zoo/test_pvr_zoo_specs.py --ignore tests/analysis/test_analysis_pipeline.py \
  --ignore tests/analysis/test_analysis_report.py --ignore tests/packaging/test_packaging_readme.py

.PHONY: help setup setup-maniskill demo test check bench docs clean
help:
	@echo "make setup   .venv with everything, and the Debian packages for rendering and compiling"
	@echo "make setup-maniskill   a software Vulkan driver for ManiSkill into .venv/mesa, where no GPU draws it"
	@echo "make demo    trains TD-MPC2 on a frozen encoder (under 10 minutes), then evaluates, records and draws"
	@echo "make test    the test suite            make check   format, lint, types, imports, fast tests"
	@echo "make bench   the benchmarks            make docs    the documentation, docs/_build/html"
	@echo "make clean   removes built files, not .venv, not runs/"

setup:
	@bash tools/setup.sh

setup-maniskill: setup
	@bash tools/setup_maniskill.sh

demo: setup
	$(BIN)/mbrl-pvr train --config demo --dir $(DEMO)
	$(BIN)/mbrl-pvr ood $(DEMO) --episodes 3
	$(BIN)/mbrl-pvr record $(DEMO) --episodes 4
	$(BIN)/mbrl-pvr analyze $(DEMO) --out $(DEMO)/figures
	@echo
	@echo "videos:  $(abspath $(DEMO))/videos";  ls $(DEMO)/videos
	@echo "figures: $(abspath $(DEMO))/figures"; ls $(DEMO)/figures

test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadgroup $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q $(FAST_TESTS) $(PYTEST_ARGS)

bench: setup
	$(BIN)/python benchmarks/replay.py
	$(BIN)/python benchmarks/collection.py
	$(BIN)/python benchmarks/encoders.py
	$(BIN)/python benchmarks/tail.py
	@if [ -n "$$PEERS" ]; then $(BIN)/python benchmarks/tdmpc2_speed.py; else \
	  echo "beside the official TD-MPC2:   PEERS=FOLDER $(BIN)/python benchmarks/tdmpc2_speed.py   (its docstring says what FOLDER holds)"; fi
	@echo "learning curves (hours):       $(BIN)/python benchmarks/learning.py train --name demo --config demo --seeds 1 2 3 --dir runs/learning"

docs: setup
	@$(BIN)/python -c 'import sphinx, myst_parser, furo' 2>/dev/null || $(BIN)/python -m pip install -q -c .venv/constraints.txt -e ".[dev,docs]"
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean:
	rm -rf build dist docs/_build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
