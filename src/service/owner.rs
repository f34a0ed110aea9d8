//! Who may change things over the page: whoever has claimed the box.
//!
//! ```text
//! first start -> a secret of 128 bits, told once and kept in STATE/owner.json
//! a browser brings it -> a token of its own, of which only the SHA-256 is kept here
//! ```
//!
//! Secrets and tokens are random, so their hashes need neither salt nor work, and are compared
//! instead of them: how long that takes says nothing of what was guessed. Whoever can read the
//! state folder is the owner anyway. A secret that somebody saw is replaced by
//! `perennial claim --reset`, which lets every browser go.
//!
//! # When full
//! Of more than [`DEVICES_MAX`] browsers the one that claimed first is let go.

use super::state::{refused, replace};
use super::{Refusal, clock};
use argon2::{Algorithm, Argon2, Params, Version};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use smol::lock::Mutex;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::string::String;
use std::vec::Vec;
use std::{fs, io};

/// The box's page.
pub struct Page {
    /// Where it is.
    pub at: SocketAddr,
    /// Who may change things over it.
    pub owner: RefCell<Owner>,
    /// Held from a change of that until it is kept, so that what is kept last is what is so.
    pub turn: Mutex<()>,
}

/// The box's secret, and who has brought it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// 32 hex digits.
    secret: String,
    devices: Vec<Device>,
    /// What does as well as the secret, and is easier to remember.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<Password>,
    /// It has been made just now, and nobody was told.
    #[serde(skip)]
    pub is_new: bool,
}

/// A browser or program that has claimed the box.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// What its owner calls it.
    pub name: String,
    /// When it came, in seconds since 1970.
    pub since_s: u64,
    /// SHA-256 of its token, in hex.
    token: String,
}

/// A password that was chosen, as Argon2id of it (RFC 9106): people choose what can be guessed, so
/// each guess is to cost memory and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Password {
    salt: String,
    hash: String,
}

impl Password {
    /// Hashes one, in so much memory. Takes a good part of a second: on a lane.
    pub fn choose(text: &str, mib: u8) -> Result<Password, Refusal> {
        let salt = new_secret()?;
        let hash = argon2id(text, &salt, mib)?;
        Ok(Password { salt, hash })
    }

    /// Whether that is it. As long: on a lane.
    pub fn is(&self, text: &str, mib: u8) -> Result<bool, Refusal> {
        // Both are hashes, of which none is known before; how long comparing takes tells nothing.
        Ok(argon2id(text, &self.salt, mib)? == self.hash)
    }
}

fn argon2id(text: &str, salt: &str, mib: u8) -> Result<String, Refusal> {
    let failed = |error| Refusal::new("the password", error, "claim the box with its secret");
    let params = Params::new(u32::from(mib) << 10, ROUNDS, 1, None).map_err(failed)?;
    let mut hash = [0; 32];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into(text.as_bytes(), salt.as_bytes(), &mut hash).map_err(failed)?;
    Ok(hex(&hash))
}

