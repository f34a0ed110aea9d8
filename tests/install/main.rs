//! The program on a system that runs: packages, `scripts/install`, container images, and the manual.
//!
//! `scripts/test` makes what goes into them first (`scripts/make-deb amd64 arm64`); here they are
//! packed again from the same programs. Whatever changes a system is done to a copy of this one that
//! nobody else sees and that is gone afterwards: see [`system`].

#![cfg(feature = "std")]

#[path = "../support/program.rs"]
mod program;

mod booted;
mod manual;
mod oci;
mod package;
mod plain;
mod system;
mod unit;

use program::Folder;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One of its scripts, dated like everything else here.
fn script(name: &str) -> Command {
    let mut command = Command::new(root().join("scripts").join(name));
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    command
}

/// The static program for a target; it has been built.
fn built(target: &str) -> PathBuf {
    let path = root().join("target").join(target).join("release/perennial");
    assert!(path.exists(), "first: scripts/make-deb amd64 arm64");
    path
}

/// The static program for this machine.
fn own() -> PathBuf {
    built("x86_64-unknown-linux-musl")
}

/// Runs it to its end, which has to be a good one, and gives what it said on stdout.
fn done(command: &mut Command) -> String {
    let output = ended(command);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out
}

/// Runs it to its end.
fn ended(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A package for an architecture, and the folder it lies in.
fn package(architecture: &str) -> (Folder, PathBuf) {
    let folder = Folder::new("package");
    done(script("make-deb").args(["--built", architecture, "-o"]).arg(folder.path()));
    let name = format!("perennial_{}_{architecture}.deb", env!("CARGO_PKG_VERSION"));
    let package = folder.path().join(name);
    (folder, package)
}
