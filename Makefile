# `make help` lists the targets. Each target installs what it needs in `.venv`.

PYTHON ?= python3
VENV ?= .venv
# tensorflow, jax or torch
BACKEND ?= tensorflow
# Backends to run the tests on, one after the other
BACKENDS ?= tensorflow jax torch
RECIPE ?= digits
# permutation, ablation or scaling
STUDY ?= permutation
# Additional options for the program of a target, such as ARGS="--set epochs=5"
ARGS ?=

RUN := $(abspath $(VENV))/bin/python
EXTRAS_train-tensorflow := demo
EXTRAS_train-jax := demo,jax
EXTRAS_train-torch := demo,torch
EXTRAS_tune := demo,jax
EXTRAS_test := demo,jax,torch,audio,serving,onnx,litert,notebooks,study,docs,test
EXTRAS_study := study,jax
EXTRAS_figures := demo,jax
EXTRAS_notebooks := notebooks
EXTRAS_docs := docs
EXTRAS_benchmark := benchmark

# The folder of the docs site
SITE ?= site

.PHONY: help train evaluate tune results test test-slow lint attack benchmark study figures notebooks docs constraints
.DEFAULT_GOAL := help

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

train: check-backend $(VENV)/.installed-train-$(BACKEND)  ## Train, save and export RECIPE=digits on BACKEND=tensorflow|jax|torch
	KERAS_BACKEND=$(BACKEND) $(RUN) -m keras_perceiver train $(RECIPE) $(ARGS)

evaluate: check-backend $(VENV)/.installed-train-$(BACKEND)  ## Evaluate a model, ARGS="runs/digits/1/model.keras --recipe digits"
	KERAS_BACKEND=$(BACKEND) $(RUN) -m keras_perceiver evaluate $(ARGS)

tune: $(VENV)/.installed-tune  ## Search hyperparameters for RECIPE, ARGS="--minutes 20"
	KERAS_BACKEND=jax $(RUN) -m keras_perceiver tune $(RECIPE) $(ARGS)

results:  ## Print a table of all runs so far
	$(PYTHON) -m keras_perceiver results $(ARGS)

# $(call run-tests,MARKERS): runs pytest on every backend, even if one of them fails
run-tests = failed=""; for backend in $(BACKENDS); do \
		echo "== $$backend"; \
		KERAS_BACKEND=$$backend $(RUN) -m pytest -q -n 2 --dist worksteal -m "$(1)" $(TESTS) || failed="$$failed $$backend"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed on:$$failed"; exit 1; fi

test: $(VENV)/.installed-test  ## Run the fast tests on TensorFlow, JAX and PyTorch, TESTS="tests/layers"
	@$(call run-tests,not slow)

test-slow: $(VENV)/.installed-test  ## Run the slow tests, with real compilation
	@export TEST_COMPILERS=real; $(call run-tests,slow)

lint: $(VENV)/.installed-test  ## Check style, format, annotations, spelling and words
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m codespell_lib $$(git ls-files '*.py' '*.md' '*.c' '*.toml' Makefile)
	$(RUN) tools/check_words.py

attack: check-backend $(VENV)/.installed-test  ## Kill runs, damage files, fill disks, send bad requests, and count the outcomes
	KERAS_BACKEND=$(BACKEND) TF_CPP_MIN_LOG_LEVEL=2 $(RUN) tools/attack.py $(ARGS)

benchmark: $(VENV)/.installed-benchmark  ## Measure time and memory against the peers
	$(RUN) tools/benchmark.py $(ARGS)

study: $(VENV)/.installed-study  ## Run STUDY=permutation|ablation|scaling: many small models, a table and a figure
	KERAS_BACKEND=jax $(RUN) tools/$(STUDY)_study.py $(ARGS)

figures: $(VENV)/.installed-figures  ## Draw the figures of the README and of docs/guides/attention_maps.md
	KERAS_BACKEND=jax $(RUN) tools/figures.py $(ARGS)

notebooks: $(VENV)/.installed-notebooks  ## Run the notebooks and write their outputs, ARGS="01 05"
	KERAS_BACKEND=jax $(RUN) tools/run_notebooks.py $(ARGS)

docs: $(VENV)/.installed-docs  ## Write the docs site to SITE=site: guides, notebooks, API
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet --site-dir $(abspath $(SITE))
	@echo "open $(abspath $(SITE))/index.html"

constraints: $(VENV)/.installed-test  ## Write the versions in .venv to constraints.txt
	$(RUN) -m pip freeze --exclude-editable | grep -v -i '^keras_perceiver' | sed -E 's/\+cpu$$//' > constraints.txt

.PHONY: check-backend
check-backend:
	@case "$(BACKEND)" in tensorflow|jax|torch) ;; *) \
		echo "error: BACKEND must be one of tensorflow, jax, torch. Received: BACKEND=$(BACKEND). Set it to one of them." >&2; exit 2;; esac

$(VENV)/.installed-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed. Received: %s. Set PYTHON=python3.11 or newer." % sys.version.split()[0])'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing packages in $(VENV): a few minutes for the first time"
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS_$*)]"
	touch $@
