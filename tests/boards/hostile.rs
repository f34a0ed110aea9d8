//! Peers that stall, lie, drip or vanish. The honest one beside them gets every byte.

use crate::leecher::{
    Block, Leecher, MODERN, Manners, Message, PLAIN, bitfield, dial, extended, handshake, have,
    interested, message, request,
};
use crate::machine::{Board, Setting};
use crate::prng::Prng;
use crate::share::{Image, content};
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

/// All of them come to one board, one after another, while two sit there: one that asks and never
/// reads, and an honest one.
pub fn those_who_stall_lie_drip_or_vanish_harm_nobody(board: Board) {
    let image = Image::new(board);
    let mut machine = Setting::new(board, &image.path).start();
    let scene = Scene { address: machine.address, image: &image };
    let mut staller = scene.enter(Manners { receive_bytes: Some(4096), ..MODERN });
    let asked: Vec<u8> = image.torrent.blocks().iter().flat_map(|block| request(*block)).collect();
    // As much as it keeps; what it cannot keep it may reject, to somebody who does not read.
    let _ = staller.send(&asked[..17 * 64]);
    let mut honest = scene.enter(MODERN);
    scene.rubbish_is_shown_out();
    scene.lies_are_shown_out(&mut honest);
    scene.dripping_is_heard();
    for round in 0..10 {
        scene.vanish(round);
        assert!(scene.fetches_one_block(&mut honest, round));
    }
    let content_fetched = honest.fetch_all(&image.torrent, 32).unwrap();
    image.torrent.assert_is(&content_fetched, content());
    drop(honest);
    machine.wait_until("those who vanished are gone", |status| status.peers <= 1);

    let mut late = scene.enter(PLAIN);
    image.torrent.assert_is(&late.fetch_all(&image.torrent, 16).unwrap(), content());
    drop((late, staller));
    machine.wait_until("all are gone", |status| status.peers == 0);
    machine.quit();
}

struct Scene<'i> {
    address: SocketAddr,
    image: &'i Image,
}

impl Scene<'_> {
    fn enter(&self, manners: Manners) -> Leecher {
        // A line that was just closed may take a moment before it listens again.
        let enter = || Leecher::enter(self.address, self.image.torrent.info_hash, manners).ok();
        crate::program::wait_until("there is room", PATIENCE, enter, String::new)
    }

    fn fetches_one_block(&self, leecher: &mut Leecher, number: u32) -> bool {
        let torrent = &self.image.torrent;
        let block = torrent.blocks_of(number % torrent.piece_count()).next().expect("a piece");
        let mut came = 0;
        leecher.fetch([block], 1, |_, bytes| came += bytes.len()).unwrap().is_empty()
            && came == block.length as usize
    }

    /// What is said instead of a handshake.
    fn rubbish_is_shown_out(&self) {
        let mut noise = vec![0; 20_000];
        Prng::new(6881).fill(&mut noise);
        let hash = self.image.torrent.info_hash;
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: board\r\n\r\n".to_vec(),
            noise,
            vec![0; 68],
            handshake([7; 20], MODERN),
            handshake(hash, MODERN)[..20].iter().chain(&[0xff; 400]).copied().collect(),
        ] {
            let mut stream = dial(self.address, MODERN).unwrap();
            // The other side may have hung up before everything is written.
            let _ = stream.write_all(&bytes);
            let ended = stream.read_to_end(&mut Vec::new());
            let waited = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
            assert!(!ended.as_ref().is_err_and(waited), "it is not shown out: {bytes:?}");
        }
    }

    /// What is said after a handshake, and breaks a rule.
    fn lies_are_shown_out(&self, honest: &mut Leecher) {
        let count = self.image.torrent.piece_count();
        let ask = |piece, begin, length| request(Block { piece, begin, length });
        let bits = vec![0xff; count.div_ceil(8) as usize + 1];
        let lies = [
            vec![0xff, 0xff, 0xff, 0xff, 99],
            vec![0xff; 600],
            message(6, &[0; 11]),
            bitfield(&bits),
            have(count),
            have(u32::MAX),
            ask(count, 0, 16_384),
            ask(u32::MAX, 0, 16_384),
            ask(0, 0, 0),
            ask(0, 0, u32::MAX),
            ask(0, u32::MAX, 16_384),
            message(7, &[0; 8 + 16_384]),
            message(16, &[0; 12]),
            extended(0, b"rubbish"),
        ];
        for (number, lie) in (0..).zip(lies) {
            let mut liar = self.enter(MODERN);
            let _ = liar.send(&lie);
            liar.read_to_end().unwrap_or_else(|error| panic!("lie {number}: {error}"));
            assert!(self.fetches_one_block(honest, number), "after lie {number}");
        }
    }

    /// One byte a packet, handshake and all.
    fn dripping_is_heard(&self) {
        let stream = dial(self.address, PLAIN).unwrap();
        stream.set_nodelay(true).unwrap();
        let hash = self.image.torrent.info_hash;
        let hello = handshake(hash, PLAIN);
        for byte in &hello[..hello.len() - 1] {
            (&stream).write_all(&[*byte]).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        // The last byte by hand: what follows is read by a leecher, which greets for itself.
        (&stream).write_all(&hello[hello.len() - 1..]).unwrap();
        let mut theirs = [0; 68];
        (&stream).read_exact(&mut theirs).unwrap();
        assert_eq!(theirs[28..48], hash);
        drop(stream);

        let mut dripper = Leecher::connect(self.address, hash, PLAIN).unwrap();
        dripper.send_dripping(&interested()).unwrap();
        dripper.wait_for_unchoke().unwrap();
        let block = Block { piece: 0, begin: 0, length: 16_384 };
        dripper.send_dripping(&request(block)).unwrap();
        loop {
            if let Message::Piece(came, bytes) = dripper.receive().unwrap() {
                assert_eq!((came, bytes.len()), (block, 16_384));
                return;
            }
        }
    }

    /// Asks for a lot and is gone, without a goodbye.
    fn vanish(&self, round: u32) {
        let stream = dial(self.address, MODERN).unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        let hash = self.image.torrent.info_hash;
        let asked = self.image.torrent.blocks().into_iter().take(round as usize * 6).map(request);
        let bytes = [handshake(hash, MODERN), interested(), asked.flatten().collect()].concat();
        (&stream).write_all(&bytes).unwrap();
        let mut first = vec![0; 1 + 20 * round as usize];
        // It may be that every place is taken by those who vanished just now.
        let _ = (&stream).read(&mut first);
    }
}

/// How long a place may stay taken after its peer has left.
const PATIENCE: Duration = Duration::from_secs(20);
