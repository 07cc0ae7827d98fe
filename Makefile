# Thin verbs, one line each; `make PYTHON=python3.12 demo` names another Python.
PYTHON ?= python3
MINUTES ?= 10
SEED ?= 1
DATABASE ?= postgresql

.DEFAULT_GOAL := help
.PHONY: help setup engine javascript tools openwebui harness demo unit test coverage check format reference docs bench chaos lock secrets images

help: ## These lines
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## The service's environment, .venv
	@$(PYTHON) deploy/environments.py service

engine: ## The environment of the real engine on a CPU, .venv-engine (2.6 GB)
	@$(PYTHON) deploy/environments.py engine

javascript: ## The JavaScript clients of the tests (needs npm; without them, their tests are skipped)
	@cd tests/javascript && { test node_modules/.package-lock.json -nt package-lock.json || npm ci --ignore-scripts --no-fund --no-audit || echo "The JavaScript clients are not installed; their tests are skipped."; }

tools: javascript ## Programs that tests run against the API, in .venv-tools: clients of OpenAI's API, and schemathesis (optional)
	@$(PYTHON) -m venv .venv-tools && .venv-tools/bin/pip install --quiet --require-hashes -r requirements/tools.txt
	@$(PYTHON) -m venv .venv-instructor && .venv-instructor/bin/pip install --quiet --require-hashes -r requirements/instructor.txt
	@cd tests/clients/tools/continue && { npm ci --ignore-scripts --no-fund --no-audit --silent || echo "Continue is not installed; its tests are skipped."; }

openwebui: ## Open WebUI for its test, in .venv-openwebui (1 GB, Python 3.11 or 3.12), without the packages of its own models
	@$(PYTHON) -m venv .venv-openwebui && .venv-openwebui/bin/pip install --quiet uv && .venv-openwebui/bin/uv pip install --quiet --python .venv-openwebui/bin/python --override tests/clients/tools/open-webui-overrides.txt "open-webui~=0.12.4"

harness: ## lmms-eval and `longlook eval` ask tiny-qvq the same questions; fails if the answers differ (.venv-harness, 1.6 GB)
	@$(PYTHON) deploy/environments.py service engine harness && exec .venv/bin/python -m tests.harness

demo: ## Everything on this machine, with a sample question; Ctrl-C ends it
	@$(PYTHON) deploy/environments.py service engine && exec .venv/bin/longlook up --demo

unit: ## The unit tests, in seconds
	@$(PYTHON) deploy/environments.py dev && exec .venv/bin/pytest -q --numprocesses 2 --dist worksteal --durations=0 --durations-min=1 tests/unit

# Those of the real engine take turns: it has both cores and two gigabytes to itself. Only their folders are collected.
# The others run three at a time on two cores, because some of them wait; each process has its part of the files, so that
# what a file starts is started once.
test: javascript ## All tests, the real engine included
	@$(PYTHON) deploy/environments.py dev engine && .venv/bin/pytest --numprocesses 3 --dist worksteal -m "not engine" && exec .venv/bin/pytest -m engine $$(grep -rl --include='*.py' 'mark\.engine' tests | xargs -n 1 dirname | sort -u)

coverage: ## The tests without real processes, and the coverage that they reach; no threshold
	@$(PYTHON) deploy/environments.py dev && exec .venv/bin/pytest --numprocesses 2 --dist worksteal -m "not engine and not e2e" --ignore tests/chaos --cov --cov-report term

format: ## Format the code and apply safe fixes
	@$(PYTHON) deploy/environments.py dev && .venv/bin/ruff check --fix-only && exec .venv/bin/ruff format

reference: ## The pages of the documentation that come from the code
	@$(PYTHON) deploy/environments.py dev && exec .venv/bin/python -m tools.reference

docs: ## The documentation site, in site/; a broken link is an error
	@$(PYTHON) deploy/environments.py docs && exec .venv-docs/bin/zensical build --strict --clean

check: ## Lint, format, types, import contracts, migrations, prose
	@$(PYTHON) deploy/environments.py dev && .venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy && .venv/bin/lint-imports && .venv/bin/longlook db check && .venv/bin/pytest -q --durations=0 --durations-min=5 tests/architecture/test_prose.py

bench: ## The benchmarks, the model card's exam through the whole service last; each prints a table
	@$(PYTHON) deploy/environments.py dev engine && for name in accept_images accept batches batch_intake memory overhead streams webhooks engine_client live typed claims search history frequent_words grammars abuse answers voting scenes; do .venv/bin/python -m bench.$$name || exit 1; done

chaos: ## Everything is killed at random, MINUTES=10 SEED=1 DATABASE=postgresql or sqlite; prints figures, fails if a promise broke
	@$(PYTHON) deploy/environments.py dev && exec .venv/bin/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED) --database $(DATABASE)

lock: ## The lock files after a change in pyproject.toml (developers; needs uv; UV_ARGS=--upgrade renews all)
	@uv pip compile -q --no-header --universal --generate-hashes $(UV_ARGS) --group build pyproject.toml -o requirements/service.txt
	@uv pip compile -q --no-header --universal --generate-hashes $(UV_ARGS) --group dev -c requirements/service.txt pyproject.toml -o requirements/dev.txt
	@uv pip compile -q --no-header --universal --generate-hashes $(UV_ARGS) --group docs -o requirements/docs.txt
	@uv pip compile -q --no-header --universal --generate-hashes $(UV_ARGS) --python-version 3.11 --group tools -o requirements/tools.txt
	@uv pip compile -q --no-header --universal --generate-hashes $(UV_ARGS) --python-version 3.11 --group instructor -o requirements/instructor.txt
	@uv pip compile -q --no-header --universal --generate-hashes $(UV_ARGS) --python-version 3.11 --group harness -o requirements/harness.txt

secrets: ## The secrets of docker-compose.yml, a file each in secrets/; those that are there stay
	@$(PYTHON) deploy/make_secrets.py

images: ## deploy/images.env: the images of docker-compose.yml with the digests of today (needs docker)
	@$(PYTHON) deploy/pin_images.py
