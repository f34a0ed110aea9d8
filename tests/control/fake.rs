//! A box without a service: it answers for torrents that follow from their numbers.

use crate::peak;
use perennial::engine::units::InfoHash;
use perennial::service::Refusal;
use perennial::service::clock::{Bell, Clock};
use perennial::service::control::answer::{
    Answer, Detail, FileItem, Item, Progress, State, Stats, TrackerItem,
};
use perennial::service::control::message::{List, Show};
use perennial::service::control::server::{self, PLACES};
use perennial::service::control::what::What;
use perennial::service::control::{Actions, Client, Reply, Request, Socket, Unanswered};
use smol::LocalExecutor;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};

/// What a test sees of the box.
#[derive(Default)]
pub struct Seen {
    /// Clients that were gone before their answer was.
    pub gone: AtomicU32,
    /// Memory the box's thread has held at most, with its buffers.
    pub peak_bytes: AtomicI64,
}

/// A box that runs on a thread of its own until it is dropped.
pub struct FakeBox {
    pub state: PathBuf,
    pub seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
}

impl FakeBox {
    /// A box with so many torrents, whose names have `name_bytes` more than they need, that lets
    /// clients go after `patience_ms`.
    pub fn start(state: &Path, torrents: u64, name_bytes: usize, patience_ms: u64) -> FakeBox {
        let (seen, folder) = (Arc::new(Seen::default()), state.to_path_buf());
        let (ready, is_ready) = channel();
        let given = Arc::clone(&seen);
        let thread = thread::spawn(move || {
            let socket = Socket::open(&folder, patience_ms).expect("a socket can be made");
            let (stop, waiting) = (Bell::default(), RefCell::default());
            let fake = Fake { torrents, name_bytes, seen: &given, stop, waiting };
            ready.send(()).expect("the test waits for it");
            live(&socket, &fake);
            given.peak_bytes.store(peak::peak_over_now(), Ordering::Relaxed);
        });
        is_ready.recv().expect("the box begins");
        FakeBox { state: state.to_path_buf(), seen, thread: Some(thread) }
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.state).expect("it may be asked").expect("it is there")
    }

    /// Stops it, and waits for its end.
    pub fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // The socket may be what a test has broken; then this shows it.
            let stopped = self.client().page(&Request::Stop);
            thread.join().expect("the box does not panic");
            stopped.expect("it says that it stops");
        }
    }
}

impl FakeBox {
    /// Waits until somebody else has stopped it.
    pub fn wait_for_end(&mut self) {
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("the box does not panic");
    }
}

impl Drop for FakeBox {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.stop();
        }
    }
}

/// Runs a box until it is told to stop.
fn live(socket: &Socket, fake: &Fake<'_>) {
    let clock = Clock::new(0, PLACES + 1);
    let executor = LocalExecutor::new();
    executor.spawn(clock.run()).detach();
    for _ in 0..PLACES {
        executor.spawn(server::run(socket, &clock, fake)).detach();
    }
    smol::block_on(executor.run(async {
        // All that is held in between is made by what is asked.
        smol::future::yield_now().await;
        peak::reset();
        fake.stop.rung().await;
        // What has been answered leaves.
        clock.sleep(10, "the end").await;
    }));
}

struct Fake<'s> {
    torrents: u64,
    name_bytes: usize,
    seen: &'s Seen,
    stop: Bell,
    /// Bells of requests that are not answered yet, by what they are for.
    waiting: RefCell<Vec<(What, std::rc::Rc<Bell>)>>,
}

