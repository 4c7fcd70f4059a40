#!/usr/bin/env bash
# Make the Python environment of the interop checks, once per machine, and print its python.
#
# torch 2.11 is on PyPI with CUDA only, and with 4 GB of CUDA wheels. None of that runs here: the wheel is installed alone,
# and libraries whose functions end the process stand in for the CUDA ones (cuda_stubs.py).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
say() { echo "salmon interop: $*" >&2; }
die() { say "$*"; exit 1; }

# A python that has them all.
if [ -n "${SALMON_INTEROP_PYTHON:-}" ]; then echo "$SALMON_INTEROP_PYTHON"; exit 0; fi

command -v python3 >/dev/null || die "python3 is missing; install it (Debian: apt-get install python3 python3-venv)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || die "python3 is older than 3.10"
for tool in gcc nm readelf; do
  command -v "$tool" >/dev/null || die "$tool is missing; install it (Debian: apt-get install g++)"
done

# Another list of libraries is another environment.
mark=$(cat "$here"/requirements*.txt "$here/cuda_stubs.py" | sha256sum | cut -c1-12)
folder="${XDG_CACHE_HOME:-$HOME/.cache}/salmon/interop-$mark"
if [ -e "$folder/.complete" ]; then echo "$folder/bin/python"; exit 0; fi

say "making a Python environment (2 GB, once per machine) in $folder"
rm -rf "$folder"
python3 -m venv "$folder" || die "python3 cannot make an environment; install python3-venv"
pip=("$folder/bin/python" -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" -r "$here/requirements.txt" >&2 && "${pip[@]}" --no-deps -r "$here/requirements-torch.txt" >&2 \
  || die "pip could not install the libraries of scripts/interop/requirements*.txt; check the network"
"$folder/bin/python" "$here/cuda_stubs.py" "$(echo "$folder"/lib/python3*/site-packages/torch/lib)" >&2
"$folder/bin/python" -c 'import torch, transformers, trl, peft' || die "the environment does not work; see above"
touch "$folder/.complete"
echo "$folder/bin/python"
