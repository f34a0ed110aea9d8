//! The memory contract as seen from the engine: nothing is allocated, and everything has its size.
//!
//! `conversation` takes a swarm and its peers through all that peers say to each other, `fetching`
//! through a torrent that is fetched, `records` does the same for the journal and for metainfo,
//! `sizes` pins what a connection costs.

#[path = "../support/count_alloc.rs"]
mod count_alloc;
#[path = "../support/fake_peer.rs"]
mod fake_peer;
#[path = "../support/mock_flash.rs"]
mod mock_flash;
#[path = "../support/prng.rs"]
mod prng;

mod conversation;
mod fetching;
mod records;
mod sizes;

#[global_allocator]
static ALLOCATOR: count_alloc::CountAlloc = count_alloc::CountAlloc;

#[test]
fn the_counting_allocator_counts() {
    let (count, boxed) = count_alloc::allocations_of(|| Box::new([0u8; 100]));
    assert_eq!((count, boxed.len()), (1, 100));
    let (count, text) = count_alloc::allocations_of(|| "x".repeat(3));
    assert!(count >= 1 && text == "xxx");
    assert_eq!(count_alloc::allocations_of(|| 1 + 1).0, 0);
}