impl Owner {
    /// Reads what is kept in a state folder, or makes a secret when there is none.
    pub fn open(folder: &Path) -> Result<Owner, Refusal> {
        let path = folder.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => match Owner::parse(&bytes) {
                Ok(owner) => Ok(owner),
                Err(error) => {
                    let kept = folder.join(DAMAGED);
                    fs::rename(&path, &kept).map_err(|error| refused(&path, error))?;
                    warn!(
                        "{}: {error}; it is kept as {DAMAGED}, and the box is to be claimed anew",
                        path.display()
                    );
                    Owner::reset(folder)
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Owner::reset(folder),
            Err(error) => Err(refused(&path, error)),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Owner, String> {
        let owner: Owner =
            serde_json::from_slice(bytes).map_err(|error| std::format!("{error}"))?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        match owner.secret.len() == SECRET_DIGITS && owner.secret.bytes().all(is_digit) {
            true => Ok(owner),
            false => Err(String::from("its secret is none")),
        }
    }

    /// What is kept in a state folder, if anything that can be read is.
    pub fn kept(folder: &Path) -> Option<Owner> {
        Owner::parse(&fs::read(folder.join(FILE)).ok()?).ok()
    }

    /// Makes a new secret; nobody has brought it yet.
    pub fn reset(folder: &Path) -> Result<Owner, Refusal> {
        let (secret, devices) = (new_secret()?, Vec::new());
        let owner = Owner { secret, devices, password: None, is_new: true };
        owner.save(folder).map(|()| owner)
    }

    /// Keeps it. Waits for the disk.
    pub fn save(&self, folder: &Path) -> Result<(), Refusal> {
        let path = folder.join(FILE);
        let bytes = serde_json::to_vec_pretty(self);
        let bytes = bytes.map_err(|error| Refusal::new(path.display(), error, "report this"))?;
        replace(&path, &bytes).map_err(|error| refused(&path, error))
    }

    /// What the owner brings.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Whether somebody has brought it.
    pub fn is_claimed(&self) -> bool {
        !self.devices.is_empty()
    }

    /// Who has.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Whether that is the secret, however it was typed.
    pub fn is_secret(&self, text: &str) -> bool {
        let brought: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        hash(&brought.to_ascii_lowercase()) == hash(&self.secret)
    }

    /// Gives a token of 32 hex digits to whoever has brought the secret, or the password.
    pub fn admit(&mut self, name: &str) -> Result<String, Refusal> {
        let token = new_secret()?;
        if self.devices.len() == DEVICES_MAX {
            self.devices.remove(0);
        }
        let name = name.trim().chars().filter(|char| !char.is_control());
        let name = name.take(NAME_CHARS_MAX).collect();
        self.devices.push(Device { name, since_s: clock::unix_s(), token: hash(&token) });
        Ok(token)
    }

    /// What a password is to be like, if one was chosen.
    pub fn password(&self) -> Option<&Password> {
        self.password.as_ref()
    }

    /// Another password, or none.
    pub fn set_password(&mut self, password: Option<Password>) {
        self.password = password;
    }

    /// Whether a token is one that was given.
    pub fn knows(&self, token: &str) -> bool {
        let hash = hash(token);
        self.devices.iter().any(|device| device.token == hash)
    }

    /// A token is given back.
    pub fn leave(&mut self, token: &str) {
        let hash = hash(token);
        self.devices.retain(|device| device.token != hash);
    }
}

/// What a page of ours sends with what it changes: nobody who has not its owner's token can say it.
pub fn form_token(token: &str) -> String {
    let mut whole = hash(&std::format!("form {token}"));
    whole.truncate(32);
    whole
}

fn hash(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    hex(&digest)
}

fn new_secret() -> Result<String, Refusal> {
    let mut bytes = [0; 16];
    match getrandom(&mut bytes, GetRandomFlags::empty()) {
        Ok(16) => Ok(hex(&bytes)),
        _ => {
            let problem = "gives no randomness, and a secret that can be guessed is none";
            Err(Refusal::new("the system", problem, "look at why getrandom(2) fails"))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A secret as it is easily typed: in fours.
pub fn in_fours(secret: &str) -> String {
    let spaced = secret.char_indices().flat_map(|(at, char)| {
        let space = (at > 0 && at % 4 == 0).then_some(' ');
        space.into_iter().chain([char])
    });
    spaced.collect()
}

/// The address that brings the secret along. It stands behind a `#`, so that it goes no further than
/// the browser, whose script puts it into the form.
pub fn claim_link(page: &str, secret: &str) -> String {
    std::format!("{page}claim#{secret}")
}

/// Of a secret, and of a token.
const SECRET_DIGITS: usize = 32;

/// Its name in the state folder.
const FILE: &str = "owner.json";

/// One that could not be read.
const DAMAGED: &str = "owner.damaged.json";

/// Browsers and programs that are known.
pub const DEVICES_MAX: usize = 32;

/// Times the memory is gone through (with 7 MiB five, as OWASP advises).
const ROUNDS: u32 = 5;

/// Of a device's name.
const NAME_CHARS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::test_folder::TestFolder;

    #[test]
    fn whoever_brings_the_secret_is_known_from_then_on_and_after_a_restart() {
        let folder = TestFolder::new("owner");
        let mut owner = Owner::open(folder.path()).unwrap();
        assert!(owner.is_new && !owner.is_claimed() && owner.secret().len() == 32);
        assert!(!owner.is_secret("0123") && !owner.is_secret(""));
        assert!(owner.is_secret(&in_fours(&owner.secret().to_ascii_uppercase())));
        let token = owner.admit(" phone\u{7} ").unwrap();
        assert!(owner.knows(&token) && !owner.knows(owner.secret()) && !owner.knows(""));
        assert_eq!(owner.devices()[0].name, "phone");
        owner.save(folder.path()).unwrap();
        let kept = fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(!kept.contains(&token), "a token is not kept");
        let mut again = Owner::open(folder.path()).unwrap();
        assert!(again.knows(&token) && !again.is_new);
        again.leave(&token);
        assert!(!again.knows(&token));
        let reset = Owner::reset(folder.path()).unwrap();
        assert!(reset.secret() != owner.secret() && !reset.knows(&token));
    }

    #[test]
    fn what_is_no_secret_is_put_aside_and_lets_nobody_in() {
        for kept in ["{", "{\"secret\":\"\",\"devices\":[]}", "{\"secret\":\"zz\",\"devices\":[]}"]
        {
            let folder = TestFolder::new("owner-damaged");
            fs::write(folder.path().join(FILE), kept).unwrap();
            let owner = Owner::open(folder.path()).unwrap();
            assert!(owner.is_new && owner.secret().len() == SECRET_DIGITS && !owner.is_secret(""));
            assert_eq!(fs::read_to_string(folder.path().join(DAMAGED)).unwrap(), kept);
        }
    }

    #[test]
    fn a_password_is_known_by_its_hash_and_goes_with_the_secret() {
        let folder = TestFolder::new("owner-password");
        let mut owner = Owner::open(folder.path()).unwrap();
        let chosen = Password::choose("correct horse", 1).unwrap();
        assert_ne!(chosen, Password::choose("correct horse", 1).unwrap(), "each has its salt");
        owner.set_password(Some(chosen));
        owner.save(folder.path()).unwrap();
        let kept = Owner::open(folder.path()).unwrap();
        let password = kept.password().unwrap();
        assert!(password.is("correct horse", 1).unwrap());
        assert!(!password.is("correct house", 1).unwrap() && !password.is("", 1).unwrap());
        assert!(Owner::reset(folder.path()).unwrap().password().is_none());
    }

    #[test]
    fn of_too_many_devices_the_first_is_let_go() {
        let folder = TestFolder::new("owner-many");
        let mut owner = Owner::open(folder.path()).unwrap();
        let mut claim = || owner.admit("one").unwrap();
        let first = claim();
        let last = (0..DEVICES_MAX).map(|_| claim()).last().unwrap();
        assert_eq!(owner.devices().len(), DEVICES_MAX);
        assert!(!owner.knows(&first) && owner.knows(&last));
    }
}
