.PHONY: help setup demo test test-e2e check bench
help:
	@grep -E '^[a-z-]+:' Makefile | cut -d: -f1

setup:
	@scripts/setup

demo:
	@scripts/demo

test:
	@scripts/test

test-e2e:
	@scripts/e2e

check:
	@scripts/check

bench:
	@scripts/bench
