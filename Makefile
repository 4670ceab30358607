# What a developer calls; `make` alone lists it. Work is done by the scripts in tools/ and by the command line `uhm`.
.DEFAULT_GOAL := help
.PHONY: help setup demo up down test fuzz lint bench kernel protos k8s clean

help: ## list these targets
	@sed -n 's/^\([a-z0-9]*\):.* ## /\1|/p' Makefile | while IFS='|' read -r name text; do printf '  make %-7s %s\n' "$$name" "$$text"; done

setup: ## install and build everything that is missing; fast where nothing is
	@tools/setup.sh

demo: setup ## from an image to a served page, on ports and in a directory of its own; KEEP=1 leaves it running
	@examples/demo.sh

up: setup ## start the whole system on this machine
	@.venv/bin/uhm up --detach

down: ## stop it
	@.venv/bin/uhm down

test: setup ## run all tests; ARGS='-k name' and the like are passed on to pytest
	@tools/browser.sh || echo 'Going on without a browser: tests that need one are skipped.' >&2
	@tools/test.sh $(ARGS)

fuzz: setup ## fuzz what takes strangers' bytes; SECONDS=600 for each target, of which two run at a time
	@tools/fuzz.sh --seconds '$(or $(SECONDS),600)'

lint: setup ## check style, types, protos, shell scripts, and that nothing generated is committed
	@tools/lint.sh

bench: setup ## measure against Docker on the same machine
	@.venv/bin/python -m bench

kernel: setup ## build a guest kernel that boots sooner, about 5 minutes; PROFILE=full adds netfilter, bridges and more
	@PROFILE='$(PROFILE)' tools/kernel.sh

protos: setup ## generate protos/gen anew
	@.venv/bin/python protos/generate.py

k8s: setup ## print the Kubernetes manifests, after checking every document
	@.venv/bin/python deploy/k8s/validate.py

clean: ## delete what is built and installed below this directory
	rm -rf build protos/gen .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
