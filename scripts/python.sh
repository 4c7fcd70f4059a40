#!/usr/bin/env bash
# scripts/python.sh NAME: prints the folder of a Python environment with what scripts/NAME/requirements.txt names.
#
# It lies in the user's cache and is made once per machine and list of requirements.
set -euo pipefail
cd "$(dirname "$0")/.."
name=$1 list="scripts/$1/requirements.txt"
die() { echo "salmon $name: $*" >&2; exit 1; }

command -v python3 >/dev/null || die "python3 is missing; install it (Debian: apt-get install python3 python3-venv)"
folder="${XDG_CACHE_HOME:-$HOME/.cache}/salmon/$name-$(sha256sum "$list" | cut -c1-12)"
if [ ! -e "$folder/.complete" ]; then
  echo "salmon $name: making a Python environment (once per machine) in $folder" >&2
  rm -rf "$folder"
  python3 -m venv "$folder" >&2 || die "python3 cannot make an environment; install python3-venv"
  "$folder/bin/python" -m pip install --quiet --disable-pip-version-check -r "$list" >&2 \
    || die "pip could not install $list; check the network"
  touch "$folder/.complete"
fi
echo "$folder"
