# klpc: see README.md. The three targets that people use are demo, check and test.

GO      ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
KLPC    := $(CURDIR)/klpc
SCRIPTS := ./scripts

export CGO_ENABLED = 0

.PHONY: all build check test test-all bench demo dist clean

all: build

build:
	$(GO) build -trimpath -ldflags '-s -w -X main.buildVersion=$(VERSION)' -o $(KLPC) ./cmd/klpc

# Quick: no network beyond Go's module cache, no root. All tests together take about
# 3 minutes of CPU time, the first time about 6: what compilers make of the texts of
# tests is kept in ~/.cache/klpc/test-objects. Go runs again only the tests of
# packages that have changed.
check:
	$(SCRIPTS)/check

# Everything, on booted kernels too. Installs what is missing with apt-get.
test:
	$(SCRIPTS)/test

# What takes longer than test may: wide header changes on a built tree.
test-all:
	KLPC_TEST_ALL=1 $(SCRIPTS)/test

bench: build
	$(SCRIPTS)/bench

# Fetch the newest stock cloud kernel, build a livepatch, boot that kernel and
# show /proc/cmdline before, while and after the livepatch is loaded.
demo:
	$(SCRIPTS)/demo

# Packages in dist/: a static binary with units, manual pages and completions.
dist:
	$(SCRIPTS)/dist

clean:
	rm -rf $(KLPC) dist
