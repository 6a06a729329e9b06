# Everyday commands. `make` alone lists them. All of it stays in .cache/ and, for the lab, in /var/lib/wharf-lab.

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-down test lint format units sanity integration acceptance monitoring mutants molecule drill drill-nfs drill-store bench build

SCENARIOS ?= default stream single
BENCHMARKS ?= htpasswd_users token_service token_flood gc retention site
PYTHON3 := $(shell command -v python3 2>/dev/null)

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install ansible-core and the tools into .cache/ (once; quick afterwards)
ifeq ($(PYTHON3),)
	@echo "setup: there is no python3 on this machine; on Debian, as root: apt-get install -y python3 python3-venv" >&2; exit 1
else
	@tests/setup
endif

demo: setup ## Start the lab and deploy a three-node registry on it
	@tests/lab/demo

demo-down: ## Remove the lab with all it keeps
	@python3 tests/lab/lab.py down

test: setup ## Run all tests (stages: tests/run --list)
	@tests/run

lint: setup ## Style and documentation
	@tests/run lint consistency

format: setup ## Format the Python code
	@.cache/venv/bin/ruff check --fix-only --quiet .
	@.cache/venv/bin/ruff format .

units: setup ## Unit tests and types
	@tests/run units

sanity: setup ## ansible-test sanity and units under each release of ansible-core
	@tests/run units core-2.19 core-2.17 core-2.21

integration: setup ## Integration tests of the modules, in temporary folders of this machine
	@tests/run integration

acceptance: setup ## The modules on bare Debian 12 and 13, against real registries and clients, and killed
	@tests/run lab acceptance

monitoring: setup ## Alerts, and the roles of monitoring on bare Debian 12 and 13
	@tests/run lab monitoring

mutants: setup ## Try every fault that can be made in the rules of the alerts (three minutes)
	@PATH="$(CURDIR)/.cache/venv/bin:$$PATH" .cache/venv/bin/python -m pytest -p no:cacheprovider -q -s tests/monitoring/test_mutants.py

molecule: setup ## Molecule scenarios on the lab's nodes (SCENARIOS="default stream single", or nfs)
	@tests/run lab $(SCENARIOS)

drill: setup ## Break the running lab in every way that docs/faults.md counts, with clients pulling; then drill-store
	@.cache/venv/bin/python -m pytest -p no:cacheprovider -v -s tests/drills
	@$(MAKE) --no-print-directory drill-store

drill-nfs: setup ## Break a cluster over real kernel NFS: power, network, a full export, a clock, reboots (machines of their own; half an hour)
	@PATH="$(CURDIR)/.cache/venv/bin:$$PATH" .cache/venv/bin/python -m pytest -p no:cacheprovider -v -s tests/nfs

drill-store: setup ## Collect garbage under fire for ten minutes on each kind of cluster; compare 500 storages with the stock tool (an hour)
	@PATH="$(CURDIR)/.cache/venv/bin:$$PATH" PYTHONPATH=.cache/collections WHARF_FIRE_SECONDS=600 \
	  .cache/venv/bin/python -m pytest -p no:cacheprovider -v -s tests/store

bench: setup ## Time what has a figure in the documents (an hour; BENCHMARKS="htpasswd_users token_service token_flood gc retention site", site wants the running lab)
	@for name in $(BENCHMARKS); do .cache/venv/bin/python tests/benchmarks/$$name.py || exit 1; done

build: setup ## Build the collection's archive into dist/
	@.cache/venv/bin/ansible-galaxy collection build --force --output-path dist
