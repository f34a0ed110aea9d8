//! What the kernel tells of devices that come and go (`uevents`).
//!
//! One datagram each: `add@/devices/...`, then `KEY=value`, each ended by a zero byte.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use std::io;

/// A device that has come, gone or changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uevent<'b> {
    /// `add`, `remove`, `change` or another.
    pub action: &'b str,
    /// Where it is in `/sys`.
    pub path: &'b str,
    /// What it is, such as `block` or `input`.
    pub subsystem: &'b str,
    /// Its file in `/dev`, if it has one.
    pub name: &'b str,
    /// What modules are found by.
    pub alias: &'b str,
}

impl<'b> Uevent<'b> {
    /// Reads a datagram; what is lacking is empty. `None` when it is no word of the kernel's.
    pub fn read(bytes: &'b [u8]) -> Option<Uevent<'b>> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split('\0');
        lines.next()?.split_once('@')?;
        let mut event = Uevent::default();
        for (key, value) in lines.filter_map(|line| line.split_once('=')) {
            match key {
                "ACTION" => event.action = value,
                "DEVPATH" => event.path = value,
                "SUBSYSTEM" => event.subsystem = value,
                "DEVNAME" => event.name = value,
                "MODALIAS" => event.alias = value,
                _ => {}
            }
        }
        Some(event)
    }
}

/// Hears them.
pub struct Ear(OwnedFd);

impl Ear {
    /// From here on none is missed, but for what the kernel has no room to keep.
    pub fn open() -> io::Result<Ear> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let family = AddressFamily::NETLINK;
        let socket = socket_with(family, SocketType::DGRAM, flags, Some(netlink::KOBJECT_UEVENT))?;
        // Group 1 is the kernel; nobody else may send to it.
        bind(&socket, &SocketAddrNetlink::new(0, 1))?;
        Ok(Ear(socket))
    }

    /// Readable when there is one.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Handles those there are.
    pub fn drain(&self, mut handle: impl FnMut(Uevent<'_>)) {
        let mut buffer = [0; DATAGRAM_BYTES];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => {
                    if let Some(event) = Uevent::read(&buffer[..length]) {
                        handle(event);
                    }
                }
                // Some were lost; the next look at a device shows how it is.
                Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

/// The kernel's are not longer (`UEVENT_BUFFER_SIZE`).
const DATAGRAM_BYTES: usize = 2048 + 256;

#[cfg(test)]
mod tests {
    use super::*;

    const STICK: &[u8] = b"add@/devices/usb1/block/sda/sda1\0ACTION=add\0\
        DEVPATH=/devices/usb1/block/sda/sda1\0SUBSYSTEM=block\0MAJOR=8\0DEVNAME=sda1\0SEQNUM=9\0";

    #[test]
    fn a_stick_that_is_plugged_in_is_understood() {
        let event = Uevent::read(STICK).unwrap();
        let path = "/devices/usb1/block/sda/sda1";
        let (subsystem, name) = ("block", "sda1");
        assert_eq!(event, Uevent { action: "add", path, subsystem, name, alias: "" });
    }

    #[test]
    fn hostile_bytes_say_nothing() {
        for bytes in [&b""[..], b"libudev\0\xfe\xed", b"add", b"\xff@\0ACTION=add\0"] {
            assert_eq!(Uevent::read(bytes), None);
        }
        for length in 4..STICK.len() {
            let event = Uevent::read(&STICK[..length]);
            assert!(event.is_some(), "{length} bytes are the front of one");
        }
        assert_eq!(Uevent::read(b"x@\0=\0==\0ACTION\0"), Some(Uevent::default()));
    }
}
