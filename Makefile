# `make demo` and `make test` do all set-up themselves; see `make help`.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo demo-s3 deploy stack django test test-stack test-engines lint format lock clean

BIN := .venv/bin
PYTHON_CODE := dubbing blocks tasks flows tests samples scripts deployments/django
TEST_OPTIONS ?= -n 2 --dist loadfile --no-loadscope-reorder
UV_VERSION := 0.13.8

# Without compiled modules beside the sources every start compiles all that it imports anew: seconds, each time.
unexport PYTHONDONTWRITEBYTECODE

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: system packages, and the locked Python packages into .venv
	@scripts/setup.sh

demo: setup ## dub the sample lesson into English and say where the result is
	@$(BIN)/coursedub dub samples/lesson_ru.mp4 --to en --output demo

demo-s3: setup ## the same with results in a bucket (a SeaweedFS server here), then again from an empty disk
	@$(BIN)/python scripts/demo_s3.py

deploy: setup ## set Prefect's server (PREFECT_API_URL) up: pools, blocks, automations, deployments (DEPLOY_OPTIONS="--gpu-runs 2")
	@$(BIN)/coursedub deploy $(DEPLOY_OPTIONS)

test: ## run the tests (TEST_OPTIONS="-k name" runs some)
	@scripts/setup.sh tests
	@$(BIN)/python -m pytest $(TEST_OPTIONS) || { [ $$? = 1 ] && [ -n "$(TESTS_AGAIN)" ] && \
		env -u TESTS_UNTIL $(BIN)/python -m pytest --last-failed --last-failed-no-failures=none; }

stack: setup ## all of it on this machine to click through: Prefect's UI, both workers, a bucket, a GPU server in the cloud
	@$(BIN)/python -m tests.stack

django: setup ## the platform's side, a Django project to click through, against `make stack` in another terminal
	@set -a; [ ! -f .stack.env ] || . ./.stack.env; exec $(BIN)/python deployments/django/example/manage.py try_out

test-stack: setup ## the same, with one lesson through the API: the server is woken, the lesson dubbed, the server shelved
	@$(BIN)/python -m tests.stack --check

test-engines: ## run WhisperX's and Demucs' own code with tiny checkpoints, on the CPU and a GPU if there is one, in an environment of its own (2.5 GB)
	@scripts/engines.sh
	@HF_HUB_OFFLINE=1 .venv-engines/bin/python -m pytest tests/engines --durations=10 $(ENGINES_OPTIONS)

lint: setup ## check style, types and the direction of imports
	@$(BIN)/ruff check $(PYTHON_CODE)
	@$(BIN)/ruff format --check $(PYTHON_CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

format: setup ## rewrite the code in the project's format
	@$(BIN)/ruff check --fix-only $(PYTHON_CODE)
	@$(BIN)/ruff format $(PYTHON_CODE)

lock: setup ## write requirements.lock anew from pyproject.toml; what is locked stays (LOCK_OPTIONS=--upgrade takes the newest)
	@$(BIN)/python -m venv --clear .lock-tools
	@.lock-tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@.lock-tools/bin/uv pip compile --quiet pyproject.toml --group dev --extra s3 --extra ollama --extra openai --extra gpu-server --python-version 3.11 --python-platform x86_64-manylinux_2_34 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --output-file requirements.lock $(LOCK_OPTIONS)
	@.lock-tools/bin/uv pip compile --quiet pyproject.toml --group build --extra s3 --extra ollama --extra openai --extra gpu-server --constraint requirements.lock \
		--python-version 3.11 --python-platform x86_64-manylinux_2_34 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		--output-file deployments/control_plane/requirements.lock $(LOCK_OPTIONS)
	@.lock-tools/bin/uv pip compile --quiet pyproject.toml --extra whisperx --extra demucs --group engines --python-version 3.11 \
		--python-platform x86_64-manylinux_2_28 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file tests/engines/requirements.lock $(LOCK_OPTIONS)
	@rm -r .lock-tools

clean: ## remove the demos' results
	@rm -rf demo demo-replayed
