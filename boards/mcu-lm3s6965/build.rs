//! The profile as constants, and the chip's memory for the linker.

#[path = "../mcu-build.rs"]
mod mcu_build;

fn main() {
    mcu_build::write_profile();
    println!("cargo:rerun-if-changed=memory.x");
    println!("cargo:rustc-link-search={}", env!("CARGO_MANIFEST_DIR"));
    println!("cargo:rustc-link-arg-bins=-Tlink.x");
    // Functions that are alike are kept once.
    println!("cargo:rustc-link-arg-bins=--icf=all");
}
