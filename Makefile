# `make` lists the targets. Each sets up what it needs; none needs root, except that test-system installs system packages.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := $(CURDIR)/.venv/bin
# Which Python .venv is made with (PYTHON=/path/to/python3.13), and which build of PyTorch it gets (TORCH=cpu, cu130, …).
export PYTHON TORCH
export PATH := $(BIN):$(PATH)
# Images of containers often forbid Python to keep what it compiled; every process would compile all that it imports again.
export PYTHONDONTWRITEBYTECODE :=
# Nothing that runs here reports home. The same settings stand in .dvc/config, prefect.toml, tasks/registry/tracking.py and, by setup, in
# .venv/bin/activate for those who call the tools themselves.
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export HF_HUB_OFFLINE := 1
# Also where setup has not said so yet (tasks/runtime/environment.pth).
export DVC_SITE_CACHE_DIR := $(CURDIR)/.cache/dvc

# Where a bundle was unpacked, its wheels are all that is installed from; nothing is asked of an index.
ifneq ($(wildcard wheels/*.whl),)
export PIP_NO_INDEX := 1
export PIP_FIND_LINKS := wheels
endif

.PHONY: help run flow ui chat deploy sweep test-fast test test-pythons test-system campaign pictures kills fuzz rebuild gc forget full-eval audit-memorization ablate-augment data-scale tokenize-speed train-speed gpu-check serve-speed bench-deps check format lock sbom advisories release bundle data setup setup-dev torch-build

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: setup data ## build the default corpus if data/ is missing, run the pipeline, show what came out
	dvc repro
	python -m tasks.example

flow: setup data ## the same pipeline through Prefect
	python -m flows.pipeline

ui: setup ## MLflow's and Prefect's web pages on loopback
	python -m flows.ui

chat: setup ## a page with the base and the tuned model of the last run side by side, on loopback
	python -m serve artifacts/model --compare-with artifacts/base --unverified --tasks artifacts/documents/tasks.json

deploy: setup ## a Prefect server, the deployments of prefect.yaml and a worker that runs them, until Ctrl-C
	python -m flows.deploy

LR ?= 2e-4,4e-4,8e-4
sweep: setup data ## train with each learning rate of LR as a DVC experiment, one after the other, and compare
	dvc exp run --queue --set-param 'finetune.lr=$(LR)'
	dvc exp run --run-all
	dvc exp show --only-changed --no-pager --md

test-fast: setup-dev ## the unit tests, in a minute and a half
	pytest -m "not slow and not pipeline and not system and not campaign and not gpu"

test: setup-dev ## all tests but those of the whole system
	pytest -m "not system and not campaign and not gpu"

test-pythons: setup-dev ## the locks and the fast tests that need no torch on every Python here; with TORCH=cpu all fast tests
	PYTHONPATH=. python tests/every_python.py

test-system: setup-dev bench-deps ## real servers, workers, a browser, lost machines; installs system packages where it may
	tests/install-system-packages
	pytest -m "system and not campaign"

campaign: setup-dev bench-deps ## the further cases of the slowest tests (long)
	tests/install-system-packages
	pytest -m campaign

kills: setup-dev ## kill training at twenty random instants and compare with the run that was left alone
	KILLS=20 pytest -n0 tests/tasks/training/test_kills.py

fuzz: setup-dev ## send the server 100,000 requests that no client would send (long)
	FUZZ=100000 pytest -n0 -s --timeout 14400 tests/serve/test_fuzzed_requests.py

VERSION ?= champion
rebuild: setup ## make the weights of VERSION=n again, from its commit and what the version stores, and compare
	python -m tasks.registry rebuild $(VERSION)

gc: setup ## free disk space; what a registered version needs stays
	python -m tasks.registry gc

forget: setup ## remove older copies of withdrawn records from this machine, list what remains
	python -m tasks.registry forget

full-eval: setup ## score all held-out documents and all choices, into artifacts/full-evaluation (long)
	python -m tasks.evaluation artifacts/base artifacts/model artifacts/documents artifacts/reports/preprocess artifacts/shards artifacts/full-evaluation

audit-memorization: setup-dev ## plant canaries in a copy of the training text, train on it, measure what was memorized
	python -m bench.audit_memorization artifacts/base artifacts/shards artifacts/audit-memorization

ablate-augment: setup-dev ## train with and without variants, and compare (trains twice)
	python -m bench.ablate_augment

data-scale: setup-dev ## time and memory of the stages on data at 1, 3 and 30 times the default corpus (long)
	python -m bench.data_scale artifacts/base data

tokenize-speed: setup-dev ## the shard stage beside tiktoken and Hugging Face tokenizers
	python -m bench.tokenize_speed artifacts/base artifacts/documents

train-speed: setup-dev ## fine-tuning beside Hugging Face's Trainer and PEFT on this machine (long)
	python -m bench.train_speed artifacts/base artifacts/shards

TINY ?=
gpu-check: setup-dev ## on a GPU: what it computes, then how fast, beside Hugging Face (8 minutes); TINY=--tiny on a CPU
	bench/gpu-check $(TINY)

serve-speed: setup-dev ## the server beside transformers' generate, and beside llama.cpp's where llama-server is on the path
	python -m bench.serve_speed artifacts/base

pictures: setup-dev ## docs/pictures from the last run here: the page, the reports, the lineage, MLflow, Prefect
	tests/install-system-packages
	PYTHONPATH=.:tests python docs/pictures.py

bench-deps: bench/node_modules/ready ## llama.cpp, prebuilt, to compare with; needs Node.js 20

# Its install script would download or compile another build; the packages that come with it are left out too.
bench/node_modules/ready: bench/package-lock.json
	npm install --prefix bench --no-save --ignore-scripts --omit=optional --no-audit --no-fund --silent
	touch $@

check: setup-dev ## format, lint, types
	ruff format --check .
	ruff check .
	mypy

format: setup-dev ## put the code into its format
	ruff format .
	ruff check --fix .

lock: setup-dev ## renew the locks, from pyproject.toml and tests/clients; UPGRADE=--upgrade takes newer versions too
	uv pip compile $(LOCK) $(UPGRADE) --extra registry --extra pipeline --output-file requirements.lock
	uv pip compile $(LOCK) $(UPGRADE) --all-extras --constraint requirements.lock --output-file requirements-dev.lock
	grep --only-matching --max-count=1 'torch==[0-9.]*' pyproject.toml | uv pip compile - $(TORCH_LOCK) --output-file torch.lock
	for client in instructor langchain litellm llama_index; do uv pip compile tests/clients/$$client.in $(CLIENT_LOCK) $(UPGRADE) --output-file tests/clients/$$client.lock; done

# For every Python and platform of pyproject.toml at once. torch is installed apart.
CLIENT_LOCK := --universal --python-version 3.11 --quiet --no-header --no-annotate --generate-hashes
LOCK := pyproject.toml --config-file setup/lock.toml --universal --quiet --no-header --no-annotate --generate-hashes --no-emit-package torch
TORCH_LOCK := --universal --python-version 3.11 --quiet --no-header --no-annotate --generate-hashes --constraint requirements.lock

BUNDLE ?=
sbom: setup ## the bill of materials of this project as CycloneDX, from requirements.lock, in sbom.cdx.json
	python -m tasks.registry sbom sbom.cdx.json

# pip-audit runs in an environment of its own, so that its packages are none of ours.
ADVISORIES ?=
advisories: setup ## known advisories on what requirements.lock installs; only where ADVISORIES names an OSV service (…/v1/query)
	@if [ -z "$(ADVISORIES)" ]; then echo "advisories: nothing was checked, as ADVISORIES names no source"; else uv tool run \
	--from pip-audit==2.10.1 pip-audit --vulnerability-service osv --osv-url "$(ADVISORIES)" --requirement requirements.lock \
	--disable-pip --require-hashes --strict --progress-spinner off; fi

release: setup ## the wheel in dist/, with its digest in SHA256SUMS; the same commit gives the same bytes
	uv build --quiet --wheel --out-dir dist
	cd dist && sha256sum *.whl | tee SHA256SUMS

bundle: setup ## one file that sets up and runs without a network; BUNDLE="--machine aarch64 --python 3.12" for another machine
	python -m setup.bundle $(BUNDLE)

data: setup
	@if [ ! -e data ]; then dvc checkout data.dvc --quiet 2>/dev/null || { rm -rf data; python -m tasks.corpus data --only-for data.dvc; }; fi

setup: .venv/ready .venv/site-cache $(if $(TORCH),torch-build) ## the environment in .venv, with what make run needs

setup-dev: setup .venv/ready-dev ## and what tests, measurements and validate.tasks need

torch-build: .venv/ready
	@.venv/bin/python -m setup.install torch

# DVC takes a relative path to its site cache from the working directory, which may be any; so each Python of this environment says where
# it is. Without that DVC would share it with every account of the machine. And stages run with it though nobody activated it.
.venv/site-cache: tasks/runtime/environment.pth .venv/ready
	@cp $< "$$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/"
	@touch $@

.venv/ready: requirements.lock
	@python=$$(setup/python) && "$$python" -m setup.install run
	@touch $@

.venv/ready-dev: requirements-dev.lock .venv/ready
	@.venv/bin/python -m setup.install dev
	@touch $@
