# SPDX-License-Identifier: Apache-2.0
# `make train` and `make test` need nothing but Python (3.11 or newer) and a package index.

PYTHON ?= $(shell python3.11 -c 'import ensurepip' 2>/dev/null && echo python3.11 || echo python3)
VENV ?= .venv
# The versions tested together: JAX 0.10 is the last that runs on Python 3.11.
CONSTRAINTS ?= constraints/$(shell $(PYTHON) -c 'import sys; print("py311-jax0.10" if sys.version_info < (3, 12) else "py312-jax0.12")').txt
# From PyPI, torch on Linux brings its own CUDA libraries (several GB). For the CPU build:
#   make parity TORCH_INSTALL="torch --index-url https://download.pytorch.org/whl/cpu"
TORCH = torch==2.13.0
TORCH_INSTALL ?= $(TORCH)
HUB = huggingface_hub==0.36.2 requests urllib3 idna certifi charset-normalizer # of transformers 4

# Tests in as many processes as there are cores, at most four (each takes up to 4 GB); a module is not split, and the
# longest come first (tests/conftest.py).
PYTEST = $(PY) -m pytest -q -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

LOCK = $(VENV)-lock/bin/uv pip compile --quiet --no-annotate --generate-hashes --upgrade
LINUX = --python-platform x86_64-manylinux_2_28 # aarch64 needs the same packages
TORCH_CPU ?= --extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match

UV_INSTALL = $(VENV)-lock/bin/uv pip install --quiet $(PIP_FIND_LINKS:%=--find-links %)

PY = $(VENV)/bin/python
INSTALL = $(PY) -m pip install -qq --disable-pip-version-check

# Each has its packages in constraints/integrations/, and a check in tests/integrations/.
ONLY ?= transformers-4.48 transformers-5 sentence-transformers-5 sentence-transformers-6 onnxruntime openvino \
	spacy spacy-transformers medspacy
RESULTS = runs/integrations

.PHONY: train test test-all faults lint parity integrations gpu-compile lock sbom clean

# The offline demo: train a tiny model on embedded text, convert it, fill masks with it.
train: export HF_HUB_OFFLINE = 1
train: $(VENV)/.installed
	$(PY) scripts/train.py --config configs/tiny.py --workdir runs/tiny
	$(PY) -m conversion.convert --input runs/tiny --to huggingface --output runs/tiny-huggingface --overwrite
	$(PY) scripts/fill_mask.py --model runs/tiny-huggingface

# Most of the time is compilation, which takes a third of it without LLVM's optimizations. XLA's own
# stay; `test-all`, `parity` and pytest itself compile as a user's run does.
test: export XLA_FLAGS ?= --xla_backend_optimization_level=0
test: $(VENV)/.installed
	$(PYTEST)

# The tests marked slow too: real corpora, base and large through every conversion, memory of long runs.
test-all: $(VENV)/.installed
	$(PYTEST) -m ""

# Every fault of a run, short and long: kills, signals, processes, disks, numbers, damage (40 minutes).
faults: $(VENV)/.installed
	$(PYTEST) -m "" $(addprefix tests/training/test_,sweeps.py processes.py disks.py faults.py checkpoint.py) \
		$(addprefix tests/training/test_,elastic.py goodput.py watchdog.py) \
		tests/test_peers.py tests/test_locks.py tests/test_two_of_one.py

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

parity: $(VENV)/.installed-torch
	$(PYTEST) tests/parity

# Every export in the program that it is for, each in an environment of its own, beside our outputs
# (docs/integrations.md). ONLY="spacy medspacy" takes some of them. Nothing is downloaded but packages.
integrations: export HF_HUB_OFFLINE = 1
integrations: export JAX_PLATFORMS = cpu
integrations: $(RESULTS)/exports/.written $(ONLY:%=$(VENV)-integrations/%/.installed)
	@failed=; for name in $(ONLY); do \
		rm -f $(RESULTS)/$$name.json; \
		check=tests/integrations/check_$$(echo $$name | sed 's/-[0-9.]*$$//; s/-/_/g').py; \
		$(VENV)-integrations/$$name/bin/python $$check $$name $(RESULTS) > $(RESULTS)/$$name.log 2>&1 \
			|| { failed="$$failed $$name"; tail -n 20 $(RESULTS)/$$name.log; }; \
	done; \
	$(PYTHON) tests/integrations/comparison.py $(RESULTS); \
	test -z "$$failed" || { echo "not as ours:$$failed (see $(RESULTS)/*.log)" >&2; exit 1; }

