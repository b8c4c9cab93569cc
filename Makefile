# Everything sets itself up; the first time takes a few minutes. HEPSPAWNER_RIGS= names another place for what is set up.
SHELL := /bin/bash
HUB6 = $$(tests/rigs/setup.sh where)/venv-hub6/bin

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

demo: ## a hub to try out, on 127.0.0.1:8000 (PORT=, IMAGES=)
	@tools/demo.sh

test: ## every test, on every engine that can be had (HEPSPAWNER_ENGINES=all: on all; ARGS= for pytest)
	@tools/test.sh all tests $(ARGS)

unit: ## tests/unit, in seconds
	@HEPSPAWNER_ENGINES= tools/test.sh venv-hub6 tests/unit $(ARGS)

lint: ## ruff, mypy, and what has to run on Python 3.6
	@tests/rigs/setup.sh venv-hub6
	$(HUB6)/ruff check .
	$(HUB6)/ruff format --check .
	$(HUB6)/mypy
	$(HUB6)/vermin --no-tips -t=3.6- --violations hepspawner/node/launcher.py hepspawner/catalog/inspect.py

bench: ## side by side with other spawners
	@tests/rigs/setup.sh all
	$(HUB6)/python benchmarks/run.py $(ARGS)

screenshots: ## docs/images, anew
	@tests/rigs/setup.sh all
	$(HUB6)/python tests/browser/screenshots.py

clean: ## removes what was made in the checkout (not the rigs)
	rm -rf .venv build dist *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help demo test unit lint bench screenshots clean
