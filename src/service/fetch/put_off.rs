//! Torrents that could not be begun: where they were to go is wrong, say, or its disk is not there.
//!
//! Each is left alone until the owner names it again, or for a while; others have its place
//! meanwhile. What was wrong is said when it is another thing than the last time.

use super::Desk;
use crate::engine::units::InfoHash;
use crate::service::Refusal;
use std::string::{String, ToString};

/// A torrent that could not be begun.
pub struct PutOff {
    info_hash: InfoHash,
    why: String,
    /// It is not tried for now; else `why` is what was wrong the last time.
    waits: bool,
}

impl Desk {
    /// A torrent could not be begun and is left alone for a while; whether that is news.
    ///
    /// # When full
    /// The one that was put off first is tried again earlier.
    pub fn put_off(&self, info_hash: InfoHash, why: &Refusal) -> bool {
        let (mut all, why) = (self.put_off.borrow_mut(), why.to_string());
        let before = all.iter().position(|one| one.info_hash == info_hash);
        let before = before.and_then(|at| all.remove(at));
        if all.len() >= PUT_OFF_MAX {
            all.pop_front();
        }
        let is_news = before.is_none_or(|before| before.why != why);
        all.push_back(PutOff { info_hash, why, waits: true });
        is_news
    }

    /// Why a torrent is left alone for now.
    pub fn why_put_off(&self, info_hash: &InfoHash) -> Option<String> {
        let all = self.put_off.borrow();
        let found = all.iter().find(|one| one.info_hash == *info_hash && one.waits);
        found.map(|one| one.why.clone())
    }

    /// Those that were put off may be tried again: one of them, or all. Whether there are any.
    pub fn take_up_again(&self, info_hash: Option<&InfoHash>) -> bool {
        let mut all = self.put_off.borrow_mut();
        let is_meant = |one: &&mut PutOff| info_hash.is_none_or(|meant| one.info_hash == *meant);
        all.iter_mut().filter(is_meant).map(|one| one.waits = false).count() > 0
    }

    /// Something is left alone for now.
    pub fn has_put_off(&self) -> bool {
        self.put_off.borrow().iter().any(|one| one.waits)
    }
}

/// Torrents that could not be begun and are remembered.
const PUT_OFF_MAX: usize = 64;
