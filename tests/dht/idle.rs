//! What a node wakes for when nobody wants anything of it.

use perennial::engine::announce::Family;
use perennial::engine::announce::local::Beacon;
use perennial::engine::dht::endpoint::Endpoint;
use perennial::engine::dht::id::NodeId;
use perennial::engine::dht::message::{self, Ask, Content, Message};
use std::collections::{BTreeMap, BTreeSet};

use crate::for_seeds;
use crate::world::{Stranger, USUAL, World};

const HOUR_MS: u64 = 3_600_000;

#[test]
fn an_idle_node_wakes_a_few_times_a_minute_and_asks_little() {
    for_seeds(1, |seed| {
        let mut world = World::new(seed);
        world.grow(Family::V4, 200);
        // The table has grown old: most contacts have been there for hours.
        world.run_for(4 * HOUR_MS);
        let node = &mut world.nodes[100];
        node.woken.clear();
        let (contacts, _) = node.dht.contact_counts();
        let (before, sent) = (node.dht.counts(), node.sent);
        world.run_for(HOUR_MS);
        let node = &world.nodes[100];
        let (counts, woken) = (node.dht.counts(), node.woken.values().sum::<u32>());
        let asked = counts.queries_out - before.queries_out;
        println!(
            "{contacts} contacts, in an hour: {:?}, {asked} questions, {} to us, {} bytes sent",
            node.woken,
            counts.queries_in - before.queries_in,
            node.sent.0 - sent.0,
        );
        // Two families, on the same minutes: less than three a minute is less than eleven.
        assert!(woken <= 3 * 60, "woken {woken} times in an hour");
        assert!(asked <= 3 * 60, "{asked} questions in an hour");
    });
}

/// Answers everything as `id` and names nobody.
fn steady(id: NodeId) -> Stranger {
    Box::new(move |from, bytes, _| {
        let Some(Message::Query(query)) = message::parse(bytes, Family::V4) else {
            return Vec::new();
        };
        let content =
            Content { own: &id, nodes: None, nodes6: None, token: Some(b"open"), values: &[] };
        let mut reply = heapless::Vec::<u8, 256>::new();
        // Where it sees us is nowhere: our name stays.
        let seen_at = Endpoint::of("127.0.0.1:1".parse().unwrap());
        message::write_answer(&mut reply, query.transaction, seen_at, &content).unwrap();
        vec![(from, reply.to_vec())]
    })
}

#[test]
fn a_full_table_as_in_a_network_of_ten_million_costs_a_few_wake_ups_a_minute() {
    for_seeds(1, |seed| {
        let mut world = World::new(seed);
        let place = world.add(Family::V4, USUAL);
        let own = NodeId(world.nodes[place].dht.own_id());
        for number in 0..21 * 8 {
            let mut chance = [0; 20];
            world.prng.fill(&mut chance);
            let id = own.sharing(number / 8, chance);
            let address = world.add_stranger(Family::V4, steady(id));
            let mut ping = heapless::Vec::<u8, 256>::new();
            message::write_query(&mut ping, *b"abcd", &id, false, &Ask::Ping).unwrap();
            let to = world.nodes[place].address;
            world.post(address, to, ping.to_vec());
            world.run_for(300);
        }
        world.run_for(60_000);
        assert_eq!(world.nodes[place].dht.contact_counts(), (168, 168));
        for hour in 1..=8 {
            world.nodes[place].woken.clear();
            let before = world.nodes[place].dht.counts();
            world.run_for(HOUR_MS);
            let node = &world.nodes[place];
            let woken = node.woken.values().sum::<u32>();
            let asked = node.dht.counts().queries_out - before.queries_out;
            println!("hour {hour}: woken {:?}, {asked} questions", node.woken);
            // Two families wake on the same minutes: together they stay under eleven a minute.
            assert!(woken <= 5 * 60, "woken {woken} times in hour {hour}");
            assert!(asked <= if hour < 3 { 13 } else { 3 } * 60, "{asked} in hour {hour}");
        }
        assert_eq!(world.nodes[place].dht.contact_counts(), (168, 168));
    });
}

