//! PID 1 of the appliance: everything between the kernel and the life of the box.
//!
//! The same program as everywhere, started by the kernel as `/init` of an initramfs that
//! `scripts/make-image` makes. In order:
//!
//! | what | where |
//! | --- | --- |
//! | the kernel's own mounts, modules for what the machine has | `mounts`, `modules`, `uevent` |
//! | an address and the hour, on a thread of its own | `network`: `link`, `dhcp`, `sntp` |
//! | the disk we start from, its last partition grown | `disk` |
//! | the owner's configuration, the secret to claim the box with | `card` |
//! | two systems, one of them perhaps on trial; signed updates | [`slots`], [`update`], [`fat`] |
//! | watchdog, lamp: a thread that hears how the life is | `warden`, `lamp` |
//! | other disks, the button: a thread that hears of devices | `devices` |
//! | the life itself, as `perennial run` leads it | `service::life` |
//!
//! At its end everything is written and let go, and the machine is switched off. When something is
//! wrong the box serves what it can and says so: a panic only leads to the next start (`panic=10`).
//!
//! Threads share nothing: what they have to tell the life are signals and words, as elsewhere.

mod card;
mod devices;
mod dhcp;
mod disk;
pub mod fat;
mod lamp;
mod link;
mod modules;
mod mounts;
mod network;
pub mod slots;
mod sntp;
mod uevent;
pub mod update;
mod warden;

use crate::service::config::Config;
use crate::service::life::{self, End, Host, Web};
use crate::service::log_lines;
use crate::service::notify::Notify;
use crate::service::options::WebAt;
use crate::service::report::Report;
use crate::service::update::Slots;
use card::Places;
use devices::Devices;
use disk::Disk;
use lamp::Lamp;
use modules::Modules;
use network::wait;
use rustix::event::{PollFd, PollFlags};
use rustix::system::{RebootCommand, reboot};
use slots::{Slot, Standing};
use std::boxed::Box;
use std::format;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::string::String;
use std::sync::Arc;
use std::thread;
use std::vec::Vec;
use uevent::Ear;
use update::{Appliance, Machine};
use warden::{STACK_BYTES, Warden, Watchdog};

/// Whether the kernel has started this program, to be the first. In a container the first one has
/// another name.
pub fn is_first() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    std::process::id() == 1 && Path::new(&name).file_name().is_some_and(|name| name == "init")
}

/// Leads the box from its start to its end, and switches the machine off.
pub fn run(web: &Web) -> ! {
    if let Err(error) = mounts::kernel() {
        // Nobody can be told, and the kernel starts the machine again.
        panic!("the kernel's mounts: {error}");
    }
    info!("perennial {} on {}", env!("CARGO_PKG_VERSION"), warden::board());
    // It is ours alone, so boards may have the windows they name.
    if let Err(error) = fs::write("/proc/sys/net/core/rmem_max", WINDOW_BYTES_MAX) {
        warn!("receive windows stay narrow: {error}");
    }
    // The keys that start a machine again stop the box first.
    let _ = reboot(RebootCommand::CadOff);
    let ear = Ear::open().expect("the kernel tells of devices");
    let mut modules = Modules::of(Path::new(MODULES));
    modules.load_common();
    modules.load_for_all(Path::new("/sys"));
    let disk = find_disk(&ear, &mut modules);
    let (places, trouble) = mount_all(disk.as_ref());
    let command_line = read(Path::new(warden::COMMAND_LINE));
    // First of all: a system that cannot do the rest is counted too.
    let slots = places.boot.as_ref().and_then(|boot| begin(boot, &command_line));
    let config = places.take_over();
    let name = card::network_name(&config);
    if let Err(error) = rustix::system::sethostname(name.as_bytes()) {
        warn!("{name}: {error}");
    }
    start("network", Box::new(move || network::run(&name)));
    let (words, ears) = UnixDatagram::pair().expect("the kernel has room for two sockets");
    let ears_of_mine = words.try_clone().expect("the kernel has room for a third");
    let watchdog = if warden::is_off(&command_line) { None } else { Watchdog::arm() };
    let patience_ms = watchdog.as_ref().map(|watchdog| watchdog.patience_ms);
    let warden = Warden {
        words: ears,
        watchdog,
        lamp: Lamp::of_the_board(),
        places: places.clone(),
        state: config.state.clone(),
        page: page(&config, &card::network_name(&config)),
    };
    start("warden", Box::new(move || warden.run()));
    if trouble {
        let _ = ears_of_mine.send(warden::TROUBLE);
    }
    let own = disk.map(|disk| String::from(disk.name()));
    let devices = Devices { ear, modules, own, places: places.clone() };
    start("devices", Box::new(move || devices.run()));
    let end = live(&places, config, web, || {
        let words = words.try_clone().expect("the kernel has room for a socket");
        let notify = Notify::over(OwnedFd::from(words), patience_ms);
        Host { notify, slots: slots.clone() }
    });
    info!("held at most {} of memory", held_most());
    mounts::let_go();
    match end {
        End::Restart => {
            let _ = reboot(RebootCommand::Restart);
        }
        End::Stopped => {
            info!("it may be switched off");
            let _ = reboot(RebootCommand::PowerOff);
        }
    }
    // The kernel has no way to switch it off, or would not.
    loop {
        thread::park();
    }
}

