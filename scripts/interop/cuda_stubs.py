"""Stand-ins for the CUDA libraries that torch's CUDA wheel links against, so that it can be imported without them.

usage: cuda_stubs.py TORCH_LIB_FOLDER

In: the libraries of torch. Out, beside them: one small library for each CUDA library that they need and that is not there,
with every symbol that they take from it. No stub returns: a call ends the process and says which one it was. On a machine
without a GPU torch calls none of them.
"""

import collections
import pathlib
import re
import subprocess
import sys
import tempfile

# Which library a symbol belongs to, by its prefix; the first match counts.
OWNERS = [
    ("cublasLt", "libcublasLt.so.13"),
    ("cublas", "libcublas.so.13"),
    ("cudnn", "libcudnn.so.9"),
    ("cufft", "libcufft.so.12"),
    ("curand", "libcurand.so.10"),
    ("cusparseLt", "libcusparseLt.so.0"),
    ("cusparse", "libcusparse.so.12"),
    ("cusolver", "libcusolver.so.12"),
    ("nccl", "libnccl.so.2"),
    ("pnccl", "libnccl.so.2"),
    ("nvshmem", "libnvshmem_host.so.3"),
    ("cuFile", "libcufile.so.0"),
]


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(library):
    """The sonames that a library is linked against."""
    return set(re.findall(r"\(NEEDED\).*\[(.+?)\]", run("readelf", "-dW", library)))


def undefined(library):
    """The symbols that a library takes from others, as (name, version or "")."""
    lines = run("nm", "-D", "--undefined-only", library).splitlines()
    return {(name, version.lstrip("@")) for name, _, version in (line.split()[-1].partition("@") for line in lines)}


def owner(symbol):
    return next((soname for prefix, soname in OWNERS if symbol.startswith(prefix)), None)


def build(soname, symbols, folder):
    """Compiles one stand-in with its symbols, under their versions."""
    code = ["#include <stdio.h>", "#include <stdlib.h>"]
    versions = collections.defaultdict(list)
    for name, version in sorted(symbols):
        code.append(f'void {name}(void) {{ fputs("{name}: there is no CUDA here\\n", stderr); abort(); }}')
        versions[version].append(name)
    with tempfile.TemporaryDirectory() as scratch:
        source, script = pathlib.Path(scratch, "stub.c"), pathlib.Path(scratch, "stub.map")
        source.write_text("\n".join(code) + "\n")
        named = {version: names for version, names in versions.items() if version}
        script.write_text("".join(f"{v} {{ global: {'; '.join(names)}; }};\n" for v, names in named.items()))
        command = ["gcc", "-shared", "-fPIC", "-fno-builtin", "-w", f"-Wl,-soname,{soname}"]
        command += [f"-Wl,--version-script={script}"] if named else []
        subprocess.run([*command, "-o", folder / soname, source], check=True)


def main():
    folder = pathlib.Path(sys.argv[1])
    users = [path for path in sorted(folder.glob("lib*.so*")) if path.name.startswith(("libtorch", "libc10", "libcaffe2"))]
    there = {path.name for path in folder.glob("*.so*")} | {path.name for path in folder.parent.parent.glob("nvidia/**/*.so*")}
    symbols = {soname: set() for soname in set().union(*map(needed, users)) - there if soname in dict(map(reversed, OWNERS))}
    for name, version in set().union(*map(undefined, users)):
        if owner(name) in symbols:
            symbols[owner(name)].add((name, version))
    for soname, names in sorted(symbols.items()):
        build(soname, names, folder)
    print(f"stand-ins for {', '.join(sorted(symbols)) or 'no library'}")


if __name__ == "__main__":
    main()
