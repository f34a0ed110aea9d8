//! What a node does with single datagrams, and with a great many that are none.

use super::message::{self, Answer, Ask, Message, Want};
use super::*;
use std::vec;
use std::vec::Vec;

const START: Instant = Instant::from_millis(3_600_000);

fn settings(family: Family) -> Settings {
    Settings { family, seed: [5; 16], read_only: false, has_twin: false, allow_private: false }
}

fn node(settings: Settings) -> Dht<'static> {
    let memory = DhtMemory {
        nodes: vec![None; 64].leak(),
        peers: vec![None; 32].leak(),
        searches: vec![None; 2].leak(),
    };
    Dht::new(settings, memory)
}

fn stranger(number: u8) -> SocketAddr {
    SocketAddr::from(([20 + number / 4, number, number, 1], 6_881))
}

fn query(asker: u8, ask: &Ask<'_>, read_only: bool) -> Vec<u8> {
    let mut bytes = heapless::Vec::<u8, 512>::new();
    message::write_query(&mut bytes, *b"abcd", &NodeId([asker; 20]), read_only, ask).unwrap();
    bytes.to_vec()
}

/// Everything that is sent until the node waits.
fn sent(dht: &mut Dht<'_>, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut sent = Vec::new();
    loop {
        match dht.poll_output(now) {
            Output::Send { to, bytes } => sent.push((to, bytes.to_vec())),
            Output::Wait(deadline) => {
                assert!(deadline.at > now, "{} is due again and again", deadline.why);
                return sent;
            }
            _ => {}
        }
    }
}

/// Asks something and reads the answer, if there is one.
fn answer_to(dht: &mut Dht<'_>, from: SocketAddr, bytes: &[u8], now: Instant) -> Option<Vec<u8>> {
    dht.handle_datagram(from, bytes, now, None);
    let sent = sent(dht, now);
    sent.into_iter().map(|(_, bytes)| bytes).find(|bytes| !is_query(bytes))
}

fn is_query(bytes: &[u8]) -> bool {
    matches!(message::parse(bytes, Family::V4), Some(Message::Query(_)))
}

fn read(bytes: &[u8]) -> Answer<'_> {
    match message::parse(bytes, Family::V4) {
        Some(Message::Answer(answer)) => answer,
        other => panic!("no answer: {other:?}"),
    }
}

/// A node that is known: it was heard of, and it answers whatever it is asked.
fn befriend(dht: &mut Dht<'_>, number: u8, now: Instant) {
    let from = stranger(number);
    dht.handle_datagram(from, &query(number, &Ask::Ping, false), now, None);
    for (to, bytes) in sent(dht, now) {
        let Some(Message::Query(asked)) = message::parse(&bytes, Family::V4) else { continue };
        if to == from {
            let mut reply = heapless::Vec::<u8, 512>::new();
            let own = NodeId([number; 20]);
            let content =
                message::Content { own: &own, nodes: None, nodes6: None, token: None, values: &[] };
            let to = Endpoint::of(stranger(99));
            message::write_answer(&mut reply, asked.transaction, to, &content).unwrap();
            dht.handle_datagram(from, &reply, now, None);
        }
    }
    sent(dht, now);
}

const HASH: NodeId = NodeId([0x33; 20]);

#[test]
fn a_peer_is_taken_note_of_with_a_token_and_told_to_others() {
    let mut dht = node(settings(Family::V4));
    let ask = query(1, &Ask::GetPeers(HASH, Want::only(Family::V4)), true);
    let reply = answer_to(&mut dht, stranger(1), &ask, START).unwrap();
    let token = read(&reply).token.unwrap().to_vec();
    assert_eq!(read(&reply).peers().count(), 0);
    let announce =
        |port, token: &[u8]| query(1, &Ask::AnnouncePeer { info_hash: HASH, port, token }, true);
    // Another's token, or none of ours, is refused with 203.
    let refused = answer_to(&mut dht, stranger(2), &announce(Some(5), &token), START).unwrap();
    assert!(refused.windows(4).any(|bytes| bytes == b"i203"));
    let refused = answer_to(&mut dht, stranger(1), &announce(Some(5), b"12345678"), START).unwrap();
    assert!(matches!(message::parse(&refused, Family::V4), Some(Message::Refusal(b"abcd"))));
    assert_eq!(dht.stored_count(START), 0);
    read(&answer_to(&mut dht, stranger(1), &announce(Some(5), &token), START).unwrap());
    let told = answer_to(&mut dht, stranger(3), &ask, START).unwrap();
    let mut peer = stranger(1);
    peer.set_port(5);
    assert!(read(&told).peers().eq([Endpoint::of(peer)]));
    // Without a port the one it speaks from counts.
    read(&answer_to(&mut dht, stranger(1), &announce(None, &token), START).unwrap());
    let told = answer_to(&mut dht, stranger(3), &ask, START).unwrap();
    assert!(read(&told).peers().eq([Endpoint::of(stranger(1))]));
}

