//! Long answers, page after page.

use crate::fake::FakeBox;
use crate::peak;
use crate::program::Folder;
use perennial::service::control::answer::Answer;
use perennial::service::control::message::{List, Show};
use perennial::service::control::server::PLACES;
use perennial::service::control::what::What;
use perennial::service::control::{LINE_BYTES_MAX, Request};
use std::sync::atomic::Ordering;

/// Lists all of a library; memory held at most by the client, and by the box with its buffers.
fn list_all(torrents: u64) -> (i64, i64) {
    let home = Folder::new("pages");
    let mut fake = FakeBox::start(home.path(), torrents, 0, 10_000);
    let client = fake.client();
    peak::reset();
    let (mut next, mut pages) = (0, 0);
    for page in client.pages(Request::List(List::default())) {
        for heard in page.unwrap() {
            let Answer::Torrent(item) = heard.answer else { panic!("{}", heard.line) };
            assert_eq!(item.sent_bytes, next);
            next += 1;
        }
        pages += 1;
    }
    let held = peak::peak_over_now();
    assert_eq!((next, pages), (torrents, torrents / 500));
    fake.stop();
    (held, fake.seen.peak_bytes.load(Ordering::Relaxed))
}

#[test]
fn a_hundred_thousand_torrents_are_listed_in_constant_memory() {
    let ((few, few_there), (many, many_there)) = (list_all(1_000), list_all(100_000));
    println!("client: {few} and {many} bytes, box: {few_there} and {many_there}");
    // Longer numbers are in it, but no longer pages.
    assert!(many < few + (16 << 10), "the client held {few} and {many} bytes");
    // What the reactor's own thread gives back for the box's is not seen: some tens of KiB.
    assert!(many_there < BUFFERS_BYTES + (128 << 10), "the box held {many_there} bytes");
}

#[test]
fn a_page_of_any_length_takes_no_more_memory_than_its_buffer() {
    let home = Folder::new("long-names");
    let mut fake = FakeBox::start(home.path(), 500, 20_000, 10_000);
    let (page, done) = fake.client().page(&Request::List(List::default())).unwrap();
    assert_eq!((page.len(), done.next), (500, None));
    assert!(page.iter().map(|heard| heard.line.len()).sum::<usize>() > 10_000_000);
    fake.stop();
    let held = fake.seen.peak_bytes.load(Ordering::Relaxed);
    assert!(held < BUFFERS_BYTES + (96 << 10), "the box held {held} bytes");
}

#[test]
fn only_what_was_looked_for_is_listed_and_no_more_than_was_asked_for() {
    let home = Folder::new("some");
    let fake = FakeBox::start(home.path(), 2_000, 0, 10_000);
    let ask = |after, max| {
        let list = List { filter: "film 19".into(), after, max };
        fake.client().page(&Request::List(list)).unwrap()
    };
    let (page, done) = ask(None, 10);
    assert_eq!(page.len(), 10);
    let (page, done) = ask(done.next, 500);
    assert_eq!((page.len(), done.next), (101, None));
}

#[test]
fn files_come_in_pages_behind_what_they_belong_to() {
    let home = Folder::new("files");
    let fake = FakeBox::start(home.path(), 3, 0, 10_000);
    let show = Show { what: What::new("film 2"), after: None, max: 500 };
    let pages: Vec<_> = fake.client().pages(Request::Show(show)).map(Result::unwrap).collect();
    let lengths: Vec<usize> = pages.iter().map(Vec::len).collect();
    assert_eq!(lengths, [502, 500, 200]);
    assert!(matches!(&pages[0][0].answer, Answer::Detail(it) if it.torrent.name == "film 2"));
    assert!(matches!(&pages[2][199].answer, Answer::File(file) if file.path == "part 1199"));
}

/// What the box holds for its places, whatever is asked.
const BUFFERS_BYTES: i64 = (PLACES * LINE_BYTES_MAX) as i64;
