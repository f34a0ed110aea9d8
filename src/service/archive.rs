//! The state folder's one owner: a thread of its own, which is asked and answers.
//!
//! What the box remembers changes seldom, and each change is a write and a sync that may take as
//! long as a card likes. So neither the protocol's thread nor a lane ever waits for it: whoever
//! wants something known or recorded hands the question over, and goes on when the answer is there.
//! Questions are answered in the order in which they came.
//!
//! ```text
//! ask(|state| ..) -> queue of ASKED_MAX -> the thread: state folder, journal, library -> answer
//! ```
//!
//! # When full
//! Whoever asks waits for a place.

use super::board::{Board, JOURNAL_BUFFER_BYTES};
use super::refusal::Refusal;
use super::state::State;
use crate::engine::library::catalog::{Change, Lent};
use crate::engine::library::slots::PAGE_BYTES;
use smol::channel::{Receiver, Sender, bounded};
use std::boxed::Box;
use std::path::{Path, PathBuf};
use std::string::ToString;
use std::thread::{Builder, JoinHandle};
use std::vec::Vec;

/// See the module.
pub struct Archive {
    /// Gone when it ends.
    questions: Option<Sender<Question>>,
    thread: Option<JoinHandle<()>>,
    folder: PathBuf,
}

type Question = Box<dyn FnOnce(&mut State<'_>) + Send>;

impl Archive {
    /// Opens the state folder, as [`State::open`], on a thread of its own.
    pub fn open(folder: &Path, board: &Board) -> Result<Archive, Refusal> {
        let (questions, asked) = bounded::<Question>(ASKED_MAX);
        let (opened, outcome) = bounded(1);
        let (given, journal_kib) = (folder.to_path_buf(), board.disk.journal_kib);
        let torrents_max = board.pools.torrents_max;
        let work = move || {
            let (mut journal, mut pages) = (std::vec![0; JOURNAL_BUFFER_BYTES], pages());
            let mut overlay: Vec<Option<Change>> = (0..OVERLAY_MAX).map(|_| None).collect();
            let (journal, overlay) = (&mut journal[..], &mut overlay[..]);
            let lent = Lent { journal, overlay, pages: &mut pages };
            let state = State::open(&given, journal_kib, lent, torrents_max);
            // Whoever opens it waits for this.
            let _ = opened.send_blocking(state.as_ref().map(path_of).map_err(Refusal::clone));
            if let Ok(mut state) = state {
                answer(&asked, &mut state);
            }
        };
        let stack_bytes = board.disk.lane_stack_kib as usize * 1024;
        let thread = Builder::new().name("archive".to_string()).stack_size(stack_bytes);
        let cannot = |problem: &dyn std::fmt::Display| {
            Refusal::new("threads", problem, "look at the system's limits")
        };
        let thread = thread.spawn(work).map_err(|error| cannot(&error))?;
        let folder = outcome.recv_blocking().map_err(|error| cannot(&error))??;
        Ok(Archive { questions: Some(questions), thread: Some(thread), folder })
    }

    /// Where the state folder is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Has the archive's thread do something with the state, and waits for the answer.
    pub async fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&mut State<'_>) -> T + Send + 'static,
    ) -> T {
        let (answered, answer) = bounded(1);
        let question: Question = Box::new(move |state| {
            // Whoever asked may have gone.
            let _ = answered.send_blocking(what(state));
        });
        let questions = self.questions.as_ref().expect("it is there until it is dropped");
        let handed_over = questions.send(question).await;
        handed_over.expect("the thread answers as long as it can be asked");
        answer.recv().await.expect("a question is answered")
    }

    /// Removes folders of torrents that no record vouches for. Looks at every folder, a few at a
    /// time: others are answered in between.
    pub async fn clear_away_strays(&self) {
        let mut folders = self.ask(|state| state.folders()).await;
        while let Some(rest) = folders {
            folders = self.ask(move |state| state.clear_away_strays(rest)).await;
        }
    }
}

impl Drop for Archive {
    /// Waits until everything that was asked has been done.
    fn drop(&mut self) {
        drop(self.questions.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panics ends the process (`panic = "abort"`).
            let _ = thread.join();
        }
    }
}

fn answer(asked: &Receiver<Question>, state: &mut State<'_>) {
    while let Ok(question) = asked.recv_blocking() {
        question(state);
    }
}

fn path_of(state: &State<'_>) -> PathBuf {
    state.path().to_path_buf()
}

fn pages() -> Vec<u8> {
    std::vec![0; PAGES_MAX * PAGE_BYTES]
}

/// Torrents that may change between two checkpoints.
pub const OVERLAY_MAX: usize = 256;

/// Pages of slots that are read at a time.
pub const PAGES_MAX: usize = 8;

/// Questions that wait.
const ASKED_MAX: usize = 16;