#[test]
fn an_unknown_method_is_answered_with_204_and_garbage_with_nothing() {
    let mut dht = node(settings(Family::V4));
    let text = b"d1:ad2:id20:abcdefghij0123456789e1:q4:vote1:t2:aa1:y1:qe";
    let reply = answer_to(&mut dht, stranger(1), text, START).unwrap();
    assert!(reply.windows(4).any(|bytes| bytes == b"i204"));
    for text in [&b""[..], b"d", b"hello", b"d1:y1:qe", b"d1:t2:aa1:y1:re"] {
        assert_eq!(answer_to(&mut dht, stranger(1), text, START), None);
    }
    assert_eq!(dht.counts().dropped, 5);
}

#[test]
fn a_read_only_node_answers_nothing_says_so_and_is_kept_by_nobody() {
    let mut dht = node(Settings { read_only: true, ..settings(Family::V4) });
    assert_eq!(answer_to(&mut dht, stranger(1), &query(1, &Ask::Ping, false), START), None);
    dht.add_contact(stranger(2));
    let asked = sent(&mut dht, START);
    assert!(asked[0].1.windows(7).any(|bytes| bytes == b"2:roi1e"));
    let mut other = node(settings(Family::V4));
    assert!(answer_to(&mut other, stranger(1), &query(1, &Ask::Ping, true), START).is_some());
    assert_eq!(other.contact_counts(), (0, 0));
    assert!(answer_to(&mut other, stranger(1), &query(1, &Ask::Ping, false), START).is_some());
    assert_eq!(other.contact_counts(), (1, 0));
}

#[test]
fn nodes_come_in_when_they_answer_and_are_told_when_they_have() {
    let mut dht = node(settings(Family::V4));
    (1..=5).for_each(|number| befriend(&mut dht, number, START));
    dht.handle_datagram(stranger(6), &query(6, &Ask::Ping, false), START, None);
    sent(&mut dht, START);
    assert_eq!(dht.contact_counts(), (6, 5));
    let ask = query(9, &Ask::FindNode(NodeId([2; 20]), Want::only(Family::V4)), true);
    let reply = answer_to(&mut dht, stranger(9), &ask, START).unwrap();
    let told: Vec<_> = read(&reply).nodes(Family::V4).collect();
    assert_eq!(told.len(), 5);
    assert_eq!(told[0], (NodeId([2; 20]), Endpoint::of(stranger(2))));
}

#[test]
fn nodes_of_the_other_family_are_told_when_they_are_asked_for() {
    let mut dht = node(settings(Family::V4));
    (1..=2).for_each(|number| befriend(&mut dht, number, START));
    let mut twin = node(settings(Family::V6));
    let ask = query(9, &Ask::FindNode(HASH, Want::BOTH), true);
    let from: SocketAddr = "[2001:db8::9]:9".parse().unwrap();
    twin.handle_datagram(from, &ask, START, Some(&dht));
    let reply = sent(&mut twin, START);
    assert_eq!(read(&reply[0].1).nodes(Family::V4).count(), 2);
    assert_eq!(read(&reply[0].1).nodes(Family::V6).count(), 0);
}

#[test]
fn while_we_join_nodes_of_both_families_are_asked_for_and_handed_on() {
    let mut dht = node(Settings { has_twin: true, ..settings(Family::V4) });
    dht.add_entry(stranger(1));
    let asked = sent(&mut dht, START);
    let Some(Message::Query(query)) = message::parse(&asked[0].1, Family::V4) else { panic!() };
    assert!(matches!(query.ask, Ask::FindNode(_, Want::BOTH)));
    let [public, private] =
        ["[2001:db8::7]:7", "[fe80::1]:7"].map(|text| Endpoint::of(text.parse().unwrap()));
    let content = message::Content {
        own: &NodeId([1; 20]),
        nodes: Some(&[(NodeId([2; 20]), Endpoint::of(stranger(2)))]),
        nodes6: Some(&[(NodeId([7; 20]), public), (NodeId([8; 20]), private)]),
        token: None,
        values: &[],
    };
    let mut reply = heapless::Vec::<u8, 512>::new();
    let to = Endpoint::of(stranger(99));
    message::write_answer(&mut reply, query.transaction, to, &content).unwrap();
    dht.handle_datagram(stranger(1), &reply, START, None);
    assert_eq!(dht.poll_output(START), Output::OtherFamily(public.address()));
    let asked = sent(&mut dht, START);
    assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [stranger(2)]);
    // An entry has no place in the table (BEP 5).
    assert_eq!(dht.contact_counts(), (1, 0));
}

