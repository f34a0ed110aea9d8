//! Nodes that lie, flood, and speak under others' addresses.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use perennial::engine::announce::Family;
use perennial::engine::dht::endpoint::Endpoint;
use perennial::engine::dht::id::NodeId;
use perennial::engine::dht::message::{self, Ask, Content, Message, Want};
use perennial::engine::dht::{AMPLIFICATION, ANSWER_BYTES_S};

use crate::for_seeds;
use crate::prng::Prng;
use crate::world::{USUAL, World, hash};

/// Answers every question as the node next to what is asked for, with eight more such nodes that
/// are not there, and with peers that are none.
fn liar(victims: Vec<SocketAddr>, asked: Rc<RefCell<u64>>) -> crate::world::Stranger {
    Box::new(move |from, bytes, prng| {
        let Some(Message::Query(query)) = message::parse(bytes, Family::V4) else {
            return Vec::new();
        };
        *asked.borrow_mut() += 1;
        let target = match query.ask {
            Ask::FindNode(target, _) | Ask::GetPeers(target, _) => target,
            Ask::AnnouncePeer { info_hash, .. } => info_hash,
            Ask::Ping => NodeId(hash(1)),
        };
        let near = |prng: &mut Prng| {
            let mut chance = [0; 20];
            prng.fill(&mut chance);
            target.sharing(100 + prng.below(40), chance)
        };
        let own = near(prng);
        let nodes: Vec<_> = (0..8)
            .map(|_| {
                let victim = victims[prng.below(victims.len() as u32) as usize];
                (near(prng), Endpoint::of(victim))
            })
            .collect();
        let peers: Vec<_> = victims[..20].iter().map(|victim| Endpoint::of(*victim)).collect();
        let content = Content {
            own: &own,
            nodes: Some(&nodes),
            nodes6: None,
            token: Some(b"lies"),
            values: &peers,
        };
        let mut reply = heapless::Vec::<u8, 1024>::new();
        message::write_answer(&mut reply, query.transaction, Endpoint::of(from), &content).unwrap();
        vec![(from, reply.to_vec())]
    })
}

#[test]
fn torrents_are_found_among_liars_and_nobody_is_flooded_for_them() {
    for_seeds(2, |seed| {
        let mut world = World::new(seed);
        world.loss_one_in = 50;
        let victims: Vec<_> = (0..40).map(|_| world.new_address(Family::V4)).collect();
        let asked = Rc::new(RefCell::new(0));
        world.grow(Family::V4, 100);
        let liars: Vec<_> = (0..15)
            .map(|_| world.add_stranger(Family::V4, liar(victims.clone(), Rc::clone(&asked))))
            .collect();
        // Each makes itself known to everybody, again and again.
        for _ in 0..10 {
            for liar in &liars {
                for place in 0..100 {
                    let ping = query(hash(world.prng.next_u64()), &Ask::Ping);
                    let to = world.nodes[place].address;
                    world.post(*liar, to, ping);
                }
            }
            world.run_for(60_000);
        }
        let mut found = 0;
        for torrent in 0..10 {
            let (from, to) = (world.prng.below(100) as usize, world.prng.below(100) as usize);
            let told = world.search_to_end(from, hash(1_000 + torrent), Some(6_881));
            assert!(told.announced_to >= 4, "{told:?}");
            let peers = world.search_to_end(to, hash(1_000 + torrent), None).peers;
            let mut peer = world.nodes[from].address;
            peer.set_port(6_881);
            found += u32::from(peers.contains(&peer));
        }
        assert!(found >= 9, "{found} of 10 found");
        world.run_for(3_600_000);
        let at_victims: u64 = victims.iter().filter_map(|victim| world.astray.get(victim)).sum();
        let asked = *asked.borrow();
        println!("seed {seed}: {asked} questions to 15 liars, {at_victims} to 40 victims");
        // A hundred nodes were lied to for 85 minutes: each asks each victim once in seven minutes.
        assert!(at_victims <= 40 * 100 * 12, "{at_victims} datagrams at 40 victims");
        for node in &world.nodes {
            let (all, reliable) = node.dht.contact_counts();
            assert!(reliable >= 16 && all <= USUAL.nodes, "{all} {reliable}");
        }
    });
}

