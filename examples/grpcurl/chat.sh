#!/usr/bin/env bash
# Over gRPC without stubs: what there is by reflection, a chat that is left after the tool's answer, and the rest of the run.
set -euo pipefail
address=${AGENTMESH_URL:-http://127.0.0.1:8080}
address=${address#http://}
: "${AGENTMESH_KEY:?the key of an agentmesh tenant}"
message=${1:-What is 12 * 34?}
message=${message//\\/\\\\}

# Without grpcurl, Go makes one.
grpcurl=$(command -v grpcurl || true)
if [[ -z $grpcurl ]]; then
  bin=$(mktemp -d)
  trap 'rm -rf "$bin"' EXIT
  CGO_ENABLED=0 GOBIN=$bin go install github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3
  grpcurl=$bin/grpcurl
fi

# grpcurl reads the key from the environment: arguments are for everybody on the machine to see.
# shellcheck disable=SC2016
mesh() { "$grpcurl" -plaintext -expand-headers -H 'authorization: Bearer ${AGENTMESH_KEY}' "$@"; }

echo "-- services"
mesh "$address" list

echo "-- a stream"
seq=0
run=
result=no
while IFS= read -r line; do
  echo "$line"
  case $line in
    'location: '*) run=${line#*/runs/} run=${run%%/*} ;;
    *'"seq": "'*) seq=${line#*: \"} seq=${seq%%\"*} ;;
    *'"toolResult": {') result=yes ;;
    '}') if [[ $result == yes ]]; then break; fi ;;
  esac
done < <(mesh -v -d "{\"message\": \"${message//\"/\\\"}\"}" "$address" agentmesh.agent.v1.ChatService/ChatStream)

echo "-- left ${run:?no run was started} after event $seq; resuming"
mesh -d "{\"run_id\": \"$run\", \"after_seq\": \"$seq\"}" "$address" agentmesh.agent.v1.RunService/StreamRunEvents
