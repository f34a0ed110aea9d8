//! Peers that lie, flood, stall or send rubbish: they lose their connection, and nothing else
//! happens to anybody.

use crate::leecher::{
    Block, Leecher, MODERN, Manners, Message, Offered, PLAIN, bitfield, cancel, dial, extended,
    handshake, have, message, request,
};
use crate::program::{Call, Folder, Program};
use crate::torrent::Metainfo;
use crate::{assert_arrives, film};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A box that shares twenty pieces, with an honest leecher that came before everybody else.
struct Scene {
    program: Program,
    torrent: Metainfo,
    honest: Leecher,
    film: PathBuf,
    _home: Folder,
}

impl Scene {
    fn new(name: &str) -> Scene {
        let home = Folder::new(name);
        let film = film(&home, 20 * 16_384 - 100);
        let program = Call::share(&home, &[&film]).with(&["--piece-size", "16K"]).start();
        let share = &program.shares[0];
        let torrent = Metainfo::read(&share.torrent);
        let honest = Leecher::enter(program.address, share.info_hash, MODERN).unwrap();
        Scene { program, torrent, honest, film, _home: home }
    }

    /// The honest leecher is served on, and so is a newcomer; then all ends as it should.
    fn goes_on(mut self) {
        let content = self.honest.fetch_all(&self.torrent, 16).unwrap();
        self.torrent.assert_is(&content, &self.film);
        assert_arrives(&self.program, &self.program.shares[0], &self.film, PLAIN, 16);
        self.program.stop();
    }

    /// Sends these bytes instead of a handshake and waits for the end of the connection.
    fn says(&mut self, bytes: &[u8]) {
        let mut stream = dial(self.program.address, MODERN).unwrap();
        // The other side may have hung up before everything is written.
        let _ = stream.write_all(bytes);
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        }
    }

    /// Shakes hands, sends these bytes and waits for the end of the connection, which has to come
    /// of that fault.
    fn does(&mut self, manners: Manners, bytes: &[u8], fault: &str) {
        let info_hash = self.torrent.info_hash;
        let mut liar = Leecher::connect(self.program.address, info_hash, manners).unwrap();
        let _ = liar.send(bytes);
        liar.read_to_end().unwrap_or_else(|error| panic!("{fault}: {error}"));
        self.program.wait_for_words(&format!("Fault({fault})"));
        let block = Block { piece: 3, begin: 0, length: 16_384 };
        assert_eq!(self.honest.fetch([block], 1, |_, _| {}).unwrap(), []);
    }
}

#[test]
fn those_who_do_not_speak_bittorrent_are_let_go() {
    let mut scene = Scene::new("rubbish");
    let hash = scene.torrent.info_hash;
    scene.says(b"GET / HTTP/1.1\r\nHost: box\r\n\r\n");
    scene.says(&crate::bytes(1, 100_000));
    scene.says(&[0; 68]);
    scene.says(
        &[0x13].iter().copied().chain(*b"BitTorrent protocoI").chain([0; 48]).collect::<Vec<u8>>(),
    );
    scene.program.wait_for_words("Fault(NotBitTorrent)");
    scene.says(&handshake([7; 20], MODERN));
    scene.program.wait_for_words("Fault(UnknownTorrent)");
    // It hears its own name: it has dialled itself.
    let own = [&handshake(hash, MODERN)[..48], &scene.honest.peer_id].concat();
    scene.says(&own);
    scene.program.wait_for_words("Fault(Ourselves)");
    scene.goes_on();
}

#[test]
fn those_who_lie_are_let_go() {
    let mut scene = Scene::new("lies");
    let block = |piece, begin, length| request(Block { piece, begin, length });
    let plain_extended = Manners { extended: true, ..PLAIN };
    // Twenty pieces: three bytes, of which the last four bits are spare.
    for (manners, bytes, fault) in [
        (MODERN, vec![0xff, 0xff, 0xff, 0xff, 99], "FrameTooLong"),
        (PLAIN, vec![0, 4, 0, 1, 21], "FrameTooLong"),
        (MODERN, vec![0xff, 0xff, 0xff, 0xff, 6], "FrameLength"),
        (MODERN, vec![0, 0, 0, 2, 2, 2], "FrameLength"),
        (MODERN, message(6, &[0; 11]), "FrameLength"),
        (MODERN, message(4, &[]), "FrameLength"),
        (MODERN, bitfield(&[0; 4]), "BitfieldLength"),
        (MODERN, bitfield(&[0, 0, 1]), "BitfieldSpare"),
        (MODERN, have(20), "PieceRange"),
        (MODERN, have(u32::MAX), "PieceRange"),
        (MODERN, block(20, 0, 16_384), "PieceRange"),
        (MODERN, block(u32::MAX, 0, 16_384), "PieceRange"),
        (MODERN, block(0, 1, 16_384), "RequestRange"),
        (MODERN, block(0, 0, 0), "RequestRange"),
        (MODERN, block(0, 0, 32_769), "RequestRange"),
        (MODERN, block(0, u32::MAX, 16_384), "RequestRange"),
        (MODERN, block(0, 16_384, u32::MAX), "RequestRange"),
        (PLAIN, block(19, 0, 16_384), "RequestRange"),
        (MODERN, message(7, &[0; 8 + 16_384]), "Unrequested"),
        (MODERN, message(16, &[0; 12]), "Unrequested"),
        (plain_extended, message(16, &[0; 12]), "NotNegotiated"),
        (plain_extended, message(14, &[]), "NotNegotiated"),
        (plain_extended, message(15, &[]), "NotNegotiated"),
        (PLAIN, extended(0, b"de"), "NotNegotiated"),
        (MODERN, extended(0, b"rubbish"), "Extended"),
        (MODERN, extended(0, b"le"), "Extended"),
        (MODERN, extended(0, &[b'd'; 300]), "Extended"),
    ] {
        scene.does(manners, &bytes, fault);
    }
    scene.goes_on();
}

