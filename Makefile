# Plain venv and pip. `make demo` and `make test` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One torch thread a test process: two threads on busy cores can be several times slower than one.
ONE := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1

# Published photos with labels, where they lie beside the checkout: the tests on real photos are skipped without them.
CYBORGS_TEST_DATA ?= $(realpath ../shared/data)
ifneq ($(CYBORGS_TEST_DATA),)
export CYBORGS_TEST_DATA
endif

.PHONY: env demo test test-slow test-gpu lint format bench camvid clean

$(VENV)/.base: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

env: $(VENV)/.dev

demo: $(VENV)/.base
	$(BIN)/cyborgs demo --out demo

test: $(VENV)/.dev
	$(ONE) $(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/.dev
	$(ONE) $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

# One process: the tests share the GPU, and some of them time or watch it.
test-gpu: $(VENV)/.dev
	$(BIN)/python -m pytest -p no:xdist -m gpu

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev
	for file in benchmarks/*.py; do $(BIN)/python $$file || exit 1; done

# Hours, and labelled photos: PHOTOS holds CamVid/train.txt, CamVid/val.txt and the photos to pretrain on.
camvid: $(VENV)/.dev
	$(BIN)/python benchmarks/studies/camvid.py $(PHOTOS)

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
