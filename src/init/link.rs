//! Network interfaces: which there are, and how they are told their address (`rtnetlink(7)`).
//!
//! A message is a head of 16 bytes, a body of the kind's own, and attributes: length, kind, bytes,
//! each on a multiple of four. Each is answered by one that says 0, or an error's number.
//!
//! ```text
//! RTM_NEWLINK  ifinfomsg    up                  RTM_NEWADDR  ifaddrmsg  address, broadcast
//! RTM_NEWROUTE rtmsg        gateway, interface  RTM_DELADDR  ifaddrmsg  address (and its routes go)
//! ```

use super::{names_in, read};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with,
};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::string::String;
use std::time::Duration;
use std::vec::Vec;

/// An interface with a cable, or for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wired {
    /// What the kernel calls it.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Its address on the cable.
    pub hardware: [u8; 6],
    /// Something is at the other end. Known only once it is up.
    pub has_carrier: bool,
}

/// All wired interfaces, by name.
pub fn wired() -> Vec<Wired> {
    all_in(Path::new("/sys/class/net"))
}

fn all_in(class: &Path) -> Vec<Wired> {
    names_in(class).iter().filter_map(|name| Wired::read(&class.join(name))).collect()
}

impl Wired {
    /// What the kernel says of an interface, if it is a wired one: of Ethernet's kind, made of
    /// hardware, and without a radio.
    fn read(folder: &Path) -> Option<Wired> {
        let text = |file: &str| read(&folder.join(file));
        let name = folder.file_name()?.to_str()?.into();
        let is_wired = text("type") == ETHERNET
            && folder.join("device").exists()
            && !folder.join("phy80211").exists();
        let index = text("ifindex").parse().ok()?;
        let (address, mut hardware) = (text("address"), [0; 6]);
        let mut bytes = address.split(':');
        for byte in &mut hardware {
            *byte = u8::from_str_radix(bytes.next()?, 16).ok()?;
        }
        let has_carrier = text("carrier") == "1";
        is_wired.then_some(Wired { name, index, hardware, has_carrier })
    }
}

/// The way to tell the kernel.
pub struct Links {
    socket: OwnedFd,
    /// Hears that interfaces come, go and change.
    ear: OwnedFd,
}

impl Links {
    /// Opens it.
    pub fn open() -> io::Result<Links> {
        let open = |flags, groups| -> io::Result<OwnedFd> {
            // Without another protocol it is the one for routes.
            let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
            bind(&socket, &SocketAddrNetlink::new(0, groups))?;
            Ok(socket)
        };
        let socket = open(SocketFlags::CLOEXEC, 0)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        let ear = open(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, CHANGES_OF_LINKS)?;
        Ok(Links { socket, ear })
    }

    /// Readable when an interface has come, gone or changed.
    pub fn ear(&self) -> BorrowedFd<'_> {
        self.ear.as_fd()
    }

    /// Whether one has since the last time. What it was is looked up: messages may get lost.
    pub fn have_changed(&self) -> bool {
        let (mut buffer, mut any) = ([0; 4096], false);
        // When more came than the kernel keeps, that is told by an error once.
        while !matches!(
            recv(&self.ear, &mut buffer[..], RecvFlags::empty()),
            Err(Errno::AGAIN | Errno::BADF)
        ) {
            any = true;
        }
        any
    }

    /// Switches an interface on.
    pub fn bring_up(&self, index: u32) -> io::Result<()> {
        let mut message = Message::new(NEW_LINK, 0);
        message.put(&[0, 0, 0, 0]).put(&index.to_ne_bytes());
        message.put(&IS_UP.to_ne_bytes()).put(&IS_UP.to_ne_bytes());
        self.ask(message)
    }

    /// Gives an interface an address, on a network of so many bits.
    pub fn add_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = Message::of_address(NEW_ADDRESS, CREATE | REPLACE, index, prefix);
        let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let everybody = Ipv4Addr::from_bits(address.to_bits() | host_bits);
        message.attribute(IFA_LOCAL, &address.octets());
        message.attribute(IFA_ADDRESS, &address.octets());
        message.attribute(IFA_BROADCAST, &everybody.octets());
        self.ask(message)
    }

    /// Takes it away, and the routes that need it.
    pub fn drop_address(&self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = Message::of_address(DROP_ADDRESS, 0, index, prefix);
        message.attribute(IFA_LOCAL, &address.octets());
        self.ask(message)
    }

    /// What is not for this network goes through `router`.
    pub fn route_through(&self, index: u32, router: Ipv4Addr) -> io::Result<()> {
        let mut message = Message::new(NEW_ROUTE, CREATE | REPLACE);
        message.put(&[INET, 0, 0, 0, TABLE_MAIN, BY_DHCP, UNIVERSE, UNICAST, 0, 0, 0, 0]);
        message.attribute(RTA_GATEWAY, &router.octets());
        message.attribute(RTA_OIF, &index.to_ne_bytes());
        self.ask(message)
    }

    fn ask(&self, message: Message) -> io::Result<()> {
        send(&self.socket, &message.finish(), SendFlags::empty())?;
        let mut buffer = [0; 1024];
        let (length, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
        outcome(&buffer[..length]).unwrap_or_else(|| Err(io::ErrorKind::InvalidData.into()))
    }
}

