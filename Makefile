# Every target sets up what it needs; the first run installs, later runs start at once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test test-fast check format bench bench-align bench-many bench-epoch bench-kernels bench-scale bench-search bench-views bench-serve fuzz clean

DATA ?= ../shared/data/pacs
WEIGHTS ?= ../shared/weights/mobilenet_v2_imagenet.safetensors
SEEDS ?= 0

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: .venv/.ready ## make .venv from the locked versions

.venv/.ready: requirements.lock pyproject.toml tools/setup.sh
	@PYTHON="$(PYTHON)" sh tools/setup.sh

demo: .venv/.ready ## draw two collections, learn, search: everything in a few minutes
	@$(BIN)/ucdir demo

test: .venv/.ready ## the whole test suite, files side by side on the cores; one thread each
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-fast: .venv/.ready ## the tests that start no processes, for daily use (a minute and a half)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal -m "not slow" --ignore tests/web/test_openapi.py

check: .venv/.ready ## format, lint, strict types, import rule
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_layers.py

bench: .venv/.ready ## train and score on real images (an hour a seed); DATA=..., WEIGHTS=..., SEEDS="0 1"
	@$(BIN)/python benchmarks/real_images.py $(DATA) $(WEIGHTS) build/real-images --seeds $(SEEDS)

bench-epoch: .venv/.ready ## an epoch beside the released code's way (a quarter of an hour); FOLDERS="DIR DIR" (default: drawn pictures)
	@$(BIN)/python benchmarks/epoch.py $(FOLDERS)

bench-align: .venv/.ready ## the default: what each step is worth, confidence, small collections (an hour); FOLDERS="DIR DIR", WEIGHTS=...
	@$(BIN)/python benchmarks/ablation.py $(or $(FOLDERS),$(wildcard $(DATA)/*/)) --weights $(WEIGHTS)
	@$(BIN)/python benchmarks/confidence.py $(or $(FOLDERS),$(wildcard $(DATA)/*/)) --weights $(WEIGHTS)
	@$(BIN)/python benchmarks/subsets.py $(or $(FOLDERS),$(wildcard $(DATA)/*/)) --weights $(WEIGHTS)

bench-many: .venv/.ready ## the default with 2 x 100,000 images x 10 views of drawn numbers (a quarter of an hour, 5 GB of disk)
	@$(BIN)/python benchmarks/align_scale.py

bench-scale: .venv/.ready ## memory while 100,000 drawn images are learned from, one epoch (half an hour, 2 GB of disk)
	@$(BIN)/python benchmarks/scale.py

bench-kernels: .venv/.ready ## k-means, the terms and scoring beside the plain ways (ten minutes)
	@$(BIN)/python benchmarks/scoring.py
	@$(BIN)/python benchmarks/kmeans.py
	@$(BIN)/python benchmarks/terms.py

bench-search: .venv/.ready ## exact search beside faiss, the start of a search, folder beside Milvus Lite (half an hour)
	@$(BIN)/python benchmarks/search.py
	@$(BIN)/python benchmarks/start.py
	@$(BIN)/python benchmarks/engines.py

bench-views: .venv/.ready ## training views a second, beside Pillow and torchvision; FOLDERS="DIR DIR" (default: drawn pictures)
	@$(BIN)/python benchmarks/views.py $(FOLDERS)

bench-serve: .venv/.ready ## 64 clients for a minute against a real ucdir serve
	@$(BIN)/python benchmarks/load.py

fuzz: .venv/.ready ## schemathesis on the service, a thousand examples a route
	@$(BIN)/python benchmarks/fuzz.py --examples 1000

format: .venv/.ready ## rewrite the code in the house format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## remove the environment and build leftovers
	rm -rf .venv .uv build dist .pytest_cache .mypy_cache .ruff_cache