#[test]
fn those_who_flood_are_let_go() {
    let mut scene = Scene::new("floods");
    let block = Block { piece: 0, begin: 0, length: 16_384 };
    let metadata = [extended(0, b"d1:md11:ut_metadatai3eee"), Vec::new()].concat();
    let beyond = extended(1, b"d8:msg_typei0e5:piecei99999ee");
    for (manners, start, again) in [
        (MODERN, Vec::new(), vec![0; 4]),
        (PLAIN, Vec::new(), vec![0; 4]),
        // Never unchoked: it never said that it is interested.
        (MODERN, Vec::new(), request(block)),
        (PLAIN, Vec::new(), request(block)),
        (MODERN, Vec::new(), cancel(block)),
        (MODERN, Vec::new(), message(9, &[0; 2])),
        (MODERN, Vec::new(), message(99, &[0; 50])),
        (MODERN, Vec::new(), extended(77, b"de")),
        (MODERN, metadata, beyond),
    ] {
        scene.does(manners, &[start, again.repeat(20_000)].concat(), "Pointless");
    }
    scene.goes_on();
}

#[test]
fn a_peer_that_turns_its_mind_a_thousand_times_harms_nobody() {
    let mut scene = Scene::new("fickle");
    let hash = scene.torrent.info_hash;
    let mut fickle = Leecher::connect(scene.program.address, hash, MODERN).unwrap();
    let turns = [message(2, &[]), message(3, &[])].concat().repeat(5_000);
    let _ = fickle.send(&turns);
    let block = Block { piece: 3, begin: 0, length: 16_384 };
    assert_eq!(scene.honest.fetch([block], 1, |_, _| {}).unwrap(), []);
    scene.goes_on();
}

#[test]
fn who_asks_for_everything_and_reads_nothing_holds_up_nobody() {
    let mut scene = Scene::new("stalls");
    let hash = scene.torrent.info_hash;
    let manners = Manners { receive_bytes: Some(4_096), ..MODERN };
    let requests: Vec<u8> =
        scene.torrent.blocks().iter().flat_map(|block| request(*block)).collect();
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut leecher = Leecher::enter(scene.program.address, hash, manners).unwrap();
        leecher.send(&requests.repeat(10)).unwrap();
        stalled.push(leecher);
    }
    let content = scene.honest.fetch_all(&scene.torrent, 16).unwrap();
    scene.torrent.assert_is(&content, &scene.film);
    drop(stalled);
    scene.goes_on();
}

#[test]
fn who_shakes_no_hands_is_let_go_in_time_and_keeps_nobody_out() {
    let scene = Scene::new("silent");
    let from = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)));
    let silent = Manners { from, ..MODERN };
    let asked = Instant::now();
    let mut waiting: Vec<_> =
        (0..8).map(|_| dial(scene.program.address, silent).unwrap()).collect();
    // Half a handshake is none.
    let half = &handshake(scene.torrent.info_hash, silent)[..40];
    waiting[0].write_all(half).unwrap();
    assert_arrives(&scene.program, &scene.program.shares[0], &scene.film, MODERN, 16);
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    for mut stream in waiting {
        match stream.read(&mut [0]) {
            Ok(read) => assert_eq!(read, 0),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
    let waited = asked.elapsed();
    assert!(waited > Duration::from_secs(4) && waited < Duration::from_secs(9), "{waited:?}");
    scene.program.wait_for_words("Fault(HandshakeLate)");
    scene.goes_on();
}

#[test]
fn a_peer_that_has_everything_is_told_goodbye() {
    let scene = Scene::new("seed");
    let hash = scene.torrent.info_hash;
    for bytes in [message(14, &[]), bitfield(&[0xff, 0xff, 0xf0])] {
        let mut seed = Leecher::connect(scene.program.address, hash, MODERN).unwrap();
        seed.send(&bytes).unwrap();
        seed.read_to_end().unwrap();
    }
    scene.program.wait_for_words("Farewell(Complete)");
    scene.goes_on();
}

#[test]
fn a_connection_cut_in_the_middle_of_a_block_frees_its_place() {
    let scene = Scene::new("cut");
    let hash = scene.torrent.info_hash;
    // More often than one address may have connections.
    for round in 0..60 {
        let mut leecher = Leecher::enter(scene.program.address, hash, MODERN).unwrap();
        let blocks = scene.torrent.blocks();
        let requests: Vec<u8> = blocks.iter().flat_map(|block| request(*block)).collect();
        leecher.send(&requests[..requests.len() - round % 17]).unwrap();
        while !matches!(leecher.receive().unwrap(), Message::Piece(..)) {}
        assert_eq!(leecher.wait_for_offer().unwrap(), Offered::All);
    }
    scene.goes_on();
}
