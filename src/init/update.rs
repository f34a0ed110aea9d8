//! A signed file that becomes the other slot, as it comes and in bounded memory.
//!
//! ```text
//! 0    16  "perennial update"
//! 16    4  format, little-endian: 1
//! 20    4  length of the manifest, little-endian, at most MANIFEST_BYTES_MAX
//! 24    n  manifest: lines of text
//!              board uefi-arm64
//!              version 0.2.0
//!              file kernel 33012345 SHA-256 in hex          one for each file of the slot
//! 24+n 64  ed25519 signature over all of the above
//! 88+n     the files, one behind the other, in the order of the manifest
//! ```
//!
//! Nothing of a manifest is believed before its signature is, and nothing of the boot partition is
//! touched before all it says has been looked at. Then the other slot is named by nothing any more,
//! cleared and written; each file is hashed as it comes, and once more as it is read back from the
//! card. Only then is it started, on trial: see [`super::slots`].
//!
//! The box writes `version` itself, from the manifest, and sets the slot's letter in `cmdline.txt`,
//! for whoever makes an update cannot know which slot it will be.
//!
//! # Journey
//! `service::steward::update`, on lanes -> [`Appliance`] -> here -> [`super::fat`].

use super::fat::{Files, Mounted, read_small, write_small};
use super::slots::{self, Loader, Slot, Standing};
use crate::service::Refusal;
use crate::service::update::{Incoming, Slots};
use sha2::{Digest as _, Sha256};
use std::boxed::Box;
use std::fmt;
use std::io;
use std::string::{String, ToString};
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec::Vec;

/// A box that was flashed: it has slots, and says to the service how they are updated.
pub struct Appliance {
    boot: Mounted,
    machine: Machine,
    on_trial: AtomicBool,
}

/// What an update is held against.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The slot that runs.
    pub running: Slot,
    /// What images for it are called: `uefi-arm64`.
    pub board: String,
    /// Who may update it, an ed25519 public key; nobody when there is none.
    pub key: Option<[u8; 32]>,
}

impl Appliance {
    /// The box on that boot partition, once its slot has begun.
    pub fn new(boot: Mounted, machine: Machine, standing: Standing) -> Appliance {
        let on_trial = AtomicBool::new(standing == Standing::Trial);
        Appliance { boot, machine, on_trial }
    }
}

impl Slots for Appliance {
    fn on_trial(&self) -> bool {
        self.on_trial.load(Ordering::Relaxed)
    }

    fn good(&self) -> Result<(), Refusal> {
        slots::good(&mut self.boot.clone(), self.machine.running)?;
        self.on_trial.store(false, Ordering::Relaxed);
        Ok(())
    }

    fn update(&self) -> Result<Box<dyn Incoming>, Refusal> {
        if self.on_trial() {
            let remedy = "wait until it has served somebody, ten minutes at most";
            return Err(Refusal::new("the box", "is trying its last update just now", remedy));
        }
        let update = Update::new(Box::new(self.boot.clone()), self.machine.clone());
        Ok(Box::new(update))
    }
}

/// Reads a public key as it is kept: a line of base64 (RFC 4648), 32 bytes.
pub fn parse_key(text: &str) -> Option<[u8; 32]> {
    let digits = text.trim().strip_suffix('=').filter(|digits| digits.len() == KEY_DIGITS)?;
    let (mut key, mut bits, mut at) = ([0; 32], 0_u32, 0);
    for (number, digit) in digits.bytes().enumerate() {
        let six = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        // Every digit but the first of four completes a byte.
        if number % 4 > 0 {
            key[at] = (bits >> (6 - 2 * (number % 4))) as u8;
            at += 1;
        }
    }
    Some(key)
}

/// An update that comes.
pub struct Update {
    files: Box<dyn Files>,
    machine: Machine,
    /// The front as far as it has come; no longer once it is believed.
    front: Vec<u8>,
    manifest: Option<Manifest>,
    /// The file that comes, or is read back, and how far.
    at: (usize, u64),
    hash: Sha256,
    /// How much has come in all.
    taken: u64,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing has been touched.
    Looking,
    Taking,
    ReadingBack,
}

impl Update {
    /// One that becomes the slot that does not run.
    pub fn new(files: Box<dyn Files>, machine: Machine) -> Update {
        Update {
            files,
            machine,
            front: Vec::new(),
            manifest: None,
            at: (0, 0),
            hash: Sha256::new(),
            taken: 0,
            stage: Stage::Looking,
        }
    }

    fn other(&self) -> Slot {
        self.machine.running.other()
    }