#[test]
fn an_answer_is_no_longer_than_four_times_a_strangers_question() {
    let mut dht = node(settings(Family::V4));
    for number in 0..32 {
        dht.store.note(HASH, Endpoint::of(stranger(number)), START);
    }
    (1..=12).for_each(|number| befriend(&mut dht, number, START));
    let least = b"d1:ad2:id20:abcdefghij01234567899:info_hash20:33333333333333333333e\
        1:q9:get_peers1:t1:x1:y1:qe";
    let reply = answer_to(&mut dht, stranger(40), least, START).unwrap();
    assert!(reply.len() <= AMPLIFICATION * least.len(), "{} for {}", reply.len(), least.len());
    assert!(read(&reply).peers().count() >= 10);
    let ours = answer_to(&mut dht, stranger(1), least, START).unwrap();
    assert!(ours.len() > reply.len() && ours.len() <= ANSWER_BYTES_MAX, "{}", ours.len());
    assert_eq!(read(&ours).peers().count(), 32);
    assert_eq!(read(&ours).nodes(Family::V4).count(), 8);
}

#[test]
fn a_flood_is_answered_at_a_rate_from_one_as_from_all() {
    let mut dht = node(settings(Family::V4));
    let ask = query(7, &Ask::Ping, true);
    let from_one =
        (0..10_000).filter(|ms| answer_to(&mut dht, stranger(1), &ask, START.after(*ms)).is_some());
    let from_one = from_one.count();
    assert!((40..=56).contains(&from_one), "{from_one} answers in 10 s");
    let (mut bytes, begun) = (0, START.after(60_000));
    for number in 0..100_000u32 {
        let now = begun.after(u64::from(number) / 10);
        let from = SocketAddr::from((number.wrapping_mul(0x9e37_79b9).to_be_bytes(), 1));
        dht.handle_datagram(from, &ask, now, None);
        bytes += sent(&mut dht, now).iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
    assert!(bytes <= 12 * ANSWER_BYTES_S as usize, "{bytes} bytes in 10 s");
}

#[test]
fn strangers_do_not_send_us_into_our_own_network() {
    let mut dht = node(settings(Family::V4));
    for text in ["127.0.0.1:1", "192.168.0.1:1", "10.1.1.1:1", "224.0.0.1:1", "8.8.8.8:0"] {
        dht.add_contact(text.parse().unwrap());
        let _ = answer_to(&mut dht, text.parse().unwrap(), &query(1, &Ask::Ping, false), START);
    }
    assert_eq!(dht.contact_counts(), (0, 0));
    assert_eq!(dht.counts().queries_out, 0);
}

#[test]
fn nodes_outlast_a_restart_and_damage_is_seen() {
    let mut dht = node(settings(Family::V4));
    (1..=9).for_each(|number| befriend(&mut dht, number, START));
    let (_, reliable) = dht.contact_counts();
    let mut saved = heapless::Vec::<u8, 2_048>::new();
    dht.write_nodes(&mut saved).unwrap();
    assert_eq!(saved.len(), 30 + 26 * reliable);
    assert!(saved.len() <= saved::saved_bytes(reliable));
    saved.extend_from_slice(b"more").unwrap();
    let mut other = node(Settings { seed: [6; 16], ..settings(Family::V4) });
    assert_eq!(other.read_nodes(&saved, START), (reliable, &b"more"[..]));
    assert_eq!(other.own_id(), dht.own_id());
    assert!(reliable >= 8 && !other.needs_entry() && node(settings(Family::V4)).needs_entry());
    assert!(sent(&mut other, START).len() >= reliable.min(8));
    for at in 0..saved.len() - 4 {
        let mut damaged = saved.clone();
        damaged[at] ^= 1;
        let mut other = node(settings(Family::V4));
        assert_eq!(other.read_nodes(&damaged, START).0, 0, "byte {at}");
        assert_eq!(other.read_nodes(&saved[..at], START).0, 0);
    }
    let mut six = node(settings(Family::V6));
    assert_eq!(six.read_nodes(&saved, START).0, 0);
}

#[test]
fn silence_of_everybody_costs_no_contact_and_silence_of_one_costs_it() {
    let mut dht = node(settings(Family::V4));
    (1..=6).for_each(|number| befriend(&mut dht, number, START));
    let (all, _) = dht.contact_counts();
    let mut now = START;
    // Four hours without a line.
    while now < START.after(4 * 3_600_000) {
        sent(&mut dht, now);
        now = match dht.poll_output(now) {
            Output::Wait(deadline) => deadline.at,
            other => panic!("{other:?}"),
        };
    }
    assert_eq!(dht.contact_counts().0, all);
    // The line is back, and one of them answers.
    for _ in 0..600 {
        dht.handle_datagram(stranger(1), &query(1, &Ask::Ping, false), now, None);
        sent(&mut dht, now);
        now = now.after(1_000);
    }
    assert!(dht.contact_counts().0 < all, "{:?}", dht.contact_counts());
}

#[test]
fn a_hundred_thousand_datagrams_of_rubbish_do_no_harm() {
    let mut dht = node(Settings { has_twin: true, ..settings(Family::V4) });
    let twin = node(settings(Family::V6));
    (1..=9).for_each(|number| befriend(&mut dht, number, START));
    let mut chance = Chance::new([9; 16]);
    let token = chance.token(Endpoint::of(stranger(1)), START);
    let good = [
        query(1, &Ask::Ping, false),
        query(2, &Ask::FindNode(HASH, Want::BOTH), false),
        query(3, &Ask::GetPeers(HASH, Want::only(Family::V4)), true),
        query(4, &Ask::AnnouncePeer { info_hash: HASH, port: Some(9), token: &token }, false),
        b"d2:ip6:abcdef1:rd2:id20:abcdefghij01234567895:nodes26:abcdefghij0123456789abcdef\
          5:token4:abcd6:valuesl6:abcdef6:ghijklee1:t4:abcd1:y1:re"
            .to_vec(),
        b"d1:eli203e3:bade1:t4:abcd1:y1:ee".to_vec(),
    ];
    let mut now = START;
    let _ = dht.search(HASH.0, Some(1), now);
    let mut asked: Option<(SocketAddr, [u8; 4])> = None;
    for round in 0..100_000usize {
        let mut bytes = good[round % good.len()].clone();
        let chance = chance.bytes();
        // Whoever was asked answers with its number and rubbish for the rest.
        let answerer = asked.take_if(|_| bytes.ends_with(b"1:y1:re"));
        if let Some((_, number)) = answerer {
            let place = bytes.windows(4).rposition(|bytes| bytes == b"abcd").unwrap();
            bytes[place..place + 4].copy_from_slice(&number);
        }
        for change in 0..round % 5 {
            let at = usize::from(u16::from_be_bytes([chance[change], chance[change + 5]]));
            let at = at % bytes.len();
            match chance[change + 10] % 8 {
                0 => bytes.truncate(at.max(1)),
                1 => bytes.insert(at, chance[15]),
                2 => bytes.iter_mut().for_each(|byte| *byte ^= chance[16]),
                _ => bytes[at] = chance[17 - change],
            }
        }
        let from = match chance[18] % 3 {
            0 => stranger(chance[19] % 10),
            1 => "[2001:db8::1]:4".parse().unwrap(),
            _ => SocketAddr::from(([chance[0], chance[1], chance[2], chance[3]], 7)),
        };
        let from = answerer.map_or(from, |(asked, _)| asked);
        dht.handle_datagram(from, &bytes, now, Some(&twin));
        for (to, bytes) in sent(&mut dht, now) {
            assert!(bytes.len() <= ANSWER_BYTES_MAX);
            if let Some(Message::Query(query)) = message::parse(&bytes, Family::V4) {
                asked = query.transaction.try_into().ok().map(|number| (to, number));
            }
        }
        now = now.after(u64::from(chance[4] % 20));
    }
    let counts = dht.counts();
    assert!(counts.dropped > 10_000 && counts.answers_out > 1_000, "{counts:?}");
    assert!(counts.answers_in > 100, "{counts:?}");
    assert!(dht.contact_counts().0 <= 64);
}
