#!/usr/bin/env bash
# Over gRPC without stubs: what there is by reflection, a chat that is left after the tool's answer, and the rest of the run.
set -euo pipefail
url=${AGENTMESH_URL:-http://127.0.0.1:8080}
: "${AGENTMESH_KEY:?the key of an agentmesh tenant}"
message=${1:-What is 12 * 34?}
message=${message//\\/\\\\}
headers=$(mktemp)
trap 'rm -f "$headers"' EXIT
PATH=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/node_modules/.bin:$PATH # npm install brings buf

# The key comes from a file descriptor: arguments are for everybody on the machine to see.
mesh() {
  buf curl --protocol grpc --http2-prior-knowledge --header @<(echo "Authorization: Bearer $AGENTMESH_KEY") "$@"
}

echo "-- services"
mesh --list-services "$url"

echo "-- a stream"
seq=0
result=no
while IFS= read -r line; do
  echo "$line"
  case $line in
    *'"seq": "'*) seq=${line#*: \"} seq=${seq%%\"*} ;;
    *'"toolResult": {') result=yes ;;
    '}') if [[ $result == yes ]]; then break; fi ;;
  esac
done < <(mesh --verbose --data "{\"message\": \"${message//\"/\\\"}\"}" \
  "$url/agentmesh.agent.v1.ChatService/ChatStream" 2>"$headers")

run=$(sed -n 's|.*[Ll]ocation: */api/v1/runs/\([^/]*\)/.*|\1|p' "$headers")
if [[ -z $run ]]; then
  grep -v '^[*<>]' "$headers" >&2 # what buf says besides the headers
  exit 1
fi
echo "-- left $run after event $seq; resuming"
mesh --data "{\"run_id\": \"$run\", \"after_seq\": \"$seq\"}" "$url/agentmesh.agent.v1.RunService/StreamRunEvents"
