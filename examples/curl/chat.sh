#!/usr/bin/env bash
# Over REST: a chat in one answer, a chat as server-sent events that is left after the tool's answer, and the rest of the
# run by Last-Event-ID.
set -euo pipefail
url=${AGENTMESH_URL:-http://127.0.0.1:8080}
: "${AGENTMESH_KEY:?the key of an agentmesh tenant}"
message=${1:-What is 12 * 34?}
message=${message//\\/\\\\}
body="{\"message\": \"${message//\"/\\\"}\"}"
headers=$(mktemp)
trap 'rm -f "$headers"' EXIT

# The key comes from a file descriptor: arguments are for everybody on the machine to see.
mesh() {
  curl --silent --show-error --no-buffer --fail-with-body \
    --config <(printf 'header = "Authorization: Bearer %s"\n' "$AGENTMESH_KEY") \
    --header 'Content-Type: application/json' "$@"
}

echo "-- one answer"
mesh "$url/api/v1/chat" --data "$body"
echo

echo "-- a stream"
seq=0
result=no
while IFS= read -r line; do
  echo "$line"
  case $line in
    'id: '*) seq=${line#id: } ;;
    'event: tool_result') result=yes ;;
    '') if [[ $result == yes ]]; then break; fi ;;
  esac
# What curl says when the reader leaves is not worth showing.
done < <(mesh "$url/api/v1/chat/stream" --data "$body" --dump-header "$headers" 2>/dev/null)

events=$(awk 'tolower($1) == "location:" { sub(/\r$/, "", $2); print $2 }' "$headers")
echo "-- left after event $seq; resuming $events"
mesh "$url${events:?no stream was opened}" --header "Last-Event-ID: $seq"
