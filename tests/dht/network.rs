//! Everything that is announced is found from everywhere.

use perennial::engine::announce::Family;

use crate::for_seeds;
use crate::world::{World, hash};

/// Announces some torrents from some nodes and looks for each from all.
fn everybody_finds_everything(seed: u64, family: Family, count: usize, loss_one_in: u32) {
    let mut world = World::new(seed);
    world.loss_one_in = loss_one_in;
    world.grow(family, count);
    world.run_for(120_000);
    let alone = world.nodes.iter().filter(|node| !node.dht.has_joined()).count();
    assert!(alone <= 1, "{alone} nodes have not joined");
    let mut announced = Vec::new();
    for torrent in 0..8 {
        let place = world.prng.below(count as u32) as usize;
        let found = world.search_to_end(place, hash(torrent), Some(6_881));
        assert!(found.announced_to >= 6, "{found:?}");
        let mut peer = world.nodes[place].address;
        peer.set_port(6_881);
        announced.push((hash(torrent), peer));
    }
    let (mut missed, mut slowest, mut searches) = (0, 0, 0u64);
    for place in 0..count {
        for (info_hash, _) in &announced[..3] {
            assert!(world.search(place, *info_hash, None));
        }
        world.run_for(500);
    }
    world.run_for(61_000);
    for place in 0..count {
        for (info_hash, peer) in &announced[..3] {
            let found = world.take_found(place, info_hash).expect("a search ends");
            missed += u32::from(!found.peers.contains(peer));
            slowest = slowest.max(found.took_ms);
            searches += 1;
        }
        let (info_hash, peer) = &announced[3 + place % 5];
        let found = world.search_to_end(place, *info_hash, None);
        assert!(found.peers.contains(peer), "{place} does not find {peer}: {found:?}");
    }
    assert_eq!(missed, 0, "of {searches}");
    println!("seed {seed}: slowest of {searches} searches {slowest} ms");
}

#[test]
fn every_torrent_is_found_from_everywhere_over_ipv4_with_loss() {
    for_seeds(2, |seed| everybody_finds_everything(seed, Family::V4, 200, 20));
}

#[test]
fn every_torrent_is_found_from_everywhere_over_ipv6() {
    for_seeds(1, |seed| everybody_finds_everything(seed, Family::V6, 100, 50));
}

#[test]
fn names_follow_from_addresses_once_the_network_has_said_where_we_are() {
    for_seeds(1, |seed| {
        let mut world = World::new(seed);
        world.grow(Family::V4, 40);
        world.run_for(180_000);
        let suits = world.nodes.iter().filter(|node| {
            perennial::engine::dht::id::NodeId(node.dht.own_id()).suits(node.address.ip())
        });
        let suits = suits.count();
        assert!(suits >= 38, "{suits} of 40");
    });
}
