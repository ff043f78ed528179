#!/bin/sh
# Makes .venv from the locked versions. Needs python3 (>= 3.11) with venv; uv is taken from PATH or installed beside it.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
command -v "$python" >/dev/null 2>&1 || { echo "setup: '$python' was not found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "setup: $("$python" --version) is too old, ucdir needs Python 3.11 or newer. Name another: make PYTHON=/path/to/python3" >&2; exit 1; }

if command -v uv >/dev/null 2>&1; then
    uv=uv
else
    uv=.uv/bin/uv
    if [ ! -x "$uv" ]; then
        echo "setup: installing uv into .uv" >&2
        rm -rf .uv
        "$python" -m venv .uv || { echo "setup: '$python -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv" >&2; rm -rf .uv; exit 1; }
        .uv/bin/python -m pip install --quiet --disable-pip-version-check uv
    fi
fi

echo "setup: installing the locked versions into .venv (several GB the first time)" >&2
"$uv" venv --quiet --clear --python "$python" .venv
"$uv" pip install --quiet --python .venv/bin/python --requirement requirements.lock
"$uv" pip install --quiet --python .venv/bin/python --no-deps --editable .
touch .venv/.ready
