//! The box is claimed: its secret or a password is brought, and a token given for it.

use super::Web;
use super::head::{self, value_of};
use super::reply::{Reply, Status};
use super::routes::Ask;
use crate::service::handout::{Errand, Outcome};
use crate::service::{Refusal, owner};
use std::string::{String, ToString as _};

impl Web<'_, '_, '_> {
    /// A secret is brought.
    pub(super) async fn claim(&self, ask: &Ask, body: &[u8]) -> Reply {
        let now = self.steward.service.clock.now();
        let visitor = &ask.visitor;
        if let Some(barred) = self.gate.bars_claim(visitor, &ask.head, now) {
            return self.claim_refused(ask, barred);
        }
        let secret = value_of(body, "secret").unwrap_or_default();
        let device = value_of(body, "device").unwrap_or_default();
        let device = if device.trim().is_empty() { "a browser".into() } else { device };
        match self.take_claim(visitor.address, &secret, &device).await {
            Ok(Some(token)) => {
                let cookie = std::format!(
                    "Set-Cookie: {}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age=31536000",
                    head::COOKIE
                );
                Reply::redirect(Status::SEE_OTHER, "/").with(&cookie)
            }
            Ok(None) => {
                let words = "this is not the secret of this box: `perennial claim` prints it";
                self.claim_refused(ask, Reply::words(Status::FORBIDDEN, words))
            }
            Err(refusal) => self.refused_page(ask, &refusal),
        }
    }

    /// A token for the secret, if it is the right one.
    pub(super) async fn take_claim(
        &self,
        address: std::net::IpAddr,
        secret: &str,
        device: &str,
    ) -> Result<Option<String>, Refusal> {
        let Some(page) = &self.steward.page else { return Ok(None) };
        let now = self.steward.service.clock.now();
        let mut claimed = page.owner.borrow_mut().claim(secret, device)?;
        if claimed.is_none() && self.is_password(secret).await? {
            claimed = Some(page.owner.borrow_mut().admit(device)?);
        }
        match claimed {
            None => self.gate.note_wrong(address, now),
            Some(_) => {
                self.gate.note_right(address);
                self.keep_owner().await?;
            }
        }
        Ok(claimed)
    }

    pub(super) async fn leave(&self, ask: &Ask) -> Reply {
        if let (Some(page), Some(token)) = (&self.steward.page, &ask.visitor.token) {
            page.owner.borrow_mut().leave(token);
            if let Err(refusal) = self.keep_owner().await {
                return self.refused_page(ask, &refusal);
            }
        }
        let gone = std::format!("Set-Cookie: {}=; Path=/; Max-Age=0", head::COOKIE);
        Reply::redirect(Status::SEE_OTHER, "/").with(&gone)
    }

    /// Whether that is the password that was chosen, if one was. One at a time is looked at.
    async fn is_password(&self, text: &str) -> Result<bool, Refusal> {
        let mib = self.steward.keeper.options.board.pools.password_mib;
        let chosen = self.steward.page.as_ref().and_then(|page| {
            let owner = page.owner.borrow();
            owner.password().cloned()
        });
        let Some(password) = chosen.filter(|_| mib > 0 && text.len() <= PASSWORD_BYTES_MAX) else {
            return Ok(false);
        };
        let Some(_place) = self.passwords.take() else {
            let problem = "is being looked at for somebody else";
            return Err(Refusal::new("the password", problem, "try again in a second"));
        };
        let (text, is) = (text.to_string(), Some(password));
        match self.hand_out(Errand::Password { text, is, mib }).await {
            Outcome::Is(is) => is,
            _ => unreachable!("a lane answers what it was asked"),
        }
    }

    /// A password is chosen, or with nothing in the form given up.
    pub(super) async fn password(&self, ask: &Ask, body: &[u8]) -> Reply {
        let text = value_of(body, "password").unwrap_or_default();
        let mib = self.steward.keeper.options.board.pools.password_mib;
        let objection = match text.chars().count() {
            _ if mib == 0 => Some("needs more memory than this board has for it"),
            0 => None,
            1..PASSWORD_CHARS_MIN => Some("is shorter than 10 letters"),
            _ if text.len() > PASSWORD_BYTES_MAX => Some("is longer than 200 bytes"),
            _ => None,
        };
        if let Some(problem) = objection {
            let remedy = "choose another, or claim the box with its secret";
            return self.refused_page(ask, &Refusal::new("the password", problem, remedy));
        }
        match self.choose_password(text, mib).await {
            Ok(()) => Reply::redirect(Status::SEE_OTHER, "/box"),
            Err(refusal) => self.refused_page(ask, &refusal),
        }
    }

    async fn choose_password(&self, text: String, mib: u8) -> Result<(), Refusal> {
        let Some(page) = &self.steward.page else { return Ok(()) };
        let mut chosen = None;
        if !text.is_empty() {
            let Some(_place) = self.passwords.take() else {
                let problem = "is being looked at for somebody else";
                return Err(Refusal::new("the password", problem, "try again in a second"));
            };
            chosen = match self.hand_out(Errand::Password { text, is: None, mib }).await {
                Outcome::Chosen(password) => Some(password?),
                _ => unreachable!("a lane answers what it was asked"),
            };
        }
        page.owner.borrow_mut().set_password(chosen);
        self.keep_owner().await
    }

    async fn keep_owner(&self) -> Result<(), Refusal> {
        let Some(page) = &self.steward.page else { return Ok(()) };
        let owner: owner::Owner = page.owner.borrow().clone();
        self.steward.keeper.archive.ask(move |state| owner.save(state.path())).await
    }
}

/// A password at least, and at most.
const PASSWORD_CHARS_MIN: usize = 10;
const PASSWORD_BYTES_MAX: usize = 200;