impl Fake<'_> {
    fn item(&self, number: u64) -> Item {
        let mut hash = [0; 20];
        hash[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        Item {
            info_hash: InfoHash::V1(hash),
            name: format!("film {number}{}", "x".repeat(self.name_bytes)),
            bytes: 5 << 30,
            state: State::Resting,
            trouble: None,
            wanted_bytes: 5 << 30,
            here_bytes: 5 << 30,
            sent_bytes: number,
            peers: 0,
            added_s: 0,
            path: format!("/srv/film {number}"),
        }
    }

    fn find(&self, what: &What) -> Result<Item, Refusal> {
        let mut search = what.search();
        let all = (0..self.torrents).map(|number| self.item(number));
        all.for_each(|item| search.look_at(&item.info_hash, &item.name));
        let found = search.found()?;
        let mut all = (0..self.torrents).map(|number| self.item(number));
        Ok(all.find(|item| item.info_hash == found).expect("it was found"))
    }

    async fn list(&self, list: List, reply: &mut Reply<'_>) -> Result<Option<u64>, Unanswered> {
        let mut number = list.after.unwrap_or(0);
        let mut left = list.max;
        while number < self.torrents {
            if left == 0 {
                return Ok(Some(number));
            }
            let item = self.item(number);
            if item.name.contains(&list.filter) {
                reply.item(Answer::Torrent(item)).await?;
                left -= 1;
            }
            number += 1;
        }
        Ok(None)
    }

    /// 1,200 files, whatever the torrent is.
    async fn show(&self, show: Show, reply: &mut Reply<'_>) -> Result<Option<u64>, Unanswered> {
        let first = show.after.unwrap_or(0);
        if first == 0 {
            reply.item(Answer::Detail(Box::new(self.detail(&show.what)?))).await?;
            let url = "udp://tracker.example.org:6969".into();
            let (error, answered_ago_s, seeds, leechers) = (None, None, None, None);
            let tracker = TrackerItem { url, error, answered_ago_s, seeds, leechers };
            reply.item(Answer::Tracker(tracker)).await?;
        }
        let end = FILES.min(first + u64::from(show.max));
        for number in first..end {
            let (path, bytes, wanted) = (format!("part {number}"), 1 << 20, true);
            let file = FileItem { path, bytes, here_bytes: bytes, wanted };
            reply.item(Answer::File(file)).await?;
        }
        Ok((end < FILES).then_some(end))
    }

    fn detail(&self, what: &What) -> Result<Detail, Refusal> {
        Ok(Detail {
            torrent: self.find(what)?,
            files: FILES,
            wanted_files: FILES,
            piece_bytes: 1 << 20,
            pieces: 5_120,
            complete_peers: 0,
            verified_s: None,
            limit_up: None,
            limit_down: None,
            pieces_here: 5_120,
            sequential: false,
            private: false,
            magnet: "magnet:?xt=urn:btih:00".into(),
            torrent_file: None,
            volume: None,
            moving: None,
        })
    }

    async fn wait_for(&self, what: What) {
        let bell = std::rc::Rc::new(Bell::default());
        self.waiting.borrow_mut().push((what, bell.clone()));
        bell.rung().await;
    }
}

impl Actions for Fake<'_> {
    async fn answer(
        &self,
        request: Request,
        reply: &mut Reply<'_>,
    ) -> Result<Option<u64>, Unanswered> {
        let answered = match request {
            Request::List(list) => self.list(list, reply).await,
            Request::Show(show) => self.show(show, reply).await,
            Request::Claim(_) => {
                let refusal = Refusal::new("the page", "is off", "start it without `--web off`");
                Err(refusal.into())
            }
            Request::Stats => {
                let stats = Stats { board: "small".into(), ..Stats::default() };
                reply.item(Answer::Stats(Box::new(stats))).await.map(|()| None)
            }
            Request::Add(add) => {
                let named = add.paths.iter().chain(&add.links).next();
                let thing = named.expect("something is named").display().to_string();
                let (doing, done_bytes, all_bytes) = ("hashing".into(), 1, 2);
                let progress = Progress { thing, doing, done_bytes, all_bytes };
                reply.item(Answer::Progress(progress)).await?;
                if add.sequential {
                    self.wait_for(What::new("hashing")).await;
                }
                let detail = Box::new(self.detail(&What::new("film 0"))?);
                reply.item(Answer::Detail(detail)).await.map(|()| None)
            }
            // Answered once `resume` is asked for the same.
            Request::Pause(which) => {
                self.wait_for(which.what).await;
                Ok(None)
            }
            Request::Resume(which) => {
                self.waiting.borrow().iter().for_each(|(what, bell)| {
                    if *what == which.what {
                        bell.ring();
                    }
                });
                Ok(None)
            }
            Request::Remove(remove) => {
                let item = self.find(&remove.what)?;
                reply.item(Answer::Torrent(item)).await.map(|()| None)
            }
            Request::Move(wish) => {
                let item = self.find(&wish.what)?;
                let path = wish.to.display().to_string() + &"/".repeat(70_000);
                reply.item(Answer::Torrent(Item { path, ..item })).await.map(|()| None)
            }
            Request::Update(file) => {
                assert!(file.is_absolute());
                Ok(None)
            }
            Request::Reload => {
                Err(Refusal::new("line 7", "`lanse` is no key", "see `perennial config`").into())
            }
            Request::Stop => {
                self.stop.ring();
                Ok(None)
            }
        };
        if let Err(Unanswered::Gone) = &answered {
            self.seen.gone.fetch_add(1, Ordering::Relaxed);
        }
        answered
    }
}

/// Files of every torrent.
const FILES: u64 = 1_200;
