//! Peers with one vice each, alone beside an honest one and among many: everything comes, they
//! lose what they had of us, and nobody honest does.

use perennial::engine::swarm::roster::Farewell;
use perennial::engine::wire::PeerFault;

use crate::content::Content;
use crate::fake_peer::Speaks;
use crate::for_seeds;
use crate::guest::{Habits, Vice};
use crate::host::Board;
use crate::pump::Ending;
use crate::sim_net::PipeKind;
use crate::world::World;

/// A host that fetches from guests: the first ones honest, each with its half or more, then the
/// liars. Everything comes within `limit_ms`, and what is left behind is nothing.
fn fetch_among(seed: u64, honest: usize, liars: &[Habits], limit_ms: u64) -> World {
    let content = Content::new(2 << 20, 64 << 10, seed);
    let mut world = World::new(&content, seed);
    let host = world.leecher(Board::ROOMY);
    for liar in liars {
        world.invite(host, liar.clone(), |_| true, PipeKind::LAN);
    }
    for number in 0..honest {
        // Each piece is with two of them, or with the only one.
        let has = |piece: u32| honest < 3 || (piece as usize + number) % honest < 2;
        world.invite(host, Habits::GOOD, has, PipeKind::LAN);
    }
    world.run_until_whole(limit_ms);
    world.check_nothing_failed();
    world
}

/// Nobody honest has been sent away or was found guilty.
fn check_honest(world: &World, liars: usize) {
    for guest in liars..world.guests.len() {
        let mut endings = world.guest_endings(guest).iter();
        let kept = endings.all(|ending| *ending == Ending::Farewell(Farewell::Complete));
        assert!(kept, "honest guest {guest}: {}", world.tell());
    }
    for culprit in &world.hosts[0].culprits {
        let guilty = (0..liars).any(|liar| World::guest_address(liar) == *culprit);
        assert!(guilty, "{culprit} is honest");
    }
}

fn both(vice: Vice) -> [Habits; 2] {
    [Speaks::ALL, Speaks::PLAIN].map(|speaks| Habits { speaks, ..Habits::with(vice) })
}

#[test]
fn whoever_sends_bad_data_is_found_and_not_let_in_again() {
    for_seeds(6, |seed| {
        for one_in in [1, 3, 20] {
            for honest in [1, 4] {
                for liar in both(Vice::BadData(one_in)) {
                    let world = fetch_among(seed, honest, &[liar], 120_000);
                    check_honest(&world, 1);
                    let bad = world.hosts[0].failed_count;
                    let guilty = !world.hosts[0].culprits.is_empty();
                    assert!(bad < 5 || guilty, "{bad} pieces failed: {}", world.tell());
                }
            }
        }
    });
}

#[test]
fn a_liar_that_nobody_helps_is_banned_at_its_first_bad_piece() {
    for_seeds(3, |seed| {
        let content = Content::new(2 << 20, 64 << 10, seed);
        let mut world = World::new(&content, seed);
        let host = world.leecher(Board::ROOMY);
        let liar = world.invite(host, Habits::with(Vice::BadData(1)), |_| true, PipeKind::LAN);
        world.run_until(10_000, |world| !world.hosts[0].culprits.is_empty());
        world.run_for(5_000);
        let refused = Farewell::Refused(perennial::engine::swarm::Refused::Banned);
        let banned = [Ending::Farewell(Farewell::Corrupt), Ending::Farewell(refused)];
        assert_eq!(world.guest_endings(liar)[..2], banned);
        let honest = world.invite(host, Habits::GOOD, |_| true, PipeKind::LAN);
        world.run_until_whole(60_000);
        check_honest(&world, honest);
    });
}

#[test]
fn who_sends_one_bad_block_and_goes_leaves_no_guilt_behind() {
    for_seeds(80, |seed| {
        for honest in [1, 4] {
            let liars: Vec<Habits> =
                [both(Vice::BadAndGone), both(Vice::BadAndGone)].concat().into_iter().collect();
            let world = fetch_among(seed, honest, &liars, 120_000);
            check_honest(&world, liars.len());
        }
    });
}

#[test]
fn many_liars_are_no_more_than_one() {
    for_seeds(4, |seed| {
        let liars: Vec<Habits> =
            (0..6).map(|number| Habits::with(Vice::BadData(1 + number % 3))).collect();
        let world = fetch_among(seed, 4, &liars, 300_000);
        check_honest(&world, 6);
    });
}

