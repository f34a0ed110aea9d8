//! The hour, asked of a time server (SNTP, RFC 4330): what is sent, and what an answer says.
//!
//! A board without a clock of its own wakes in 1970, and dates are unknown until somebody has told
//! them. Values only: `network` sends and hears.
//!
//! ```text
//! 0     LI 2 bits, version 3, mode 3      what of it counts here: unsynchronized? a server?
//! 1     stratum                           0: it wants to be left alone
//! 24    originate                         what we sent, so that nobody answers who did not hear it
//! 40    transmit                          seconds since 1900, and 2^-32 of one
//! ```

use crate::service::clock::KNOWN_S;
use std::time::Duration;

/// As long as a packet without extensions is.
pub const PACKET_BYTES: usize = 48;

/// Asks for the time. `nonce` is chance: an answer has to repeat it.
pub fn question(nonce: u64) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    packet[0] = VERSION_4 | MODE_CLIENT;
    packet[TRANSMIT..].copy_from_slice(&nonce.to_be_bytes());
    packet
}

/// What an answer says: the time since 1970 when it left. `None` when it answers something else, is
/// cut off, has not got the time itself, or is from before this program.
pub fn read(packet: &[u8], nonce: u64) -> Option<Duration> {
    let number = |at: usize| Some(u64::from_be_bytes(*packet.get(at..)?.first_chunk()?));
    let (first, stratum) = (*packet.first()?, *packet.get(1)?);
    let is_synchronized = first >> 6 != 3 && (1..16).contains(&stratum);
    if first & 7 != MODE_SERVER || !is_synchronized || number(ORIGINATE)? != nonce {
        return None;
    }
    let transmit = number(TRANSMIT)?;
    let (seconds, part) = (transmit >> 32, transmit & 0xffff_ffff);
    // The count starts again in 2036: small numbers are of the time after (RFC 4330, section 3).
    let era = if seconds >> 31 == 0 { 1 << 32 } else { 0 };
    let seconds = (seconds + era).checked_sub(FROM_1900_TO_1970_S)?;
    let nanoseconds = (part * 1_000_000_000) >> 32;
    (seconds >= KNOWN_S).then(|| Duration::new(seconds, nanoseconds as u32))
}

const FROM_1900_TO_1970_S: u64 = 2_208_988_800;
const VERSION_4: u8 = 4 << 3;
const MODE_CLIENT: u8 = 3;
const MODE_SERVER: u8 = 4;
const ORIGINATE: usize = 24;
const TRANSMIT: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(seconds_since_1900: u64, nonce: u64) -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        (packet[0], packet[1]) = (VERSION_4 | MODE_SERVER, 2);
        packet[ORIGINATE..ORIGINATE + 8].copy_from_slice(&nonce.to_be_bytes());
        let transmit = (seconds_since_1900 << 32) | 0x8000_0000;
        packet[TRANSMIT..].copy_from_slice(&transmit.to_be_bytes());
        packet
    }

    #[test]
    fn an_answer_says_the_time_also_after_the_count_has_started_again() {
        let half = Duration::from_millis(500);
        let in_2027 = 1_798_761_600;
        let packet = answer(in_2027 + FROM_1900_TO_1970_S, 77);
        assert_eq!(read(&packet, 77), Some(Duration::from_secs(in_2027) + half));
        let in_2040 = 2_208_988_800;
        let packet = answer((in_2040 + FROM_1900_TO_1970_S) & 0xffff_ffff, 77);
        assert_eq!(read(&packet, 77), Some(Duration::from_secs(in_2040) + half));
    }

    #[test]
    fn what_is_no_answer_of_a_server_that_knows_is_not_believed() {
        let packet = answer(1_798_761_600 + FROM_1900_TO_1970_S, 77);
        assert_eq!(read(&packet, 78), None, "it answers somebody else");
        for length in 0..PACKET_BYTES {
            assert_eq!(read(&packet[..length], 77), None);
        }
        for (at, byte) in [(0, VERSION_4 | MODE_CLIENT), (0, 0xe4), (1, 0), (1, 16), (1, 255)] {
            let mut wrong = packet;
            wrong[at] = byte;
            assert_eq!(read(&wrong, 77), None, "{at}: {byte}");
        }
        assert_eq!(read(&answer(3_900_000_000, 77), 77), None, "2023 has been");
    }

    #[test]
    fn a_question_is_one_of_a_client_and_answers_none() {
        let packet = question(0x0102_0304_0506_0708);
        assert_eq!((packet[0], packet[47]), (0x23, 8));
        assert_eq!(read(&packet, 0x0102_0304_0506_0708), None);
    }
}
