# Everything a developer or CI runs. Each target works from a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION_TAG := $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
CONSTRAINTS := $(wildcard constraints/$(VERSION_TAG).txt)
PIP := PIP_CONSTRAINT=$(CONSTRAINTS) $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Which tests; all of them if empty.
TESTS ?=
BUILD_INPUTS := pyproject.toml $(CONSTRAINTS) $(wildcard native_src/*)
# The newest supported releases; a version manager's shim may stand there without working.
MATRIX_PYTHON ?= $(shell for p in python3.13 $$HOME/.pyenv/versions/3.13*/bin/python3; do \
  $$p -c '' 2>/dev/null && echo $$p && break; done)

PYTEST = $(BIN)/python -m pytest -q --numprocesses auto --maxprocesses 4 --dist worksteal

.PHONY: setup demo browser test test-all test-processors lint typecheck bench zoo conformance docs golden gpu-check matrix matrix-python clean

setup: $(VENV)/.installed

$(VENV)/.installed: $(BUILD_INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first: its pinned build must be there before anything else asks for a range of it.
	$(PIP) torch scikit-build-core cmake ninja jaxlib
	$(PIP) --no-build-isolation --editable ".[cli,examples,test,lint,docs]"
	touch $@

demo: setup
	$(BIN)/python examples/digits.py

# For the tests of the catalog's page, which are skipped without it. Needs root and a network.
browser:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then \
	  echo "Chromium is there"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get -qq -o Acquire::http::Timeout=30 -o Acquire::Retries=1 update && \
	  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
	    chromium chromium-driver >/dev/null; \
	else \
	  echo "make browser needs root and apt-get, or chromium and chromedriver"; exit 1; \
	fi

test: setup
	$(PYTEST) --each-value $(TESTS)

test-all: setup
	$(PYTEST) $(TESTS)

# What these processors would run: other kernels, which round otherwise. XLA needs AVX. Inductor keeps
# kernels without regard to ATEN_CPU_CAPABILITY: one made for wider registers writes a part of its
# result here (torch 2.13), so that each setting has a cache of its own.
AS_AVX2 := TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/build/inductor-avx2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 \
  OPENBLAS_CORETYPE=Haswell XLA_FLAGS=--xla_cpu_max_isa=AVX2
AS_AVX := TORCHINDUCTOR_CACHE_DIR=$(CURDIR)/build/inductor-avx ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 ONEDNN_MAX_CPU_ISA=SSE41 \
  OPENBLAS_CORETYPE=Prescott XLA_FLAGS=--xla_cpu_max_isa=AVX OMP_NUM_THREADS=1

test-processors:
	$(AS_AVX2) $(MAKE) test-all
	$(AS_AVX) $(MAKE) test-all

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/clang-format --dry-run --Werror native_src/*.cc native_src/*.h

typecheck: setup
	$(BIN)/mypy

# After a change to stubs that is meant; look at the difference before committing it.
golden: setup
	$(BIN)/jaxtorch stubs tests/golden/specs --out tests/golden/stubs --dict-outputs scale

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Models of transformers and timm against torch; half an hour on two cores.
zoo: setup
	$(PIP) --no-deps timm
	$(BIN)/python zoo/run.py --page docs/zoo.md

# All operators of torch's own database; half an hour on two cores. CONFORMANCE=--resume goes on.
CONFORMANCE ?=

conformance: setup
	$(BIN)/python -m conformance --page docs/conformance.md $(CONFORMANCE)

bench: setup
	$(PIP) --no-deps wrap-torch2jax psutil rich setuptools
	$(BIN)/python benchmarks/run.py

# Eight processes of tests share a GPU, where pytest-xdist is there.
GPU_WORKERS ?= $(shell $(PYTHON) -c 'import xdist' 2>/dev/null && echo --numprocesses 8)

# Offline, with what the machine's own Python has: builds from source next to the package.
gpu-check:
	cmake -S native_src -B build/gpu -G Ninja -DCMAKE_BUILD_TYPE=Release \
	  -DPython_EXECUTABLE=$$($(PYTHON) -c 'import sys; print(sys.executable)')
	cmake --build build/gpu
	cp build/gpu/_native*.so jaxtorch_bridge/
	XLA_PYTHON_CLIENT_PREALLOCATE=false $(PYTHON) -m pytest -q -o addopts= -p no:benchmark \
	  $(GPU_WORKERS) tests/gpu

matrix:
	$(if $(MATRIX_PYTHON),,$(error make matrix needs Python 3.13; set MATRIX_PYTHON=/path/to/python3.13))
	$(MAKE) test PYTHON=$(MATRIX_PYTHON) VENV=.venv-matrix

matrix-python:
	@echo $(MATRIX_PYTHON)

clean:
	rm -rf build site dist .venv .venv-matrix jaxtorch_bridge/_native*.so