/// Waits for the disk we start from; modules bring it to light, and USB takes its time.
fn find_disk(ear: &Ear, modules: &mut Modules) -> Option<Disk> {
    for _ in 0..DISK_LOOKS {
        if let Some(disk) = Disk::find() {
            return Some(disk);
        }
        wait(&mut [PollFd::from_borrowed_fd(ear.fd(), PollFlags::IN)], DISK_LOOK_MS);
        ear.drain(|event| modules.load_for(event.alias));
    }
    warn!("no disk has been written by scripts/make-image; the box serves from memory");
    None
}

/// Mounts the card's partitions; whether something is wrong with them.
fn mount_all(disk: Option<&Disk>) -> (Places, bool) {
    let (boot, data) = (PathBuf::from(BOOT), PathBuf::from(DATA));
    let is_there = disk.is_some_and(|disk| {
        let mounted = mounts::boot(&disk.partition(disk::BOOT), &boot);
        mounted.inspect_err(|error| warn!("{BOOT}: {error}; it is done without")).is_ok()
    });
    let disk = disk.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
    let mounted = disk.and_then(|disk| {
        if let Err(error) = disk.grow() {
            warn!("{}: {error}; the data partition stays as it is", disk.name());
        }
        mounts::data(&disk.partition(disk::DATA), &data)?;
        match disk.growth() {
            Ok(Some(growth)) => grow(growth, &data),
            Ok(None) => {}
            Err(error) => warn!("{DATA}: {error}"),
        }
        Ok(())
    });
    let trouble = mounted.is_err();
    if let Err(error) = mounted {
        warn!("{DATA}: {error}; what was on it is left alone, and the box serves from memory");
        if let Err(error) = mounts::memory(&data) {
            warn!("{DATA}: {error}");
        }
    }
    if let Err(error) = fs::create_dir_all(data.join(card::SHARE)) {
        warn!("{DATA}: {error}");
    }
    (Places { boot: is_there.then_some(boot), data, media: PathBuf::from(MEDIA) }, trouble)
}

/// Notes which of the two systems has been started, where the card has them.
fn begin(boot: &Path, command_line: &str) -> Option<Arc<dyn Slots>> {
    let running = Slot::of_command_line(command_line)?;
    let mut files = fat::Mounted::read_only(boot);
    let standing = slots::begin(&mut files, running).unwrap_or_else(|refusal| {
        warn!("{refusal}");
        Standing::Good
    });
    match standing {
        Standing::Good => {}
        Standing::Trial => info!("slot {running} is on trial"),
        Standing::Returned => warn!("the last update did not do: this is what was before it"),
        Standing::Restart => {
            warn!("this update did not do: back to what was before it");
            mounts::let_go();
            let _ = reboot(RebootCommand::Restart);
        }
    }
    let key = update::parse_key(&read(Path::new(UPDATE_KEY)));
    let machine = Machine { running, board: warden::board(), key };
    Some(Arc::new(Appliance::new(files, machine, standing)))
}

fn grow(growth: disk::Growth, data: &Path) {
    match growth.take(data) {
        Ok(()) => info!("{DATA}: takes all of the disk"),
        Err(error) => warn!("{DATA}: {error}; it stays as large as it is"),
    }
}

/// Lives until somebody ends it. Where it cannot live by the owner's word it does by none.
fn live(places: &Places, config: Config, web: &Web, host: impl Fn() -> Host) -> End {
    let mut config = Some(config);
    loop {
        let by_none = || places.dress(Config::default(), places.disks());
        let owners = config.take();
        let is_owners = owners.is_some();
        let chosen = owners.unwrap_or_else(by_none);
        log_lines::set_level(chosen.level);
        let mut report = Report::without_terminal();
        let read = || Ok(places.config());
        match life::run(chosen, &read, host(), &mut report, web) {
            Ok(end) => return end,
            Err(refusal) => warn!("{refusal}"),
        }
        host().notify.trouble();
        if !is_owners {
            thread::sleep(AGAIN);
        }
    }
}

/// Where the page is going to be, if there is to be one.
fn page(config: &Config, name: &str) -> Option<String> {
    let port = match config.web.at {
        WebAt::Off => return None,
        WebAt::Usual => 8080,
        WebAt::Here(address) => address.port(),
    };
    Some(format!("http://{name}.local:{port}/"))
}

/// What a folder of the kernel's holds, by name; nothing when it cannot be read.
#[inline(never)]
fn names_in(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.flatten() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    names.sort();
    names
}

/// The text of a file of the kernel's, without its line's end; nothing when it cannot be read.
#[inline(never)]
fn read(file: &Path) -> String {
    let mut text = fs::read_to_string(file).unwrap_or_default();
    text.truncate(text.trim_end().len());
    text
}

/// Starts a thread that ends with the box.
fn start(name: &'static str, run: Box<dyn FnOnce() + Send>) {
    let thread = thread::Builder::new().name(name.into()).stack_size(STACK_BYTES);
    if let Err(error) = thread.spawn(run) {
        warn!("{name}: {error}; it is done without");
    }
}

/// The most memory that this process has held so far.
fn held_most() -> String {
    let status = read(Path::new("/proc/self/status"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap_or("?").trim().into()
}

/// The widest receive window of a board, `wide_kib`.
const WINDOW_BYTES_MAX: &str = "524288";

const MODULES: &str = "/lib/modules";

/// Whose updates are taken, if anybody's: made with the image.
const UPDATE_KEY: &str = "/update.pub";

const BOOT: &str = "/boot";
const DATA: &str = "/data";
const MEDIA: &str = "/media";

/// The disk is looked for so often, and whenever something comes: half a minute at most.
const DISK_LOOKS: u32 = 600;
const DISK_LOOK_MS: u64 = 50;

/// Before it is tried again to live.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(10);
