//! What a node wakes for when nobody wants anything of it.

use perennial::engine::announce::Family;

use crate::for_seeds;
use crate::world::World;

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
