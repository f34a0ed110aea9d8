//! Torrents become active: what is there of them is served, and what is lacking fetched.

use crate::engine::swarm::fetch::FetchFull;
use crate::engine::swarm::torrent::{Have, Torrent};
use crate::engine::units::{InfoHash, PieceIndex, TorrentSlot, has_bit};
use crate::service::announcer::{self, Announcer};
use crate::service::fetch::make::Made;
use crate::service::fetch::open::{Taken, unmake};
use crate::service::fetch::{Goal, Keeper};
use crate::service::lan::magnet;
use crate::service::options::Options;
use crate::service::report::Report;
use crate::service::share::Share;
use crate::service::state::State;
use crate::service::wanted::Wanted;
use crate::service::{Refusal, Service, rest};
use std::boxed::Box;
use std::net::SocketAddr;
use std::string::String;
use std::sync::Arc;
use std::vec::Vec;

/// Takes in what has been opened: it is shared from here on, and what is lacking fetched.
pub(in crate::service) async fn take_in(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    taken: Taken,
) -> Result<(TorrentSlot, Share), Refusal> {
    let (options, Taken { share, errand, peers, .. }) = (keeper.options, taken);
    let mut told_web_seeds = Vec::new();
    if errand.is_some() {
        let (info_hash, wanted) = (share.info_hash, Wanted::new(&share.name, &options.fetch));
        let renew = move |state: &mut State<'_>| state.renew_wanted(&info_hash, wanted);
        told_web_seeds = keeper.archive.ask(renew).await?.told_web_seeds;
    }
    rest::make_room(service, keeper).await;
    let active = service.swarm.borrow().find(&share.info_hash.on_the_wire());
    // Two may have asked for it at once: from here to its place nobody comes between.
    if let Some(slot) = active {
        return Ok((slot, share));
    }
    let slot = activate(service, keeper.announcer, &share, options)?;
    let Some(errand) = errand else { return Ok((slot, share)) };
    let (order, chance) = (keeper.order(), announcer::random());
    let wanted = |piece: u32| errand.wants(piece);
    let begun = service.swarm.borrow_mut().begin_fetch(slot, wanted, order, chance);
    if let Err(full) = begun {
        let refusal = fetch_refused(&share.name, full);
        // Whoever holds its content keeps it from resting.
        drop(share);
        rest::lay_down(service, keeper, slot).await;
        return Err(refusal);
    }
    let now = service.clock.now();
    for peer in options.fetch.peers.iter().chain(&peers) {
        service.swarm.borrow_mut().candidates.note_named(slot, *peer, now);
    }
    service.ring_nudged();
    let named = options.fetch.web_seeds.iter().map(|url| (url.as_str(), true));
    let told = told_web_seeds.iter().map(|url| (url.as_str(), false));
    service.webseeds.add_all(service, slot, &share.content, named.chain(told));
    service.fetched.goals.borrow_mut().push(Goal::new(slot, &share, errand));
    service.fetched.hold(service);
    service.grounds.asked.ring();
    service.announce_next(share.info_hash);
    Ok((slot, share))
}

/// A torrent of which all this has been made is not fetched after all: nothing of it stays.
pub(in crate::service) async fn withdraw(
    service: &Service<'_>,
    keeper: &Keeper<'_>,
    info_hash: InfoHash,
    made: Box<Made>,
) {
    let forget = move |state: &mut State<'_>| match state.get(&info_hash) {
        Some(entry) => state.forget_wanted(&entry),
        None => Ok(()),
    };
    if let Err(refusal) = keeper.archive.ask(forget).await {
        return warn!("{refusal}");
    }
    unmake(&service.lanes, made).await;
}

/// Says what has been taken in.
pub(super) fn tell(
    service: &Service<'_>,
    slot: TorrentSlot,
    share: &Share,
    options: &Options,
    report: &Report,
) {
    let magnet = magnet_of(service, share, options);
    match service.fetched.goals.borrow().iter().find(|goal| goal.torrent == slot) {
        Some(goal) => report.added(share, &magnet, goal),
        None => report.share(share, &magnet),
    }
}