#[test]
fn a_hundred_torrents_announced_for_an_hour_wake_a_node_on_whole_minutes() {
    for_seeds(1, |seed| {
        let mut world = World::new(seed);
        world.grow(Family::V4, 200);
        world.nodes[100].torrents = (0..100).map(crate::world::hash).collect();
        world.drain(100);
        world.run_for(4 * HOUR_MS);
        let node = &mut world.nodes[100];
        node.woken.clear();
        let before = node.dht.counts();
        world.run_for(HOUR_MS);
        let node = &world.nodes[100];
        let (counts, woken) = (node.dht.counts(), node.woken.values().sum::<u32>());
        println!(
            "in an hour: {} searches, {} questions, woken {woken} times: {:?}",
            counts.searches - before.searches,
            counts.queries_out - before.queries_out,
            node.woken,
        );
        assert!((200..=300).contains(&(counts.searches - before.searches)));
        // Two families, and what else a box wakes for, stay under fifteen a minute.
        assert!(woken <= 11 * 60 / 2, "woken {woken} times in an hour");
    });
}

#[test]
fn an_hour_of_a_box_with_a_hundred_torrents_at_rest_is_fifteen_wake_ups_a_minute() {
    for_seeds(1, |seed| {
        let mut world = World::new(seed);
        let families = [Family::V4, Family::V6];
        for family in families {
            world.grow(family, 150);
        }
        // The table has grown old, and the box has been up for hours.
        world.run_for(4 * HOUR_MS);
        let ours = [70, 220];
        let begun = world.now;
        let mut beacon = Beacon::new(begun);
        let mut awake: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
        for place in ours {
            world.nodes[place].woken.clear();
            world.nodes[place].woken_at.clear();
        }
        // As `service/pass` walks through a hundred: five every ninety seconds.
        for turn in 0..HOUR_MS / 90_000 {
            awake.entry("pass").or_default().insert(world.now.as_millis());
            for number in 0..5 {
                for place in ours {
                    world.announce_soon(place, crate::world::hash((5 * turn + number) % 100));
                }
            }
            world.run_for(90_000);
            let due = beacon.deadline().at;
            if beacon.poll(world.now) {
                awake.entry("local announce").or_default().insert(due.as_millis());
            }
        }
        for place in ours {
            // Both nodes have one place on the clock: what they do at once wakes the box once.
            awake.entry("DHT").or_default().extend(&world.nodes[place].woken_at);
            println!("{:?}", world.nodes[place].woken);
        }
        let all: Vec<u64> = awake.values().flatten().copied().collect();
        let mut minutes = [0; 60];
        all.iter()
            .for_each(|at| minutes[((at - begun.as_millis()) / 60_000).min(59) as usize] += 1);
        println!("woken {} times, by the minute: {minutes:?}", all.len());
        assert!(minutes.iter().all(|woken| *woken <= 15), "{minutes:?}");
    });
}

#[test]
fn a_node_that_knows_nobody_does_not_wake_at_all() {
    let mut world = World::new(1);
    let place = world.add(Family::V6, crate::world::USUAL);
    world.drain(place);
    world.run_for(24 * HOUR_MS);
    assert!(world.nodes[place].woken.is_empty());
}

#[test]
fn nodes_that_went_are_forgotten_and_others_take_their_place() {
    for_seeds(1, |seed| {
        let mut world = World::new(seed);
        world.grow(Family::V4, 120);
        world.run_for(HOUR_MS);
        for place in 0..60 {
            world.nodes[place].is_off = true;
        }
        world.run_for(4 * HOUR_MS);
        for place in 60..120 {
            let gone = world.nodes[place].dht.contact_counts();
            assert_eq!(gone.0, gone.1, "{place}: {gone:?}");
            assert!(gone.1 >= 16, "{place}: {gone:?}");
        }
    });
}
