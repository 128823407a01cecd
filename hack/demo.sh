#!/bin/sh
# Starts and ends the demo: hack/demo.sh up | down. It needs Go, git and nothing
# else. What it does is in hack/demo; `go run` would not hand signals on, so the
# program is built first.
set -eu
cd "$(dirname "$0")/.."
case "$*" in up | down) ;; *) echo "usage: hack/demo.sh up|down" >&2; exit 2 ;; esac
command -v go >/dev/null || { echo "demo: go is not in PATH: install Go 1.26 or later, https://go.dev/dl" >&2; exit 1; }
# So that it tells of an old Go in one line, and of a new one in none.
[ "$1" = down ] || echo "Building the demo (the first time this downloads a few Go modules)"
mkdir -p bin
# The demo finds files of the repository by its own path.
go build -trimpath=false -o bin/demo ./hack/demo
exec bin/demo "$1"
