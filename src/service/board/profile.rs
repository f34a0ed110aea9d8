//! A board's numbers, as they stand in its `profile.toml`.

use super::Board;
use std::fmt::Debug;
use toml::de::{DeTable, DeValue};

/// Numbers under one heading: a structure of them, and how it is read.
macro_rules! numbers {
    ($heading:literal $name:ident { $($key:ident: $kind:ty,)* }) => {
        #[doc = concat!("Numbers under `[", $heading, "]`.")]
        #[derive(Clone, Copy, Debug)]
        #[expect(missing_docs, reason = "each is explained in the profiles")]
        pub struct $name {
            $(pub $key: $kind,)*
        }

        impl $name {
            fn read(top: &mut DeTable<'_>) -> Option<$name> {
                let DeValue::Table(mut table) = top.remove($heading)?.into_inner() else {
                    panic!("{} is no table", $heading)
                };
                let numbers = $name { $($key: take(&mut table, stringify!($key)),)* };
                end(&table);
                Some(numbers)
            }
        }
    };
}

numbers! {
    "pools" Pools {
        peers_max: u16,
        unchoked_max: u16,
        per_address_max: u16,
        requests_per_peer: u16,
        torrents_max: u32,
        seeding_max: u16,
        bits_kib: u32,
        candidates_max: u32,
        open_files_max: u32,
        fetching_max: u16,
        partials_max: u16,
        asks_per_peer: u16,
        fetch_bits_kib: u32,
        dht_nodes_max: u32,
        dht_peers_max: u32,
        dht_searches_max: u16,
        web_seeds_max: u16,
        watched_max: u32,
        web_connections_max: u16,
        web_pages_max: u16,
        password_mib: u8,
    }
}

numbers! {
    "disk" DiskSizes {
        lanes: u16,
        lane_buffers: u16,
        lane_buffer_kib: u32,
        lane_stack_kib: u32,
        serve_kib: u32,
        walk_kib: u32,
        journal_kib: u32,
    }
}

numbers! {
    "sockets" Sockets {
        unsent_kib: u32,
        receive_kib: u32,
        wide_max: u16,
        wide_kib: u32,
    }
}

numbers! {
    "image" ImageSizes {
        unit_kib: u32,
        image_mib: u32,
        whole_mib: u32,
    }
}

/// Reads a profile.
///
/// # Panics
/// When it is none: profiles are compiled in, and a test reads each of them.
pub fn parse(name: &'static str, profile: &str) -> Board {
    let top = DeTable::parse(profile).expect("a profile is TOML");
    let top = &mut top.into_inner();
    let board = Board {
        name,
        ram_kib: take(top, "ram_kib"),
        resident_kib: take(top, "resident_kib"),
        pools: Pools::read(top).expect("a profile has pools"),
        disk: DiskSizes::read(top).expect("a profile has a disk"),
        sockets: Sockets::read(top).expect("a profile has sockets"),
        image: ImageSizes::read(top),
    };
    end(top);
    board
}

fn take<T: TryFrom<u64, Error: Debug>>(table: &mut DeTable<'_>, key: &str) -> T {
    let value = table.remove(key);
    let number = value.as_ref().and_then(|value| value.get_ref().as_integer());
    let number: Option<u64> = number.and_then(|number| number.as_str().parse().ok());
    let number = number.and_then(|number| number.try_into().ok());
    number.unwrap_or_else(|| panic!("{key} is to be a number that fits"))
}

/// All that is known has been taken out.
fn end(table: &DeTable<'_>) {
    let unknown = table.keys().next().map(|key| key.get_ref());
    assert!(unknown.is_none(), "nobody knows {unknown:?}");
}
