#!/usr/bin/env bash
# Runs chat.py in a virtual environment of its own, made on first use.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=$here/.venv/bin/python
[[ -x $python ]] || python3 -m venv "$here/.venv"
"$python" -m pip install --quiet --disable-pip-version-check --requirement "$here/requirements.txt"
exec "$python" "$here/chat.py" "$@"
