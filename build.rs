//! Compiles the C++ shim (`src/torch/shim.cpp`) against the libtorch that `torch-sys` found, and bakes that
//! folder into the binaries as their run-time search path, so that they run without `LD_LIBRARY_PATH`.
//! `LD_LIBRARY_PATH` still wins over it: that is how a machine with a CUDA libtorch supplies its own.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/torch/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // torch-sys (links = "tch") publishes the folder that it links against.
    let lib: PathBuf = match (std::env::var_os("DEP_TCH_LIBTORCH_LIB"), std::env::var_os("LIBTORCH")) {
        (Some(lib), _) => lib.into(),
        (None, Some(root)) => Path::new(&root).join("lib"),
        (None, None) => {
            panic!("libtorch was not found: run `export LIBTORCH=$(scripts/libtorch.sh)` and build again")
        }
    };
    let include = lib.parent().map(|root| root.join("include")).unwrap_or_default();
    if !include.join("ATen/ATen.h").exists() {
        panic!(
            "{} has no ATen/ATen.h: run `export LIBTORCH=$(scripts/libtorch.sh)` and build again",
            include.display()
        );
    }
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(1)
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .file("src/torch/shim.cpp")
        .compile("salmon_shim");
    println!("cargo:rustc-link-search=native={}", lib.display());
    println!("cargo:rustc-link-lib=dylib=torch_cpu");
    println!("cargo:rustc-link-lib=dylib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
