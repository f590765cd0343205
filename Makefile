# Every way in. `make` alone lists them; each target sets up what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test check format bench lock clean docker postgres github images
MAKEFLAGS += --no-print-directory

# Taken as they were typed: a dollar sign in a task is a dollar sign.
override REPO := $(value REPO)
override TASK := $(value TASK)
override KEEP := $(value KEEP)
override ONLY := $(value ONLY)
export REPO TASK KEEP ONLY UPGRADE
PYTHON ?= python3
export PYTHON
# Tests wait more than they compute: one process more than there are processors.
WORKERS ?= $(shell echo $$(($$(nproc) + 1)))

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' Makefile

setup: ## make .venv from the lock files (instant when it is up to date)
	@scripts/setup.sh

docker:
	@scripts/ensure_docker.sh

postgres:
	@scripts/ensure_postgres.sh

demo: setup docker ## four tasks at once, from message to pull request; REPO=<path or URL> TASK="…" for your own, KEEP=1 leaves the server up
	@scripts/demo.sh

github: setup
	@scripts/ensure_github.sh

images: setup docker
	@.venv/bin/python scripts/ensure_images.py

test: setup docker postgres github images ## all tests, with Docker, PostgreSQL and the programs that play GitHub; WORKERS=1 runs one after the other
	@.venv/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: setup ## format, lint, types, import rules, documents: before every commit
	@.venv/bin/ruff format --check --quiet . || { echo "some files are not formatted: run make format"; exit 1; }
	@.venv/bin/ruff check --quiet .
	@.venv/bin/pyright
	@.venv/bin/lint-imports
	@.venv/bin/python scripts/check_locks.py
	@.venv/bin/python scripts/check_docs.py

format: setup ## format the code and sort its imports
	@.venv/bin/ruff format --quiet .
	@.venv/bin/ruff check --quiet --fix .

bench: setup docker ## the benchmarks, one JSON object a line; ONLY=<name> runs one
	@.venv/bin/python -m benchmarks $(if $(ONLY),--only "$$ONLY")

lock: setup ## write the lock files again; UPGRADE=1 takes newer versions
	@scripts/lock.sh

clean: ## remove .venv and every cache in this folder (not the data of a server)
	@rm -rf .venv .cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