/// What an answer says; `None` when it is none.
fn outcome(answer: &[u8]) -> Option<io::Result<()>> {
    let kind = u16::from_ne_bytes(*answer.get(4..)?.first_chunk()?);
    let error = i32::from_ne_bytes(*answer.get(HEAD_BYTES..)?.first_chunk()?);
    (kind == ERROR).then(|| match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
    })
}

/// A message for the kernel, in the making.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Message {
        let mut message = Message(Vec::with_capacity(128));
        message.put(&[0; 4]).put(&kind.to_ne_bytes());
        message.put(&(REQUEST | ANSWER | flags).to_ne_bytes()).put(&[0; 8]);
        message
    }

    fn of_address(kind: u16, flags: u16, index: u32, prefix: u8) -> Message {
        let mut message = Message::new(kind, flags);
        message.put(&[INET, prefix, 0, UNIVERSE]).put(&index.to_ne_bytes());
        message
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Message {
        self.0.extend_from_slice(bytes);
        self
    }

    /// All of ours hold a multiple of four bytes.
    fn attribute(&mut self, kind: u16, bytes: &[u8]) {
        let length = 4 + bytes.len() as u16;
        self.put(&length.to_ne_bytes()).put(&kind.to_ne_bytes()).put(bytes);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// The kernel answers at once, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(2);

/// `ARPHRD_ETHER`.
const ETHERNET: &str = "1";

// linux/netlink.h, linux/rtnetlink.h, linux/if_addr.h, linux/if.h
const HEAD_BYTES: usize = 16;
const ERROR: u16 = 2;
const REQUEST: u16 = 1;
const ANSWER: u16 = 4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const DROP_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const CHANGES_OF_LINKS: u32 = 1;
const IS_UP: u32 = 1;
const INET: u8 = 2;
const UNIVERSE: u8 = 0;
const UNICAST: u8 = 1;
const TABLE_MAIN: u8 = 254;
const BY_DHCP: u8 = 16;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::test_folder::TestFolder;
    use std::fs;

    #[test]
    fn only_interfaces_of_cables_are_wired() {
        let folder = TestFolder::new("interfaces");
        let make = |name: &str, kind: &str, device: bool, radio: bool| {
            let place = folder.path().join(name);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("type"), kind).unwrap();
            fs::write(place.join("ifindex"), "7\n").unwrap();
            fs::write(place.join("address"), "52:54:00:12:34:5f\n").unwrap();
            fs::write(place.join("carrier"), "1\n").unwrap();
            [(device, "device"), (radio, "phy80211")].iter().for_each(|(is, what)| {
                is.then(|| fs::create_dir(place.join(what)).unwrap());
            });
        };
        make("lo", "772\n", false, false);
        make("wlan0", "1\n", true, true);
        make("dummy0", "1\n", false, false);
        make("usb0", "1\n", true, false);
        make("eth0", "1\n", true, false);
        fs::write(folder.path().join("bonding_masters"), "").unwrap();
        let names: Vec<_> = all_in(folder.path()).into_iter().map(|one| one.name).collect();
        assert_eq!(names, ["eth0", "usb0"]);
        let hardware = [0x52, 0x54, 0, 0x12, 0x34, 0x5f];
        let eth0 = Wired { name: "eth0".into(), index: 7, hardware, has_carrier: true };
        assert_eq!(all_in(folder.path())[0], eth0);
        assert!(all_in(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn answers_say_what_came_of_it_and_hostile_ones_nothing() {
        let answer = |kind: u16, error: i32| {
            let mut bytes = std::vec![0; HEAD_BYTES];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend(error.to_ne_bytes());
            bytes
        };
        assert!(matches!(outcome(&answer(ERROR, 0)), Some(Ok(()))));
        let refused = outcome(&answer(ERROR, -17)).unwrap().unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert!(outcome(&answer(ERROR, i32::MIN)).unwrap().is_err());
        assert!(outcome(&answer(NEW_LINK, 0)).is_none());
        (0..20).for_each(|length| assert!(outcome(&answer(ERROR, 0)[..length]).is_none()));
    }

    #[test]
    fn a_message_says_how_long_it_is() {
        let mut message = Message::of_address(NEW_ADDRESS, CREATE, 3, 24);
        message.attribute(IFA_LOCAL, &[10, 0, 2, 15]);
        let bytes = message.finish();
        assert_eq!(bytes.len(), HEAD_BYTES + 8 + 8);
        assert_eq!(bytes[..4], 32_u32.to_ne_bytes());
        assert_eq!(bytes[24..], [8, 0, 2, 0, 10, 0, 2, 15]);
    }
}
