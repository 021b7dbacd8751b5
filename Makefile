# The first command typed on a fresh machine is make demo or make test: both
# need Go, bash and make, and fetch the PostgreSQL that is missing.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build
.PHONY: build demo picture plan-picture bench faults test test-all lint clean

# Two packages at a time: each boots servers of its own, and waits more than it
# works. What vet finds is for make lint.
TESTFLAGS ?= -p 2 -timeout 85m -vet=off
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

## build: bin/crossfade and bin/lab
build:
	go build -buildvcs=false -trimpath -ldflags '-X main.version=$(VERSION)' -o bin/ ./cmd/crossfade ./cmd/lab

## demo: upgrade a running cluster from PostgreSQL 15 to 18 and back, before your eyes
demo: build
	bin/lab play upgrade --crossfade bin/crossfade

## test: everything against real servers; the last line counts
test:
	mkdir -p bin
	go build -buildvcs=false -o bin/lab ./cmd/lab
	go test -json $(TESTFLAGS) ./... | bin/lab tally

## test-all: the same with the race detector, and every scenario
test-all:
	mkdir -p bin
	go build -buildvcs=false -o bin/lab ./cmd/lab
	CROSSFADE_ALL=1 go test -race -json -p 1 -timeout 4h ./... | bin/lab tally

## picture: docs/pictures/demo.svg, from what the demo prints on this machine
picture: build
	bin/lab play upgrade --crossfade bin/crossfade | tee bin/demo.txt
	mkdir -p docs/pictures
	{ sed -n '/^crossfade cutover/,/^crossfade rollback/p' bin/demo.txt | sed '$$d'; \
	  sed -n '/^proven/,$$p' bin/demo.txt; } | bin/lab picture > docs/pictures/demo.svg

## plan-picture: docs/pictures/plan.png, the dry run of the demo's clusters as a browser shows it
plan-picture: build
	mkdir -p docs/pictures
	trap 'bin/lab down upgrade' EXIT; \
	bin/lab up --crossfade bin/crossfade --load upgrade > bin/up.txt; \
	bin/crossfade plan --sample 10s --html bin/plan.html -f "$${TMPDIR:-/tmp}/crossfade-up-$$(id -u)/upgrade/runbook.yaml" > bin/plan.txt
	bin/lab screenshot --of bin/plan.html docs/pictures/plan.png

## bench: docs/benchmarks.md, from what is measured on this machine beside the peers; about an hour (bin/lab bench --help)
bench: build
	bin/lab bench --crossfade bin/crossfade

## faults: docs/faults.md, from the tests that cut lines, kill the tool and do things by hand at every step, and at random; about two hours
faults:
	mkdir -p bin
	go build -buildvcs=false -o bin/lab ./cmd/lab
	CROSSFADE_ALL=1 go test ./scenarios/proof ./scenarios/monkey -run '^(TestIsolation|TestCutoverKilled|TestAfterOpen|TestHumanError|TestMonkey)$$' -v -p 1 -timeout 3h | bin/lab faults > bin/faults.md
	mv bin/faults.md docs/faults.md

## lint: formatting, go.mod, vet, staticcheck, errcheck
lint:
	@unformatted=$$(go tool gofumpt -l cmd cutover scenarios schema upgrade); \
	if [ -n "$$unformatted" ]; then echo "not formatted (go tool gofumpt -w .):"; echo "$$unformatted"; exit 1; fi
	go mod tidy -diff
	go vet ./...
	go tool staticcheck ./...
	go tool errcheck ./...

## clean: what make has made, and the test cache
clean:
	rm -rf bin
	go clean -testcache
