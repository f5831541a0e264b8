.PHONY: examples check

examples: ## run all examples and their controls, and write examples/README.md
	python examples/run.py

check: ## what every change must pass
	.ci/run