#[test]
fn a_victim_gets_little_more_than_was_sent_under_its_name() {
    for_seeds(1, |seed| {
        let mut world = World::new(seed);
        world.grow(Family::V4, 40);
        world.run_for(120_000);
        let found = world.search_to_end(3, hash(5), Some(6_881));
        assert!(found.announced_to >= 7);
        let received = Rc::new(RefCell::new((0usize, 0usize)));
        let counted = Rc::clone(&received);
        let victim = world.add_stranger(
            Family::V4,
            Box::new(move |_, bytes, _| {
                let mut counted = counted.borrow_mut();
                *counted = (counted.0 + bytes.len(), counted.1 + 1);
                Vec::new()
            }),
        );
        let ask = query(hash(9), &Ask::GetPeers(NodeId(hash(5)), Want::BOTH));
        let mut sent = 0;
        for _ in 0..600 {
            for place in 0..40 {
                sent += ask.len();
                let to = world.nodes[place].address;
                world.post(victim, to, ask.clone());
            }
            world.run_for(10);
        }
        world.run_for(60_000);
        let (bytes, datagrams) = *received.borrow();
        println!("seed {seed}: {sent} bytes in the victim's name, {bytes} in {datagrams} to it");
        // One crowd has four answers a second of each node, and sixteen at once.
        assert!(datagrams <= 40 * (16 + 4 * 7 + 4), "{datagrams}");
        assert!(bytes <= datagrams * AMPLIFICATION * ask.len());
        assert!(bytes < sent);
    });
}

#[test]
fn a_flood_from_everywhere_costs_what_the_node_allows_and_stops_no_search() {
    for_seeds(1, |seed| {
        let mut world = World::new(seed);
        world.grow(Family::V4, 60);
        world.run_for(120_000);
        let told = world.search_to_end(7, hash(77), Some(6_881));
        assert!(told.announced_to >= 7);
        let to = world.nodes[20].address;
        let sent = world.nodes[20].sent.0;
        assert!(world.search(20, hash(77), None));
        for _ in 0..5_000 {
            for _ in 0..2 {
                let from = world.new_address(Family::V4);
                let asker = hash(world.prng.next_u64());
                let ask = query(asker, &Ask::FindNode(NodeId(asker), Want::BOTH));
                world.post(from, to, ask);
            }
            world.run_for(2);
        }
        let found = world.take_found(20, &hash(77)).expect("a search ends in a flood");
        assert_eq!(found.peers.len(), 1);
        let sent = world.nodes[20].sent.0 - sent;
        // Ten seconds: answers, what may be saved up of them, and our own questions.
        let most = 12 * u64::from(ANSWER_BYTES_S) + 20 * 11 * 110;
        assert!(sent <= most, "{sent} bytes in 10 s");
        let (all, reliable) = world.nodes[20].dht.contact_counts();
        assert!(all <= USUAL.nodes && reliable >= 16, "{all} {reliable}");
    });
}

#[test]
fn whoever_speaks_for_another_changes_nothing() {
    for_seeds(1, |seed| {
        let mut world = World::new(seed);
        world.grow(Family::V4, 20);
        world.run_for(120_000);
        let before: Vec<_> = world.nodes.iter().map(|node| node.dht.own_id()).collect();
        let victim = world.nodes[5].address;
        let mut dropped = BTreeMap::new();
        for place in (0..20).filter(|place| *place != 5) {
            dropped.insert(place, world.nodes[place].dht.counts().dropped);
            // Answers to questions that were never asked, and an announcement without a token.
            for number in 0..50u32 {
                let own = NodeId(hash(number.into()));
                let content = Content {
                    own: &own,
                    nodes: Some(&[(own, Endpoint::of(world.nodes[1].address))]),
                    nodes6: None,
                    token: None,
                    values: &[],
                };
                let mut reply = heapless::Vec::<u8, 512>::new();
                let number = number.to_be_bytes();
                let elsewhere = Endpoint::of("203.0.113.7:9".parse().unwrap());
                message::write_answer(&mut reply, &number, elsewhere, &content).unwrap();
                let to = world.nodes[place].address;
                world.post(victim, to, reply.to_vec());
            }
            let info_hash = NodeId(hash(4));
            let announce = Ask::AnnouncePeer { info_hash, port: Some(1), token: b"12345678" };
            let (ask, to) = (query(before[5], &announce), world.nodes[place].address);
            world.post(victim, to, ask);
        }
        world.run_for(10_000);
        for (place, dropped) in dropped {
            let node = &world.nodes[place];
            assert_eq!(node.dht.counts().dropped, dropped + 50);
            assert_eq!(node.dht.own_id(), before[place]);
            assert_eq!(node.dht.stored_count(world.now), 0);
        }
    });
}

fn query(asker: [u8; 20], ask: &Ask<'_>) -> Vec<u8> {
    let mut bytes = heapless::Vec::<u8, 512>::new();
    message::write_query(&mut bytes, *b"abcd", &NodeId(asker), false, ask).unwrap();
    bytes.to_vec()
}
