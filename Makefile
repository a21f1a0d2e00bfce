# The two commands of the README are `make demo` and `make test`; both install what they need, build, and run.
BUILD ?= build
PYTHON = /usr/bin/python3

.PHONY: all setup build demo test bench bench-peers bench-growth fault fuzz install clean
.NOTPARALLEL:

all: build

setup:
	@tools/setup all

build:
	@tools/build $(BUILD)

demo:
	@tools/setup demo
	@tools/build $(BUILD)
	@tools/demo $(BUILD)

test:
	@tools/setup test
	@tools/build $(BUILD)
	@tools/test $(BUILD)

bench:
	@tools/setup bench
	@tools/build $(BUILD)
	@bench/run $(BUILD)

bench-peers:
	@tools/setup bench-peers
	@tools/build $(BUILD)
	@bench/peers $(BUILD)

bench-growth:
	@tools/setup bench-peers
	@tools/build $(BUILD)
	@bench/growth $(BUILD)

N ?= 100
fault:
	@tools/setup test
	@tools/build $(BUILD)
	@$(PYTHON) test/fault/lab.py $(BUILD) --rounds $(N)

T ?= 60
fuzz:
	@tools/setup all
	@T=$(T) tools/fuzz $(BUILD)-fuzz $(TARGETS)

install: build
	@meson install -C $(BUILD)

clean:
	rm -rf $(BUILD)
