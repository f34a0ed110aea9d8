//! The box is claimed: its secret or a password is brought, and a token given for it.

use super::Web;
use super::head::{self, value_of};
use super::reply::{Reply, Status};
use super::routes::Ask;
use crate::service::handout::{Errand, Outcome};
use crate::service::{Refusal, owner};
use std::net::IpAddr;
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

    /// A token for the secret, if it is the right one. One claim at a time is looked at, with all that
    /// follows from it.
    pub(super) async fn take_claim(
        &self,
        address: IpAddr,
        secret: &str,
        device: &str,
    ) -> Result<Option<String>, Refusal> {
        let Some(page) = &self.steward.page else { return Ok(None) };
        let _turn = page.turn.lock().await;
        let now = self.steward.service.clock.now();
        if self.gate.wait_ms(address, now) > 0 {
            let remedy = "try again in a while";
            return Err(Refusal::new("the secret", "came too soon after wrong ones", remedy));
        }
        let is_right = page.owner.borrow().is_secret(secret) || self.is_password(secret).await?;
        if !is_right {
            self.gate.note_wrong(address, now);
            return Ok(None);
        }
        self.gate.note_right(address);
        let token = page.owner.borrow_mut().admit(device)?;
        if let Err(refusal) = self.keep_owner().await {
            // Nobody is told of it.
            page.owner.borrow_mut().leave(&token);
            return Err(refusal);
        }
        Ok(Some(token))
    }

    pub(super) async fn leave(&self, ask: &Ask) -> Reply {
        if let (Some(page), Some(token)) = (&self.steward.page, &ask.visitor.token) {
            let _turn = page.turn.lock().await;
            page.owner.borrow_mut().leave(token);
            if let Err(refusal) = self.keep_owner().await {
                return self.refused_page(ask, &refusal);
            }
        }
        let gone = std::format!("Set-Cookie: {}=; Path=/; Max-Age=0", head::COOKIE);
        Reply::redirect(Status::SEE_OTHER, "/").with(&gone)
    }

    /// Whether that is the password that was chosen, if one was.
    async fn is_password(&self, text: &str) -> Result<bool, Refusal> {
        let mib = self.steward.keeper.options.board.pools.password_mib;
        let chosen = self.steward.page.as_ref().and_then(|page| {
            let owner = page.owner.borrow();
            owner.password().cloned()
        });
        let Some(password) = chosen.filter(|_| mib > 0 && text.len() <= PASSWORD_BYTES_MAX) else {
            return Ok(false);
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
        match self.choose_password(ask, text, mib).await {
            Ok(()) => Reply::redirect(Status::SEE_OTHER, "/box"),
            Err(refusal) => self.refused_page(ask, &refusal),
        }
    }

    async fn choose_password(&self, ask: &Ask, text: String, mib: u8) -> Result<(), Refusal> {
        let Some(page) = &self.steward.page else { return Ok(()) };
        let _turn = page.turn.lock().await;
        let token = ask.visitor.token.as_deref();
        if !token.is_some_and(|token| page.owner.borrow().knows(token)) {
            let remedy = "bring the new one, from /claim";
            return Err(Refusal::new("the secret", "has been made anew meanwhile", remedy));
        }
        let mut chosen = None;
        if !text.is_empty() {
            chosen = match self.hand_out(Errand::Password { text, is: None, mib }).await {
                Outcome::Chosen(password) => Some(password?),
                _ => unreachable!("a lane answers what it was asked"),
            };
        }
        page.owner.borrow_mut().set_password(chosen);
        self.keep_owner().await
    }

    /// Keeps what has changed; in the turn of whoever has changed it.
    async fn keep_owner(&self) -> Result<(), Refusal> {
        let Some(page) = &self.steward.page else { return Ok(()) };
        let owner: owner::Owner = page.owner.borrow().clone();
        self.steward.keeper.archive.ask(move |state| owner.save(state.path())).await
    }
}

/// A password at least, and at most.
const PASSWORD_CHARS_MIN: usize = 10;
const PASSWORD_BYTES_MAX: usize = 200;
