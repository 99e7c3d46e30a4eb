# Every target makes .venv and installs what it needs, once; PYTHON picks the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One more than there are cores: tests of whole clusters wait more than they compute.
WORKERS ?= $(shell expr $$(nproc) + 1)
PACKAGES := bench cli client dispatcher faults graph journal proto recovery security soak testing worker
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: demo test lint format proto proto-check bench image container clean

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,demo]'
	touch $@

demo: $(VENV)/ready  ## the main job on an embedded cluster
	$(BIN)/penstock demo

test: $(VENV)/ready  ## every test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests

lint: $(VENV)/ready proto-check  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(VENV)/typing && ln -sfn ../.. $(VENV)/typing/penstock
	MYPYPATH=$(VENV)/typing $(BIN)/mypy -m penstock -m penstock.__main__ $(PACKAGES:%=-p penstock.%)

format: $(VENV)/ready
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

# protoc sees the virtual path penstock/proto, so that the stubs import each other as a user would.
define PROTOC
mkdir -p $(1) && $(BIN)/python -m grpc_tools.protoc -Ipenstock/proto=proto \
	--python_out=$(1) --pyi_out=$(1) --grpc_python_out=$(1) penstock/proto/control.proto
endef

proto: $(VENV)/ready  ## regenerates the stubs
	$(call PROTOC,build/proto)
	cp build/proto/penstock/proto/control_pb2* proto/

proto-check: $(VENV)/ready
	@$(call PROTOC,build/proto-check)
	@for f in build/proto-check/penstock/proto/control_pb2*; do \
		cmp -s $$f proto/$$(basename $$f) || { echo "$$(basename $$f) is stale: run make proto"; exit 1; }; done

image:  ## the container image `penstock`
	DOCKER_BUILDKIT=1 docker build --tag penstock \
		--build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) \
		--build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) .

container: $(VENV)/ready  ## builds an image and tries it, as CI does
	bash .ci/container

bench: $(VENV)/ready  ## what the journal can do here
	$(BIN)/penstock bench --case journal

clean:
	rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
