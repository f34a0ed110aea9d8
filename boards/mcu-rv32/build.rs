//! The profile as constants, and where the linker puts what.

#[path = "../mcu-build.rs"]
mod mcu_build;

fn main() {
    mcu_build::write_profile();
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where");
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rustc-link-search={folder}");
    println!("cargo:rustc-link-arg-bins=-Tmemory.x");
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
}
