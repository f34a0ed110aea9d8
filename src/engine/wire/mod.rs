//! The peer wire protocol as bytes: what a message looks like, nothing of when it is due.
//!
//! - [`handshake`]: the 68 bytes everything starts with (BEP 3)
//! - [`frame`]: what comes after, cut into messages without copying (BEP 3, 6, 10)
//! - [`message`]: the small messages we send
//! - [`fault`]: what a peer can do wrong
//! - [`extended`]: what travels inside message 20 (BEP 9, 10)
//!
//! Journey 2: `service/pump` hands received bytes to a [`Peer`](super::peer::Peer), whose
//! [`frame::Decoder`] cuts them; what the peer answers is written by [`message`] and leaves
//! through the same pump.

pub mod extended;
pub mod fault;
pub mod frame;
pub mod handshake;
pub mod message;

pub use fault::{PeerFault, Penalty};