#[test]
fn peers_that_give_nothing_hold_up_nobody() {
    let vices = [
        Vice::Silent,
        Vice::HalfABlock,
        Vice::Drips,
        Vice::Choked,
        Vice::Flaps(300),
        Vice::FlapsAndSilent(3_000),
        Vice::FlapsAndSilent(15_000),
        Vice::Rejects,
    ];
    for_seeds(2, |seed| {
        for vice in vices {
            for honest in [1, 4] {
                for liar in both(vice) {
                    let world = fetch_among(seed, honest, &vec![liar; 3], 60_000);
                    check_honest(&world, 3);
                    println!("{vice:?}, {honest} honest: {} ms", world.now().as_millis() - 1_000);
                }
            }
        }
    });
}

#[test]
fn peers_that_give_nothing_and_lie_hold_up_nobody_for_long() {
    // Who has had a part in a bad piece works alone; who then does nothing must not be waited for.
    let vices =
        [Vice::Silent, Vice::HalfABlock, Vice::Drips, Vice::FlapsAndSilent(3_000), Vice::Rejects];
    for_seeds(2, |seed| {
        for vice in vices {
            let liars = [both(Vice::BadData(2)), both(vice)].concat();
            let world = fetch_among(seed, 2, &liars, 300_000);
            check_honest(&world, 4);
        }
    });
}

#[test]
fn who_works_alone_and_drips_is_not_waited_for() {
    // All of them have a part in each of the few pieces, so all work alone after the first.
    for_seeds(20, |seed| {
        let content = Content::new(1 << 20, 512 << 10, seed);
        let mut world = World::new(&content, seed);
        let host = world.leecher(Board::ROOMY);
        for vice in [Vice::BadData(2), Vice::Drips, Vice::Drips, Vice::None] {
            let habits = Habits { block_ms: 150, ..Habits::with(vice) };
            world.invite(host, habits, |_| true, PipeKind::LAN);
        }
        world.run_until_whole(300_000);
        check_honest(&world, 3);
    });
}

#[test]
fn what_nobody_asked_for_ends_the_connection() {
    for_seeds(3, |seed| {
        for (vice, fault) in [
            (Vice::Unasked, PeerFault::Unrequested),
            (Vice::Twice, PeerFault::Unrequested),
            (Vice::Short, PeerFault::Unrequested),
        ] {
            for liar in both(vice) {
                let world = fetch_among(seed, 2, &[liar], 60_000);
                check_honest(&world, 1);
                assert_eq!(world.guest_endings(0).first(), Some(&Ending::Fault(fault)), "{vice:?}");
            }
        }
    });
}

#[test]
fn who_tells_of_a_piece_twice_has_it_once() {
    for_seeds(3, |seed| {
        let content = Content::new(1 << 20, 64 << 10, seed);
        let mut world = World::new(&content, seed);
        let host = world.leecher(Board::ROOMY);
        // It complains when it is asked for what it has not.
        world.invite(host, Habits::with(Vice::Repeats), |piece| piece % 2 == 0, PipeKind::LAN);
        let slow = Habits { block_ms: 200, ..Habits::GOOD };
        world.invite(host, slow, |_| true, PipeKind::LAN);
        world.run_until_whole(60_000);
        world.part();
    });
}

#[test]
fn clients_of_all_ages_are_fetched_from() {
    for_seeds(3, |seed| {
        for speaks in [Speaks::ALL, Speaks::PLAIN, Speaks { fast: true, extended: false }] {
            for vice in [Vice::None, Vice::Bitfields(8)] {
                let habits = Habits { speaks, ..Habits::with(vice) };
                let mut world = fetch_among(seed, 0, &[habits], 60_000);
                check_honest(&world, 0);
                world.part();
            }
        }
        let content = Content::new(1 << 20, 64 << 10, seed);
        let mut world = World::new(&content, seed);
        let host = world.leecher(Board::ROOMY);
        let few = Habits { reqq: Some(3), ..Habits::GOOD };
        let guest = world.invite(host, few, |_| true, PipeKind::LAN);
        world.run_until_whole(60_000);
        assert!(world.guests[guest].asked_most <= 3, "{}", world.guests[guest].asked_most);
    });
}
