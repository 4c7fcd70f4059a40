//! Bakes the folder of libtorch into the targets as their run-time search path, as the crate does for its own binaries.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(root) = std::env::var_os("LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", std::path::Path::new(&root).join("lib").display());
    }
}
