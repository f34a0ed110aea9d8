//! The front page.
#![no_std]

#[cfg(any(feature = "std", test))]
extern crate std;

pub mod engine;
#[cfg(feature = "std")]
pub mod service;
