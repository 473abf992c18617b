# SPDX-License-Identifier: Apache-2.0
# The front door of whoever develops. On a bare machine use `./run TARGET`: it installs what is missing first.
BUILD ?= build
JOBS ?= $(shell nproc)
PREFIX ?= /usr/local
PYTHON ?= python3
FUZZ_SECONDS ?= 20
FUZZ_TURNS ?= 1
# Tests wait more than they work, so more of them run side by side than there are cores. End-to-end tests
# are dealt in runs of neighbours, which share a server.
UNIT_JOBS ?= $(shell expr $(JOBS) + 1)
E2E_JOBS ?= $(shell expr 3 \* $(JOBS))
PYTEST_ARGS ?=

VENV := $(BUILD)/venv
PYTEST = SALVER_BUILD=$(abspath $(1)) $(abspath $(VENV))/bin/python -m pytest -n $(E2E_JOBS) --dist worksteal $(PYTEST_ARGS)
# A sanitizer must not catch the signals by which the fake plugin dies on purpose; under TSan a process that ends waits
# for other threads' reports, 1 s unless it is told.
REPORTS = handle_segv=0:handle_abort=0:handle_sigfpe=0:handle_sigill=0:handle_sigbus=0:allow_user_segv_handler=1:atexit_sleep_ms=50

.PHONY: all demo examples chat test unit e2e configs bench points fmt lint install dist asan tsan fuzz clang ci docs \
	docs-check cuda neon beneath clean help

all: $(BUILD)/build.ninja ## build/salver and build/plugins/*.so
	cmake --build $(BUILD) -j $(JOBS)

$(BUILD)/build.ninja: CMakePresets.json
	cmake --preset dev -B $(BUILD)

$(VENV)/ready: tests/requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --requirement tests/requirements.txt
	touch $@

demo: all ## fetch a small chat model, serve configs/chat-cpu.yaml, ask it something, go on serving
	$(PYTHON) tests/tools/demo.py --build $(BUILD)

examples: all ## serve configs/examples.yaml, ask each once, go on serving
	$(PYTHON) tests/tools/examples.py --build $(BUILD) --stay

chat: all $(VENV)/ready ## fetch the demo's model, run the tests that need it, ask the demo's question
	tests/tools/with_model.sh $(BUILD) $(abspath $(VENV))/bin/python -m pytest $(PYTEST_ARGS)

test: unit configs e2e ## everything that must be green

unit: all
	ctest --test-dir $(BUILD) --output-on-failure -j $(UNIT_JOBS)

configs: all ## every file under configs/ must pass `salver check`
	set -e; for file in configs/*.yaml; do $(BUILD)/salver check $$file; done

e2e: all $(VENV)/ready
	$(call PYTEST,$(BUILD)) tests

bench: all $(VENV)/ready ## the published numbers, or with K= some of them: proxy sse start llm cost store wake registry
	SALVER_BUILD=$(BUILD) $(VENV)/bin/python bench/run.py $(K)

points: all $(VENV)/ready ## the scenarios of tests/e2e/test_point*.py in full size, and their figures
	SALVER_BUILD=$(BUILD) tests/e2e/points.sh $(VENV)/bin/python $(PYTEST_ARGS)

fmt: ## format every C file
	git ls-files '*.c' '*.h' '*.cc' '*.cu' | xargs clang-format -i

lint: all ## format, clang-tidy on what changed, SPDX lines, sizes, arrows
	lint/all.sh $(BUILD)

install: all ## into PREFIX (/usr/local) below DESTDIR
	cmake --install $(BUILD) --prefix $(PREFIX)

dist: all ## one folder that runs on another Linux, and packed: BUILD/dist
	cmake/dist.sh $(BUILD)

clang: ## the kernels as clang optimises them; `asan` compiles and tests everything with it
	cmake --preset clang
	cmake --build build-clang -j $(JOBS) --target $(patsubst tests/unit/%.c,unit_%,$(wildcard tests/unit/kernels_*.c))
	ctest --test-dir build-clang --output-on-failure -j $(UNIT_JOBS) -R '^unit_kernels_'

asan: $(VENV)/ready ## all by clang; unit and end to end, but for the timed scenarios, under ASan and UBSan
	cmake --preset asan
	cmake --build build-asan -j $(JOBS)
	rm -rf build-asan/reports && mkdir build-asan/reports
	ASAN_OPTIONS=$(REPORTS):log_path=$(abspath build-asan)/reports/asan \
	UBSAN_OPTIONS=print_stacktrace=1 SALVER_SANITIZED=asan sh -ec \
	'ctest --test-dir build-asan --output-on-failure -j $(UNIT_JOBS); $(call PYTEST,build-asan) tests/e2e --ignore-glob=*/test_point*'
	lint/reports.sh build-asan/reports

# The preset builds no unit test but those that have threads.
tsan: $(VENV)/ready ## the worker and the kernels' threads, unit and end to end, under TSan
	cmake --preset tsan
	cmake --build build-tsan -j $(JOBS)
	rm -rf build-tsan/reports && mkdir build-tsan/reports
	TSAN_OPTIONS=$(REPORTS):log_path=$(abspath build-tsan)/reports/tsan SALVER_SANITIZED=tsan sh -ec \
	'ctest --test-dir build-tsan --output-on-failure -j $(UNIT_JOBS); \
	$(call PYTEST,build-tsan) tests/e2e/test_serve_*.py tests/e2e/test_chaos.py tests/e2e/test_llm_api.py tests/e2e/test_llm_load.py'
	lint/reports.sh build-tsan/reports

fuzz: ## each fuzz target for FUZZ_SECONDS; in CI they take turns, a quarter has that long
	cmake --preset asan
	cmake --build build-asan -j $(JOBS) --target fuzzers
	FUZZ_TURNS=$(FUZZ_TURNS) tests/fuzz/run.sh build-asan $(FUZZ_SECONDS)

neon: ## the CPU backend's unit tests for 64-bit ARM, cross-compiled, in qemu
	tests/neon/run.sh build-neon

cuda: ## the build that fails without nvcc, cuBLASLt and cuDNN
	cmake --preset cuda

docs: all ## generate docs/ from the program's own tables
	for page in config metrics wire errors; do $(BUILD)/salver doc $$page >docs/$$page.md || exit 1; done

docs-check: docs
	git diff --exit-code -- docs || { echo "docs/ is stale: commit what 'make docs' wrote"; exit 1; }

# Tests wait more than they compute: what only computes has what they leave.
ci: all ## what CI runs after `./run test`
	nice -n 19 $(MAKE) beneath >$(BUILD)/beneath.log 2>&1 & beneath=$$!; failed=; \
	$(MAKE) docs-check cuda neon clang chat asan || failed=yes; \
	wait $$beneath || failed=yes; grep -v '^\[' $(BUILD)/beneath.log; \
	$(MAKE) FUZZ_TURNS=4 FUZZ_SECONDS=12 tsan fuzz || failed=yes; [ -z "$$failed" ]

beneath:
	lint/all.sh $(BUILD)
	cmake --preset tsan
	cmake --build build-tsan -j $(JOBS)

clean: ## all build folders of the presets; .cache/ stays
	rm -rf build build-release build-clang build-asan build-tsan build-cuda build-neon

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort
