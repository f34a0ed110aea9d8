//! Default gateways, as the kernel lists them under `/proc/net`.
//!
//! ```text
//! route       Iface Destination Gateway Flags RefCnt Use Metric Mask ..     hexadecimal, as stored
//! ipv6_route  destination length source length gateway metric refcnt use flags device
//! ```
//!
//! A line that is not understood is passed over, and of several gateways the one with the smallest
//! metric is taken. At most [`LINES_MAX`] lines are read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::string::{String, ToString};
use std::vec::Vec;

/// The router to the rest of IPv4, if there is one.
pub fn gateway_v4() -> Option<Ipv4Addr> {
    best(open("/proc/net/route").ok()?, parse_v4)
}

/// The router to the rest of IPv6, and the interface it is on.
pub fn gateway_v6() -> Option<(Ipv6Addr, String)> {
    best(open("/proc/net/ipv6_route").ok()?, parse_v6)
}

fn open(path: &str) -> io::Result<impl BufRead> {
    File::open(path).map(BufReader::new)
}

/// What the line with the smallest metric says.
fn best<G>(mut lines: impl BufRead, parse: impl Fn(&[&str]) -> Option<(u32, G)>) -> Option<G> {
    let mut best: Option<(u32, G)> = None;
    let mut line = Vec::new();
    for _ in 0..LINES_MAX {
        line.clear();
        // A line that does not end is cut up, and none of its parts is understood.
        let read = (&mut lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        if !read.is_ok_and(|bytes| bytes > 0) {
            break;
        }
        let Ok(line) = core::str::from_utf8(&line) else { continue };
        let fields: Vec<&str> = line.split_ascii_whitespace().take(FIELDS_MAX).collect();
        if let Some(found) = parse(&fields)
            && best.as_ref().is_none_or(|(metric, _)| found.0 < *metric)
        {
            best = Some(found);
        }
    }
    best.map(|(_, gateway)| gateway)
}

fn parse_v4(fields: &[&str]) -> Option<(u32, Ipv4Addr)> {
    let [_, destination, gateway, flags, _, _, metric, mask, ..] = fields else { return None };
    let number = |field: &str| u32::from_str_radix(field, 16).ok();
    // Addresses stand there as they lie in memory.
    let gateway = Ipv4Addr::from(number(gateway)?.to_ne_bytes());
    let is_default = number(destination)? == 0 && number(mask)? == 0;
    let is_usable = number(flags)? & USABLE == USABLE && !gateway.is_unspecified();
    (is_default && is_usable).then_some((metric.parse().ok()?, gateway))
}

fn parse_v6(fields: &[&str]) -> Option<(u32, (Ipv6Addr, String))> {
    let [destination, length, _, source_length, gateway, metric, _, _, flags, device] = fields
    else {
        return None;
    };
    let number = |field: &str| u32::from_str_radix(field, 16).ok();
    let address = |field: &str| {
        let bits = (field.len() == 32).then(|| u128::from_str_radix(field, 16).ok());
        bits.flatten().map(Ipv6Addr::from)
    };
    let gateway = address(gateway)?;
    let is_default = address(destination)?.is_unspecified()
        && (number(length)?, number(source_length)?) == (0, 0);
    let is_usable = number(flags)? & USABLE == USABLE && !gateway.is_unspecified();
    (is_default && is_usable).then_some((number(metric)?, (gateway, device.to_string())))
}

/// `RTF_UP` and `RTF_GATEWAY`.
const USABLE: u32 = 3;

/// Lines that are read; a machine that knows more routes is a router itself.
const LINES_MAX: usize = 4_096;

/// Longer than any line.
const LINE_BYTES_MAX: u64 = 512;

/// More than any line has.
const FIELDS_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n";

    fn v4(lines: &str) -> Option<Ipv4Addr> {
        best((std::format!("{HEAD}{lines}")).as_bytes(), parse_v4)
    }

    /// As this machine's kernel would write it.
    fn hex(address: &str) -> String {
        let octets = address.parse::<Ipv4Addr>().unwrap().octets();
        std::format!("{:08X}", u32::from_ne_bytes(octets))
    }

    #[test]
    fn the_default_route_with_the_smallest_metric_leads_to_the_gateway() {
        let line = |gateway, flags, metric, mask| {
            let gateway = hex(gateway);
            std::format!("eth0\t00000000\t{gateway}\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0   \n")
        };
        let near = line("192.168.1.1", "0003", "100", "00000000");
        let far = line("10.0.0.1", "0003", "600", "00000000");
        let first: Option<Ipv4Addr> = Some("192.168.1.1".parse().unwrap());
        assert_eq!(v4(&(far.clone() + &near)), first);
        assert_eq!(v4(&near), first);
        // Down, on the link itself, half of the Internet, no gateway.
        for line in [
            line("192.168.1.1", "0002", "0", "00000000"),
            line("192.168.1.1", "0001", "0", "00000000"),
            line("192.168.1.1", "0003", "0", "00000080"),
            line("0.0.0.0", "0003", "0", "00000000"),
        ] {
            assert_eq!(v4(&line), None, "{line}");
            assert_eq!(v4(&(line + &far)), Some("10.0.0.1".parse().unwrap()));
        }
        assert_eq!(v4(""), None);
    }

    #[test]
    fn the_default_route_of_ipv6_names_its_interface() {
        let zero = "0".repeat(32);
        let gateway = "fe80000000000000021122fffe334455";
        let line = |metric, flags| {
            std::format!(
                "{zero} 00 {zero} 00 {gateway} {metric} 00000001 00000000 {flags}    eth0\n"
            )
        };
        let found = Some(("fe80::211:22ff:fe33:4455".parse().unwrap(), "eth0".to_string()));
        assert_eq!(best(line("00000400", "00000003").as_bytes(), parse_v6), found);
        // What the kernel writes where there is none: unreachable, on the loopback device.
        let none =
            std::format!("{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200 lo\n");
        assert_eq!(best(none.as_bytes(), parse_v6), None);
        assert_eq!(best((none + &line("00000400", "00450003")).as_bytes(), parse_v6), found);
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        let good = std::format!("e 00000000 {} 0003 0 0 0 00000000\n", hex("10.0.0.1"));
        let rubbish =
            std::format!("\n\u{fffd}\n{}\ne 0 zz\n-1 -1 -1 -1 -1 -1 -1 -1\n", "x".repeat(5_000));
        assert_eq!(v4(&(rubbish.clone() + &good)), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(best([b'\xff', b'\n'].repeat(9).as_slice(), parse_v4), None);
        assert_eq!(best(rubbish.as_bytes(), parse_v6), None);
        let endless = "e\n".repeat(LINES_MAX) + &good;
        assert_eq!(best(endless.as_bytes(), parse_v4), None);
    }
}
