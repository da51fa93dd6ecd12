# Everything starts from nothing: each target makes the environment it needs.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
# One more than there are cores: tests wait for processes of their own.
WORKERS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
export OMP_WAIT_POLICY := PASSIVE
export GOMP_SPINCOUNT := 0

.PHONY: help demo test check docs dist fuzz results format clean
help: ## Show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 13

demo: $(INSTALLED) ## Train both variants on the planted corpus and write demo/report.html
	$(BIN)/mmcl demo --out demo

test: $(INSTALLED) ## Run every test; those on real data need MMCL_REAL_DATA
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: $(INSTALLED) docs ## Format, lint, types, import direction and the documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/unit/test_house.py

docs: $(INSTALLED) ## Build the documentation into site/; a broken link or an undocumented name fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo 'site/index.html opens from the disk; its search needs a server: python3 -m http.server -d site'

dist: $(INSTALLED) ## Build the wheel and the source distribution into dist/
	rm -rf dist
	$(BIN)/python -m build

fuzz: $(INSTALLED) ## Give mmcl damaged files of every kind for an hour, other ones every time
	$(BIN)/python tests/faults/campaign.py --seconds 3600 --seed $$(date +%s)

results: $(INSTALLED) ## Make the kept results again that are older than the code (4 to 5 hours); STEPS="speed media" makes these
	$(BIN)/python benchmarks/results.py $(STEPS)

format: $(INSTALLED) ## Format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## Remove the environment, and what the demo and the documentation made
	rm -rf $(VENV) demo site

# torch first, from an index of one's choice: the plain one brings gigabytes of CUDA packages on Linux.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
