//! A running box and its command line, without the box: both ends of the control socket.
//!
//! [`fake`] answers for a service that has any number of torrents, on the real socket, clock and
//! executor. [`socket`] is what the socket holds against clients that are slow, stuck, wrong or
//! strangers, [`pages`] what long answers take, [`commands`] what the real program says.

#![cfg(feature = "std")]

#[path = "../support/program.rs"]
mod program;

mod commands;
mod fake;
mod pages;
mod peak;
mod socket;

#[global_allocator]
static ALLOCATOR: peak::PeakAlloc = peak::PeakAlloc;

/// Waits until something is so.
fn wait_until(what: &str, probe: impl Fn() -> bool) {
    let limit = std::time::Duration::from_secs(20);
    program::wait_until(what, limit, || probe().then_some(()), String::new);
}
