.PHONY: setup
setup: ## set-up
	@tools/setup.sh
