# make repro   train, quantize, evaluate and gate the model that params.yaml names
# make test    the whole test suite          make quick   only what takes seconds
# make lint    ruff                          make grammar rebuild data/grammar from its npm packages
# make rehearse  the whole way to Kaggle and back on this machine, without an account
#
# make itself ends with 2 whatever failed; `python -m stages.gate check` ends with 0 on green, 1 on red, 2 where the
# comparison with the baseline could not be made.
PYTHON ?= python3
# torch without CUDA; where this index cannot be reached, pip goes on with its own
export TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
export DVC_NO_ANALYTICS := 1
# A foreign PYTHONPATH or PYTHONHOME, PYTHONSAFEPATH, PYTHONOPTIMIZE, …: none of the user's settings of Python reach
# ours but those that change no result. Its text is UTF-8, whatever the locale.
unexport $(filter-out PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX PYTHONUNBUFFERED,$(filter PYTHON%,$(.VARIABLES)))
export PYTHONUTF8 := 1
# git works on this folder, also below a hook or an alias of another repository
unexport GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_OBJECT_DIRECTORY GIT_COMMON_DIR GIT_NAMESPACE
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test quick lint grammar rehearse venv
.DEFAULT_GOAL := repro

venv:
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: $(PYTHON) is not Python 3.11 or newer; install one and run: make PYTHON=python3.11"; exit 1; }
	@"$(PYTHON)" -m stages.common.install

# dvc runs stages in the user's SHELL, which may be none (/usr/sbin/nologin, or a fish that is not installed here);
# `python -m dvc` and not `dvc`: the first line of a script cannot name every folder, nor one that was moved
repro: venv
	python -m stages.common.config
	python -m stages.common.llama_cpp
	python -m stages.common.mend
	python -m stages.gate refresh
	SHELL=/bin/sh python -m dvc repro
	python -m stages.gate check

# the tests of a file share what they make once, so a file stays in one process; in the order of their names, since the
# longest, the pipeline's, are few, and would otherwise come last and alone
test: venv
	python -m pytest --numprocesses logical --dist loadfile --no-loadscope-reorder

quick: venv
	python -m pytest -m "not slow"

lint: venv
	python -m ruff check .
	python -m ruff format --check .

grammar: venv
	python data/grammar/build/build.py

rehearse: venv
	PYTHONPATH=. python tests/rehearsal.py
