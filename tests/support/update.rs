//! Update files, as `scripts/make-update` makes them.

#![allow(dead_code, reason = "each test crate uses what it needs")]

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};
use std::string::String;
use std::vec::Vec;

/// Whoever makes updates, told apart by a number.
pub fn key(number: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[number; 32]).expect("a seed of 32 bytes")
}

/// What an image has in it of a key.
pub fn public(number: u8) -> [u8; 32] {
    key(number).public_key().as_ref().try_into().expect("it has 32 bytes")
}

/// The front of an update without its signature.
pub fn front(manifest: &str) -> Vec<u8> {
    let mut front = b"perennial update".to_vec();
    front.extend(1_u32.to_le_bytes());
    front.extend(u32::try_from(manifest.len()).unwrap().to_le_bytes());
    front.extend(manifest.as_bytes());
    front
}

/// A manifest.
pub fn manifest(board: &str, version: &str, files: &[(&str, &[u8])]) -> String {
    let mut text = std::format!("board {board}\nversion {version}\n");
    for (name, bytes) in files {
        let digest = Sha256::digest(bytes);
        let digits: String = digest.iter().map(|byte| std::format!("{byte:02x}")).collect();
        text += &std::format!("file {name} {} {digits}\n", bytes.len());
    }
    text
}

/// An update that says that, signed, with those files behind it.
pub fn signed(by: u8, manifest: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut whole = front(manifest);
    let signature = key(by).sign(&whole);
    whole.extend(signature.as_ref());
    files.iter().for_each(|(_, bytes)| whole.extend(*bytes));
    whole
}

/// An update of those files.
pub fn update(by: u8, board: &str, version: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    signed(by, &manifest(board, version, files), files)
}