/// Why a torrent cannot be fetched for now.
pub(in crate::service) fn fetch_refused(name: &str, full: FetchFull) -> Refusal {
    let problem = match full {
        FetchFull::Places => "as many torrents are fetched as the board's fetching_max".into(),
        FetchFull::Pool { needed_bytes, free_bytes } => std::format!(
            "its pieces need {needed_bytes} bytes of the board's fetch_bits_kib, and {free_bytes} \
             are free"
        ),
    };
    Refusal::new(name, problem, "fetch fewer at a time, or choose a larger board with --board")
}

/// Makes a share active: from here on peers can ask for it.
pub(super) fn activate(
    service: &Service<'_>,
    announcer: &Announcer,
    share: &Share,
    options: &Options,
) -> Result<TorrentSlot, Refusal> {
    let (slot, left) = place(service, share)?;
    announce(service, announcer, slot, share, left, options);
    Ok(slot)
}

/// Gives a share a place among those that are active; how many bytes of it are missing.
pub(in crate::service) fn place(
    service: &Service<'_>,
    share: &Share,
) -> Result<(TorrentSlot, u64), Refusal> {
    let layout = share.content.layout;
    let (have, left) = have_of(service, share)?;
    let mut swarm = service.swarm.borrow_mut();
    let torrent = Torrent {
        info_hash: share.info_hash,
        layout,
        metadata_bytes: share.content.info.length as u32,
        have,
        private: share.private,
        sent_bytes: 0,
    };
    let slot = swarm.activate(torrent).ok_or_else(|| {
        Refusal::new(&share.name, "every place is taken", "share fewer, or choose a larger board")
    })?;
    drop(swarm);
    service.hold_to_limit(slot, &share.info_hash);
    service.contents.borrow_mut()[slot.index()] = Some(Arc::clone(&share.content));
    Ok((slot, left))
}

/// From here on trackers are told of a share.
pub(super) fn announce(
    service: &Service<'_>,
    announcer: &Announcer,
    slot: TorrentSlot,
    share: &Share,
    left: u64,
    options: &Options,
) {
    if !options.lan {
        let (own, named): (Vec<_>, Vec<_>) =
            share.trackers.iter().partition(|(_, address)| options.trackers.contains(address));
        let named = named.iter().map(|(tier, address)| (*tier, address.as_str()));
        announcer.add(service, slot, named, false, left);
        // Each tracker the owner names is told; BEP 12 would stop at the first that answers.
        for (_, address) in own {
            let named = std::iter::once((0, address.as_str()));
            announcer.add(service, slot, named, true, left);
        }
    }
}

/// What is there of a share, in the swarm's own bits, and how many bytes are missing.
pub(in crate::service) fn have_of(
    service: &Service<'_>,
    share: &Share,
) -> Result<(Have, u64), Refusal> {
    let (layout, mut left) = (share.content.layout, 0);
    let Some(bits) = &share.have else { return Ok((Have::All, 0)) };
    let mut swarm = service.swarm.borrow_mut();
    let span = swarm.take_bits(layout.piece_count()).ok_or_else(|| {
        let problem = "there is no room for its bitfield";
        Refusal::new(&share.name, problem, "share fewer, or choose a larger board")
    })?;
    for piece in 0..layout.piece_count() {
        if has_bit(bits, piece) {
            swarm.set_bit(span, piece);
        } else {
            left += u64::from(layout.piece_len(PieceIndex(piece)));
        }
    }
    Ok((Have::Some(span), left))
}

/// The link for everybody: with the owner's trackers, and where peers on the LAN can connect to.
pub(in crate::service) fn magnet_of(
    service: &Service<'_>,
    share: &Share,
    options: &Options,
) -> String {
    let address = service.listen;
    let trackers = share.trackers.iter().map(|(_, address)| address).filter(|_| !options.lan);
    let lan = service.lan();
    let heard = |peer: &SocketAddr| match address.ip() {
        // An IPv6 socket for any address takes IPv4 too.
        ip if ip.is_unspecified() => peer.is_ipv4() || address.is_ipv6(),
        ip => peer.ip() == ip,
    };
    let peers = lan.reachable_at(address.port()).filter(heard);
    magnet(&share.info_hash, &share.name, share.content.layout.total_bytes, trackers, peers)
}
