//! A peer asks for a torrent that is at rest, and a torrent that nobody uses rests.

use perennial::engine::metainfo::Layout;
use perennial::engine::peer::request::Request;
use perennial::engine::peer::{Output, Peer};
use perennial::engine::swarm::Swarm;
use perennial::engine::swarm::pool::Pool;
use perennial::engine::swarm::roster::Farewell;
use perennial::engine::swarm::torrent::{Have, Torrent};
use perennial::engine::units::{InfoHash, Instant, PeerSlot, TorrentSlot};
use perennial::engine::wire::PeerFault;

use crate::fake_peer::{self as say, Speaks};
use crate::world::{Board, address, swarm_of};

const NAME: [u8; 20] = [7; 20];
const SLOT: PeerSlot = PeerSlot(0);

/// Room for one bitfield.
const BITS: usize = Pool::lent_bytes(64);

fn torrent(have: Have) -> Torrent {
    let layout = Layout { total_bytes: 1 << 20, piece_bytes: 32 << 10 };
    let info_hash = InfoHash::V1(NAME);
    Torrent { info_hash, layout, metadata_bytes: 900, have, private: false, sent_bytes: 0 }
}

/// A box of one place for a torrent and two for peers, and a caller that has shaken hands.
fn with_a_caller(rests: bool, then: impl FnOnce(&mut Swarm<'_>, &mut Peer<'_>, Instant)) {
    let board =
        Board { peers_max: 2, spare_pumps: 0, torrents_max: 1, bits_bytes: BITS, ..Board::ROOMY };
    let (mut swarm, mut requests) = (swarm_of(&board), [Request::default(); 4]);
    swarm.torrents_rest = rests;
    let now = Instant::from_millis(1_000);
    let mut peer = Peer::accepted(SLOT, address(1, 5_000), &mut requests, now);
    then(&mut swarm, &mut peer, now);
}

/// What the caller says: a handshake, and no more than there is appetite for.
fn call(swarm: &mut Swarm<'_>, peer: &mut Peer<'_>, now: Instant) -> Result<(), PeerFault> {
    let mut said = say::handshake(NAME, [9; 20], Speaks::ALL);
    said.extend(say::interested());
    let heard = peer.appetite(swarm).min(said.len());
    peer.handle_received(&said[..heard], now, swarm)?;
    let rest = peer.appetite(swarm).min(said.len() - heard);
    peer.handle_received(&said[heard..][..rest], now, swarm)
}

fn says_something(swarm: &mut Swarm<'_>, peer: &mut Peer<'_>, now: Instant) -> bool {
    matches!(peer.poll_output(now, swarm), Output::Bytes(_))
}

#[test]
fn who_asks_for_a_torrent_at_rest_waits_until_it_is_active() {
    with_a_caller(true, |swarm, peer, now| {
        call(swarm, peer, now).unwrap();
        assert_eq!((peer.sought(), peer.appetite(swarm)), (Some(NAME), 0));
        assert!(!says_something(swarm, peer, now));
        swarm.activate(torrent(Have::All)).unwrap();
        peer.handle_sought(now, swarm).unwrap();
        assert_eq!((peer.sought(), peer.torrent()), (None, Some(TorrentSlot(0))));
        assert!(peer.appetite(swarm) > 0 && says_something(swarm, peer, now));
    });
}

#[test]
fn who_asks_for_what_does_not_exist_goes() {
    with_a_caller(true, |swarm, peer, now| {
        call(swarm, peer, now).unwrap();
        assert_eq!(peer.handle_sought(now, swarm), Err(PeerFault::UnknownTorrent));
        // Nobody waits for ever, whatever becomes of the search.
        assert_eq!(peer.handle_time(now.after(60_000)), Err(PeerFault::HandshakeLate));
    });
    with_a_caller(false, |swarm, peer, now| {
        assert_eq!(call(swarm, peer, now), Err(PeerFault::UnknownTorrent));
    });
}

#[test]
fn a_torrent_rests_once_nobody_is_connected_for_it() {
    with_a_caller(true, |swarm, peer, now| {
        let span = swarm.take_bits(32).unwrap();
        let slot = swarm.activate(torrent(Have::Some(span))).unwrap();
        swarm.candidates.note(slot, address(2, 5_000), now);
        call(swarm, peer, now).unwrap();
        assert!(!swarm.rest(slot) && swarm.is_active(slot));
        swarm.withdraw(slot);
        assert!(matches!(peer.poll_output(now, swarm), Output::Close(Farewell::Withdrawn)));
        swarm.leave(SLOT, now);
        assert!(swarm.rest(slot) && !swarm.rest(slot) && !swarm.is_active(slot));
        // Nothing is left of it: not its bits, nor who was known for it.
        assert!(swarm.take_bits(512).is_some() && swarm.candidates.count() == 0);
        assert_eq!(swarm.find(&NAME), None);
    });
}
