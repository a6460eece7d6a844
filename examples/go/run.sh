#!/usr/bin/env bash
# Generates the client from proto/ into gen/ and runs main.go. buf comes from npm install, the rest from go.mod.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export CGO_ENABLED=0 # no C compiler is needed
go generate
exec go run . "$@"
