#!/bin/sh
# Starts and stops the demo: hack/demo.sh up | down. It needs only Go and git. The
# program is in hack/demo. This script builds it first, because `go run` does not forward
# signals.
set -eu
cd "$(dirname "$0")/.."
case "$*" in up | down) ;; *) echo "usage: hack/demo.sh up|down" >&2; exit 2 ;; esac
command -v go >/dev/null || { echo "demo: go is not in PATH: install Go 1.26 or later, https://go.dev/dl" >&2; exit 1; }
[ "$1" = down ] || echo "Building the demo (the first time this downloads a few Go modules)"
mkdir -p bin
# The demo finds the files of the repository by the path that it was built in.
go build -trimpath=false -o bin/demo ./hack/demo
exec bin/demo "$1"