    /// Takes of the front what is still to come, and looks at it once it is whole. What follows.
    fn take_front<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], Fault> {
        let mut rest = bytes;
        loop {
            let whole = front_bytes(&self.front)?;
            if whole > HEAD_BYTES && self.front.len() == whole {
                break;
            }
            if rest.is_empty() {
                return Ok(rest);
            }
            let more;
            (more, rest) = rest.split_at(rest.len().min(whole - self.front.len()));
            self.front.extend_from_slice(more);
        }
        let (signed, signature) = self.front.split_at(self.front.len() - SIGNATURE_BYTES);
        verify(self.machine.key.as_ref(), signed, signature)?;
        let Some(manifest) = Manifest::parse(&signed[HEAD_BYTES..]) else {
            return ours(format_args!("has a manifest that makes no sense"), "make it anew");
        };
        self.front = Vec::new();
        self.look_at(&manifest)?;
        self.manifest = Some(manifest);
        self.stage = Stage::Taking;
        self.files.set_writable(true)?;
        self.clear()?;
        Ok(rest)
    }

    /// Whether it is for this box, newer than what runs, and fits.
    fn look_at(&self, manifest: &Manifest) -> Result<(), Fault> {
        let (Machine { running, board, .. }, files) = (&self.machine, &*self.files);
        if manifest.board != *board {
            let problem = format_args!("is for the board {}, and this is {board}", manifest.board);
            return ours(problem, "take the one for this board");
        }
        let own = slots::version_of(files, *running)?;
        let version = &manifest.version;
        if numbers(version) <= numbers(&own) {
            let problem = format_args!("is version {version}, and {own} runs already");
            return ours(problem, "take a newer one; to go back, flash the card anew");
        }
        let loader = slots::loader(files);
        let has = |name: &str| manifest.items.iter().any(|item| item.name == name);
        if loader == Loader::Unknown {
            let problem = format_args!("has neither loader/entries nor config.txt");
            return partition(problem, "flash the card anew");
        }
        if !has("kernel") || !has("initrd") || (loader == Loader::Config && !has(COMMAND_LINE)) {
            let problem = format_args!("lacks one of kernel, initrd and, on a Pi, {COMMAND_LINE}");
            return ours(problem, "make it of a whole slot");
        }
        let old = files.list(self.other().letter())?;
        let free = files.free_bytes()? + old.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let mut needed = SPARE_BYTES;
        for item in &manifest.items {
            needed = needed.saturating_add(item.bytes).saturating_add(CLUSTER_BYTES_MAX);
        }
        if needed > free {
            let problem = format_args!("needs {needed} bytes of /boot, which has room for {free}");
            return ours(problem, "flash a card with the new image");
        }
        Ok(())
    }

    /// From here on nothing starts the other slot, and nothing is left in it.
    fn clear(&mut self) -> io::Result<()> {
        let other = self.other();
        slots::retire(&mut *self.files, self.machine.running)?;
        self.files.make_folder(other.letter())?;
        for (name, _) in self.files.list(other.letter())? {
            self.files.remove(&std::format!("{other}/{name}"))?;
        }
        self.files.sync_folder(other.letter())?;
        self.files.sync_folder("")
    }

    /// The file that is next: its path, its length and its hash.
    fn next(&self) -> Option<(String, u64, [u8; 32])> {
        let item = self.manifest.as_ref()?.items.get(self.at.0)?;
        Some((std::format!("{}/{}", self.other(), item.name), item.bytes, item.sha256))
    }

    /// Takes of one file what there is; how much.
    fn take_file(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let Some((path, whole, sha256)) = self.next() else {
            return ours(format_args!("goes on after its end"), "fetch it once more");
        };
        let at = self.at.1;
        let unsynced = SYNCED_BYTES - at % SYNCED_BYTES;
        let taken = (whole - at).min(unsynced).min(bytes.len() as u64);
        let (ends, part) = (at + taken == whole, &bytes[..taken as usize]);
        self.files.write(&path, at, part)?;
        // In between too, so that the page cache of a small machine is not full of it.
        if ends || taken == unsynced {
            self.files.sync(&path)?;
        }
        if !self.goes_on(part, ends, &sha256) {
            return ours(format_args!("is garbled in {path}"), "fetch it once more");
        }
        Ok(part.len())
    }

    /// Reads on in what was written; whether there is more.
    fn read_back(&mut self, buffer: &mut [u8]) -> Result<bool, Fault> {
        let Some((path, whole, sha256)) = self.next() else { return Ok(false) };
        let at = self.at.1;
        let most = (whole - at).min(buffer.len() as u64) as usize;
        let read = self.files.read(&path, at, &mut buffer[..most])?;
        let ends = at + read as u64 == whole;
        if (read == 0 && !ends) || !self.goes_on(&buffer[..read], ends, &sha256) {
            let problem = format_args!("does not give back what was written to {path}");
            return partition(problem, "use another card");
        }
        Ok(true)
    }

    /// Some of the file that is next has been seen, perhaps its end; whether it is what it is to be.
    fn goes_on(&mut self, part: &[u8], ends: bool, sha256: &[u8; 32]) -> bool {
        self.hash.update(part);
        self.at.1 += part.len() as u64;
        if !ends {
            return true;
        }
        self.at = (self.at.0 + 1, 0);
        self.hash.finalize_reset()[..] == sha256[..]
    }

    /// All is there: it gets its version and its letter, and is started from now on.
    fn complete(&mut self, manifest: &Manifest) -> Result<(), Fault> {
        let (other, files) = (self.other(), &mut *self.files);
        if manifest.items.iter().any(|item| item.name == COMMAND_LINE) {
            let path = std::format!("{other}/{COMMAND_LINE}");
            let Some(at) = slots::letter_at(&read_small(files, &path)?) else {
                let problem = format_args!("does not say perennial.slot=a in its {COMMAND_LINE}");
                return ours(problem, "make it of a whole slot");
            };
            write_small(files, &path, at as u64, other.letter().as_bytes())?;
        }
        slots::write_version(files, other, &manifest.board, &manifest.version)?;
        Ok(slots::try_other(files, self.machine.running, &manifest.version)?)
    }

    fn take_in(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.taken += bytes.len() as u64;
        let mut rest = bytes;
        if self.manifest.is_none() {
            rest = self.take_front(bytes)?;
        }
        while !rest.is_empty() {
            let taken = self.take_file(rest)?;
            rest = &rest[taken..];
        }
        Ok(())
    }

    fn settle_down(&mut self, buffer: &mut [u8]) -> Result<Option<String>, Fault> {
        if self.stage != Stage::ReadingBack {
            // An empty file needs no bytes to be whole.
            while self.next().is_some_and(|(_, whole, _)| whole == 0) {
                self.take_file(&[])?;
            }
            if self.manifest.is_none() || self.next().is_some() {
                let problem = format_args!("is cut off after {} bytes", self.taken);
                return ours(problem, "fetch it once more");
            }
            self.files.sync_folder(self.other().letter())?;
            (self.stage, self.at) = (Stage::ReadingBack, (0, 0));
        }
        if self.read_back(buffer)? {
            return Ok(None);
        }
        let manifest = self.manifest.take().expect("it was there when this stage began");
        self.complete(&manifest)?;
        Ok(Some(manifest.version))
    }
}

