//! What the build scripts of all firmware crates do: their profile becomes constants.

use std::path::PathBuf;
use std::{env, fs};

/// Reads the crate's `profile.toml` and writes `profile.rs` into its output folder: one constant
/// for each number the firmware needs. The keys are those of every board.
pub fn write_profile() {
    println!("cargo:rerun-if-changed=profile.toml");
    println!("cargo:rerun-if-changed=../mcu-build.rs");
    let text = fs::read_to_string("profile.toml").expect("a board has a profile");
    let profile: toml::Table = text.parse().expect("the profile is TOML");
    let number = |table: &str, key: &str| {
        let value = profile.get(table).and_then(|table| table.get(key));
        value.and_then(toml::Value::as_integer).unwrap_or_else(|| panic!("no `{key}` in [{table}]"))
    };
    let constants = [
        ("PEERS_MAX", number("pools", "peers_max")),
        ("UNCHOKED_MAX", number("pools", "unchoked_max")),
        ("PER_ADDRESS_MAX", number("pools", "per_address_max")),
        ("REQUESTS", number("pools", "requests_per_peer")),
        ("BITS_BYTES", number("pools", "bits_kib") * 1024),
        ("RX_BYTES", number("sockets", "receive_kib") * 1024),
        ("TX_BYTES", number("sockets", "unsent_kib") * 1024),
        ("UNIT_BYTES", number("image", "unit_kib") * 1024),
    ];
    let lines = constants.map(|(name, value)| format!("pub const {name}: usize = {value};\n"));
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where"));
    fs::write(folder.join("profile.rs"), lines.concat()).expect("cargo's folder takes a file");
}
