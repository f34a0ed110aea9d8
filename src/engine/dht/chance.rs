//! Numbers nobody can guess, and the tokens made of them.
//!
//! One seed from the service is all the chance a node needs: SHA-1 over it and a counter gives
//! names and transaction numbers, over it and an address gives tokens. A token is what a node must
//! bring back to announce: it proves that it hears what is sent to its address (BEP 5, *DHT
//! Queries*). None is kept. What makes one is the seed, the address and the number of the current
//! five minutes, so it changes without a timer and is checked by making it again.

use super::endpoint::Endpoint;
use crate::engine::digest::PieceHasher;
use crate::engine::units::Instant;

/// A source of numbers, and a maker of tokens.
pub struct Chance {
    seed: [u8; 16],
    drawn: u64,
}

/// What a node must bring back to announce.
pub type Token = [u8; TOKEN_BYTES];

impl Chance {
    /// Numbers and tokens that follow from `seed`.
    pub fn new(seed: [u8; 16]) -> Chance {
        Chance { seed, drawn: 0 }
    }

    /// Twenty bytes of chance.
    pub fn bytes(&mut self) -> [u8; 20] {
        self.drawn += 1;
        self.hash(b"draw", self.drawn, &[])
    }

    /// Thirty-two bits of chance.
    pub fn number(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// The token of whoever is at this address now.
    pub fn token(&self, of: Endpoint, now: Instant) -> Token {
        self.token_of_term(of, now.as_millis() / TOKEN_TERM_MS)
    }

    /// Whether a token was given to that address lately: in this term or in the one before.
    pub fn knows_token(&self, token: &[u8], of: Endpoint, now: Instant) -> bool {
        let term = now.as_millis() / TOKEN_TERM_MS;
        [term, term.wrapping_sub(1)].iter().any(|term| self.token_of_term(of, *term) == *token)
    }

    /// A number for an address that strangers cannot steer.
    pub fn place(&self, crowd: u64) -> u64 {
        let hash = self.hash(b"place", crowd, &[]);
        hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn token_of_term(&self, of: Endpoint, term: u64) -> Token {
        let hash = self.hash(b"token", term, of.ip_bytes());
        core::array::from_fn(|at| hash[at])
    }

    fn hash(&self, use_of_it: &[u8], number: u64, more: &[u8]) -> [u8; 20] {
        let mut hasher = PieceHasher::default();
        hasher.update(&self.seed);
        hasher.update(use_of_it);
        hasher.update(&number.to_be_bytes());
        hasher.update(more);
        hasher.finish()
    }
}

/// Bytes of a token: who sends random ones at full speed for ten minutes guesses none.
pub const TOKEN_BYTES: usize = 8;

/// How long a token is given out; it is good for one term longer (BEP 5, *Overview*: a secret that
/// changes every five minutes, and tokens up to ten minutes old).
const TOKEN_TERM_MS: u64 = 300_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_five_to_ten_minutes_and_for_one_address() {
        let chance = Chance::new([7; 16]);
        let [here, there] =
            ["192.0.2.1:1", "192.0.2.2:1"].map(|text| Endpoint::of(text.parse().unwrap()));
        let given = Instant::from_millis(10 * TOKEN_TERM_MS + 1);
        let token = chance.token(here, given);
        assert!(chance.knows_token(&token, here.with_port(9), given));
        assert!(chance.knows_token(&token, here, given.after(2 * TOKEN_TERM_MS - 2)));
        assert!(!chance.knows_token(&token, here, given.after(2 * TOKEN_TERM_MS - 1)));
        assert!(!chance.knows_token(&token, there, given));
        assert!(!chance.knows_token(&token[..7], here, given));
        assert!(!Chance::new([8; 16]).knows_token(&token, here, given));
    }

    #[test]
    fn no_number_comes_twice() {
        let mut chance = Chance::new([7; 16]);
        let drawn: [u32; 100] = core::array::from_fn(|_| chance.number());
        assert!((1..100).all(|at| !drawn[..at].contains(&drawn[at])));
    }
}
