#!/usr/bin/env bash
# Runs the peer suite with a Python that has the peers: the one in build/peers, made here the
# first time, or the system's where that has them already. Where there is none and none can be
# made, the suite is skipped, in TAP. Arguments go to peer.py.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

skip() {
  echo "1..1"
  echo "ok 1 - peers # SKIP $1"
  exit 0
}

has_peers() { # has_peers <python>: in the versions that are wanted
  "$1" - 2>/dev/null <<'PYTHON'
import numpy, safetensors, torch
raise SystemExit(torch.__version__.split("+")[0] != "2.13.0")
PYTHON
}

python=build/peers/bin/python
if ! has_peers "$python"; then
  command -v python3 >/dev/null || skip "there is no python3"
  if has_peers python3; then
    python=python3
  else
    mkdir -p build
    python3 -m venv build/peers >&2 || skip "python3 cannot make a virtual environment (python3-venv)"
    "$python" -m pip install --quiet -r spec/peers/requirements.txt >&2 ||
      skip "pip could not install spec/peers/requirements.txt"
    has_peers "$python" || skip "PyTorch 2.13.0 is not usable here"
  fi
fi
export PYTHONDONTWRITEBYTECODE=1
# New cases every day at a desk, the same ones where a change is judged.
[ -z "${CI:-}" ] || export NYX_SPEC_SEED=${NYX_SPEC_SEED:-75}
exec "$python" spec/peers/peer.py "$@"
