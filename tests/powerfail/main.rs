//! The journal, the library on top of it, and the loss of power.
//!
//! `cuts` cuts a scenario after every byte, `behaviour` holds what the journal promises besides,
//! `garbage` feeds it flash that nobody sane has written, and `file` runs it on a real file.
//! `library` cuts journal, slots, staging and look-up together, on a `disk` of them. `update` cuts
//! what replaces the system of a box that was flashed.

#[cfg(feature = "tls")]
#[path = "../support/mock_fat.rs"]
mod mock_fat;
#[path = "../support/mock_flash.rs"]
mod mock_flash;
#[path = "../support/prng.rs"]
mod prng;
#[cfg(feature = "tls")]
#[path = "../support/update.rs"]
mod update_file;

mod behaviour;
mod cuts;
mod disk;
#[cfg(feature = "std")]
mod file;
mod garbage;
mod library;
mod model;
#[cfg(feature = "tls")]
mod update;