impl Incoming for Update {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.take_in(bytes).map_err(|Fault(refusal)| refusal)
    }

    fn settle(&mut self, buffer: &mut [u8]) -> Result<Option<String>, Refusal> {
        self.settle_down(buffer).map_err(|Fault(refusal)| refusal)
    }
}

impl Drop for Update {
    fn drop(&mut self) {
        if self.stage != Stage::Looking {
            // Should it stay open to changes, nothing changes it.
            let _ = self.files.set_writable(false);
        }
    }
}

/// How long the front is, as far as is known: the head, then all of it.
fn front_bytes(front: &[u8]) -> Result<usize, Fault> {
    if !MAGIC.starts_with(&front[..front.len().min(MAGIC.len())]) {
        let remedy = "name the file that scripts/make-update made";
        return ours(format_args!("is no update of perennial"), remedy);
    }
    let Some(head) = front.get(MAGIC.len()..HEAD_BYTES) else { return Ok(HEAD_BYTES) };
    let number =
        |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (format, manifest) = (number(0), number(4) as usize);
    if format != FORMAT || manifest > MANIFEST_BYTES_MAX {
        let problem = format_args!(
            "is of format {format} with a manifest of {manifest} bytes, and this box reads format \
             {FORMAT} with one of at most {MANIFEST_BYTES_MAX}"
        );
        return ours(problem, "flash the card anew");
    }
    Ok(HEAD_BYTES + manifest + SIGNATURE_BYTES)
}

/// Whether it is signed by whoever may update this box.
#[cfg(feature = "tls")]
fn verify(key: Option<&[u8; 32]>, signed: &[u8], signature: &[u8]) -> Result<(), Fault> {
    use ring::signature::{ED25519, UnparsedPublicKey};
    let Some(key) = key else {
        let remedy = "flash an image that was made with one";
        return Err(Fault(Refusal::new("this image", "has no key to check updates with", remedy)));
    };
    if signature.iter().all(|byte| *byte == 0) {
        return ours(format_args!("is not signed"), "make it with scripts/make-update --key");
    }
    if UnparsedPublicKey::new(&ED25519, key).verify(signed, signature).is_err() {
        let problem = format_args!("is garbled, or signed with another key");
        return ours(problem, "take one signed with the key of this image");
    }
    Ok(())
}

