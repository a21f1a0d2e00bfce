# The two commands of the README are `make demo` and `make test`; both install what they need, build, and run.
BUILD ?= build
NPM_STAMP = node_modules/.package-lock.json
PYTHON = /usr/bin/python3

.PHONY: all setup build demo test bench fault install clean asan tsan clang fuzz

all: build

setup:
	@tools/setup

$(BUILD)/build.ninja: meson.build
	@meson setup $(BUILD) --buildtype=debugoptimized >/dev/null

build: $(BUILD)/build.ninja
	@ninja -C $(BUILD) | tail -n 3

demo: setup build
	@tools/demo $(BUILD)

test: setup build
	@tools/test $(BUILD)

bench: setup build
	@bench/run $(BUILD)

N ?= 100
fault: setup build
	@$(PYTHON) test/fault/lab.py $(BUILD) --rounds $(N)

install: build
	@meson install -C $(BUILD)

clean:
	rm -rf $(BUILD)
