#!/usr/bin/env bash
# Find or fetch libtorch 2.11 and print its folder.
#
# Order: $LIBTORCH if set; a python3 that already has torch 2.11; else the PyPI wheel, unpacked once per
# machine into the user's cache folder. Only what a CPU build needs is kept of the wheel (see docs/development.md).
set -euo pipefail
version=2.11.0
say() { echo "salmon set-up: $*" >&2; }
die() { say "$*"; exit 1; }

if [ -n "${LIBTORCH:-}" ]; then
  [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] || die "LIBTORCH=$LIBTORCH has no lib/libtorch_cpu.so; unset it, or point it at libtorch $version"
  echo "$LIBTORCH"; exit 0
fi

cache="${XDG_CACHE_HOME:-$HOME/.cache}/salmon/libtorch-$version"
if [ -e "$cache/.complete" ]; then echo "$cache"; exit 0; fi

command -v python3 >/dev/null || die "python3 is missing; install it (Debian: apt-get install python3 python3-pip)"
if found=$(python3 -c 'import torch,os; v=torch.__version__.split("+")[0]; print(os.path.dirname(torch.__file__) if v=="'$version'" else "")' 2>/dev/null) && [ -n "$found" ]; then
  # A CUDA wheel's libtorch.so drags in CUDA; build against its CPU half and load CUDA at run time.
  source_dir=$found
else
  python3 -m pip --version >/dev/null 2>&1 || die "pip is missing; install it (Debian: apt-get install python3-pip)"
  work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
  say "fetching libtorch $version (530 MB, once per machine) into $cache"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: -d "$work" \
    "torch==$version" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85 >&2 \
    || die "pip could not download torch==$version; check the network, or set LIBTORCH to an unpacked libtorch"
  python3 - "$work" <<'PY'
import glob, os, sys, zipfile
work = sys.argv[1]
keep = ("torch/include/", "torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp", "torch/lib/libshm.so")
for wheel in glob.glob(work + "/*.whl"):
    with zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            base = os.path.basename(name)
            if name.startswith(keep) or base.startswith(("libcudart.so", "libcupti.so")):
                z.extract(name, work)
            elif "/libgomp" in name or (".libs/" in name and base.startswith("libgomp")):
                z.extract(name, work)
PY
  source_dir=$work/torch
  find "$work" \( -name 'libcudart.so*' -o -name 'libcupti.so*' \) -exec cp -n {} "$source_dir/lib/" \;
  find "$work" -name 'libgomp*.so*' -exec cp -n {} "$source_dir/lib/" \; 2>/dev/null || true
fi

partial="$cache.partial.$$"
rm -rf "$partial"; mkdir -p "$partial/lib"
if [ -n "${work:-}" ]; then
  mv "$source_dir/include" "$partial/"; mv "$source_dir"/lib/*.so* "$partial/lib/"
else
  ln -s "$source_dir/include" "$partial/include"
  for f in "$source_dir"/lib/*.so*; do
    case "$(basename "$f")" in libtorch.so|libtorch_cuda*|libtorch_python*|libc10_cuda*) ;; *) ln -s "$f" "$partial/lib/";; esac
  done
  for name in libcudart.so.13 libcupti.so.13; do
    [ -e "$partial/lib/$name" ] && continue
    f=$(find "$(dirname "$source_dir")/nvidia" -name "$name" 2>/dev/null | head -n 1)
    if [ -n "$f" ]; then ln -s "$f" "$partial/lib/"; fi
  done
fi
# torch-sys links -ltorch; with only the CPU half there, that name is a one-line linker script.
echo 'INPUT(-ltorch_cpu)' > "$partial/lib/libtorch.so"
touch "$partial/.complete"
mkdir -p "$(dirname "$cache")"; rm -rf "$cache"; mv "$partial" "$cache"
echo "$cache"