/// The same without `ring`.
#[cfg(not(feature = "tls"))]
fn verify(_: Option<&[u8; 32]>, _: &[u8], _: &[u8]) -> Result<(), Fault> {
    let remedy = "flash an image whose program has the feature tls";
    Err(Fault(Refusal::new("the box", "cannot check who signed an update", remedy)))
}

/// What an update is, and what is in it.
#[derive(Default)]
struct Manifest {
    board: String,
    version: String,
    items: Vec<Item>,
}

struct Item {
    name: String,
    bytes: u64,
    sha256: [u8; 32],
}

impl Manifest {
    fn parse(text: &[u8]) -> Option<Manifest> {
        let mut manifest = Manifest::default();
        for line in std::str::from_utf8(text).ok()?.lines() {
            let (mut words, mut count) = ([""; 4], 0);
            for word in line.split(' ') {
                *words.get_mut(count)? = word;
                count += 1;
            }
            let [key, name, bytes, digits] = words;
            match (key, count) {
                ("board", 2) => manifest.board = name.to_string(),
                ("version", 2) => manifest.version = name.to_string(),
                ("file", 4) => {
                    // FAT tells no `Kernel` from a `kernel`.
                    let is_twice = |item: &Item| item.name.eq_ignore_ascii_case(name);
                    if !is_name(name) || manifest.items.iter().any(is_twice) {
                        return None;
                    }
                    let (name, bytes) = (name.to_string(), bytes.parse().ok()?);
                    manifest.items.push(Item { name, bytes, sha256: parse_hash(digits)? });
                }
                _ => return None,
            }
        }
        let makes_sense = is_name(&manifest.board) && numbers(&manifest.version).is_some();
        makes_sense.then_some(manifest)
    }
}

/// 64 hex digits.
fn parse_hash(digits: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    for (at, digit) in digits.chars().enumerate() {
        hash[at / 2] = hash[at / 2] << 4 | digit.to_digit(16)? as u8;
    }
    Some(hash)
}

/// A file's or a board's name: it leads nowhere, FAT keeps it as it is, and it is not the one the
/// box writes itself.
fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let ends = name.starts_with('.') || name.ends_with('.');
    let length = (1..=NAME_BYTES_MAX).contains(&name.len());
    length && !ends && name != slots::VERSION && name.bytes().all(is_plain)
}

/// A version: up to four numbers with dots between them; what is left out is 0.
fn numbers(version: &str) -> Option<[u32; 4]> {
    let mut numbers = [0; 4];
    for (at, part) in version.split('.').enumerate() {
        if part.starts_with('+') {
            return None;
        }
        *numbers.get_mut(at)? = part.parse().ok()?;
    }
    Some(numbers)
}

/// What is said of it, whoever's fault it is.
struct Fault(Refusal);

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        let problem = std::format!("cannot be read or written: {error}");
        let remedy = "try again, with another card if it stays so";
        Fault(Refusal::new("the boot partition", problem, remedy))
    }
}

fn ours<T>(problem: fmt::Arguments<'_>, remedy: &'static str) -> Result<T, Fault> {
    Err(Fault(Refusal::new("the update", problem, remedy)))
}

fn partition<T>(problem: fmt::Arguments<'_>, remedy: &'static str) -> Result<T, Fault> {
    Err(Fault(Refusal::new("the boot partition", problem, remedy)))
}

/// Of a public key.
const KEY_DIGITS: usize = 43;

/// What it begins with.
const MAGIC: &[u8; 16] = b"perennial update";

const FORMAT: u32 = 1;

const HEAD_BYTES: usize = MAGIC.len() + 4 + 4;

const SIGNATURE_BYTES: usize = 64;

/// A manifest at most: some 150 files.
pub const MANIFEST_BYTES_MAX: usize = 16 * 1024;

/// Names, in ASCII.
const NAME_BYTES_MAX: usize = 64;

/// On a Raspberry Pi the kernel's command line lies in the slot.
const COMMAND_LINE: &str = "cmdline.txt";

/// A file takes whole clusters, of up to so much.
const CLUSTER_BYTES_MAX: u64 = 32 * 1024;

/// Stays free: entries and folders need some of it.
const SPARE_BYTES: u64 = 256 * 1024;

/// Written at most before it is brought to the card.
const SYNCED_BYTES: u64 = 4 << 20;

#[cfg(test)]
mod tests;