# The training step compiled for 8 x H100 and 8 x A100: needs JAX's CUDA plugin, but no GPU.
gpu-compile: export JAX_PLATFORMS = cpu
gpu-compile: export JAX_SKIP_CUDA_CONSTRAINTS_CHECK = 1
gpu-compile: $(VENV)-gpu/.installed
	$(VENV)-gpu/bin/python -m pytest -s tests/gpu $(GPU_TESTS)

# constraints/*.lock: the versions of constraints/*.txt with the hashes of all their files, for
# pip install --require-hashes (docs/offline.md). build.lock is what seqeval, which has no wheel, is built with.
lock: export UV_CUSTOM_COMPILE_COMMAND = make lock
lock: $(VENV)-lock/.installed
	$(LOCK) pyproject.toml --extra test -c constraints/py311-jax0.10.txt $(LINUX) --python-version 3.11 -o constraints/py311-jax0.10.lock
	$(LOCK) pyproject.toml --extra test -c constraints/py312-jax0.12.txt $(LINUX) --python-version 3.12 -o constraints/py312-jax0.12.lock
	printf 'setuptools>=77\nsetuptools-scm\n' | $(LOCK) - -c constraints/py311-jax0.10.txt --universal --python-version 3.11 -o constraints/build.lock
	echo $(TORCH) | $(LOCK) - -c constraints/py311-jax0.10.txt --universal --python-version 3.11 -o constraints/torch-pypi.lock
	echo $(TORCH) | $(LOCK) - -c constraints/py311-jax0.10.txt $(LINUX) --python-version 3.11 $(TORCH_CPU) -o constraints/torch-cpu.lock

# A bill of materials, CycloneDX JSON, of what a lock installs.
sbom: $(VENV)-lock/.installed
	$(VENV)-lock/bin/cyclonedx-py requirements $(CONSTRAINTS:.txt=.lock) --pyproject pyproject.toml --output-reproducible -o sbom.json

clean:
	rm -rf $(VENV) $(VENV)-gpu $(VENV)-lock $(VENV)-integrations $(RESULTS) sbom.json build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.*' -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@echo "Setting up $(VENV) with $(CONSTRAINTS): a minute or two the first time."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) -c $(CONSTRAINTS) -e '.[test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(INSTALL) -c $(CONSTRAINTS) -e '.[dev]'
	@touch $@

# The plugin has the version of the JAX beside it.
$(VENV)-gpu/.installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test]' \
		jax-cuda12-plugin==$$(sed -n 's/^jax==//p' $(CONSTRAINTS))
	@touch $@

$(VENV)-lock/.installed:
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install -qq --disable-pip-version-check uv==0.13.9 cyclonedx-bom==7.5.0
	@touch $@

# Beside torch, the oldest and the last transformers 4 that exports must load in, each in a folder.
$(VENV)/.installed-torch: $(VENV)/.installed
	@$(INSTALL) $(TORCH_INSTALL)
	@$(INSTALL) --no-deps --target $(VENV)/transformers-4.48.3 transformers==4.48.3 tokenizers==0.21.4 $(HUB)
	@$(INSTALL) --no-deps --target $(VENV)/transformers-4.57.6 transformers==4.57.6 tokenizers==0.22.2 $(HUB)
	@touch $@

$(RESULTS)/exports/.written: $(VENV)-integrations/exports/.installed tests/integrations/write_exports.py $(wildcard conversion/*.py)
	@rm -rf $(@D)
	$(<D)/bin/python tests/integrations/write_exports.py $(@D)
	@touch $@

# By uv, which shares the files of PyTorch among the environments.
$(VENV)-integrations/%/.installed: constraints/integrations/%.txt $(VENV)-lock/.installed
	@echo "Setting up $(@D)"
	@rm -rf $(@D)
	@$(PYTHON) -m venv --without-pip $(@D)
	@! grep -q '^torch==' $< || $(UV_INSTALL) --python $(@D)/bin/python $(TORCH_INSTALL)
	@$(UV_INSTALL) --python $(@D)/bin/python -r $<
	@touch $@
