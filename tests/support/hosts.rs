//! Machines for one test: network namespaces on one bridge, each with addresses of its own.
//!
//! Several clients refuse a peer on loopback, or a second peer on an address they know. So each
//! program of a test gets a machine: a namespace with one interface, `eth0`, on a bridge that lives
//! in a namespace too. Nothing is attached to the real network, hence nothing can leave, and the
//! same addresses serve every test at once.
//!
//! ```text
//! perennial-interop-<pid>-<n>-lan     bridge "lan"
//!    |          |          |
//!  eth0       eth0       eth0    10.77.0.<k>/24 and fd77::<k>/64, default route on the link
//! ...-seed  ...-tracker  ...-aria2c
//! ```
//!
//! Dropping a [`Host`] or a [`Lan`] deletes its namespace, also when a test panics. A run that was
//! killed leaves its namespaces behind; the next run's first [`Lan`] removes them.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Which kinds of addresses the machines of a [`Lan`] have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
    Both,
}

/// A bridge, the machines on it, and a folder for what they keep.
pub struct Lan {
    name: String,
    family: Family,
    folder: PathBuf,
    hosts: Cell<u8>,
}

impl Lan {
    pub fn new(family: Family) -> Lan {
        static SWEEP: Once = Once::new();
        SWEEP.call_once(|| {
            demand_root();
            remove_leftovers();
        });
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}", process::id());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        fs::create_dir_all(&folder).expect("cargo's folder for tests is writable");
        let lan = Lan { name, family, folder, hosts: Cell::new(0) };
        let switch = lan.switch();
        ip(&["netns", "add", &switch]);
        // Without snooping the bridge floods multicast at once, instead of after a querier was
        // heard.
        let bridge = "link add lan type bridge forward_delay 0 mcast_snooping 0\nlink set lan up\n";
        ip_batch(&switch, bridge);
        lan
    }

    /// A new machine on the bridge, with its own addresses and home folder.
    pub fn host(&self, role: &str) -> Host {
        let number = self.hosts.get() + 1;
        let v4 = Ipv4Addr::new(10, 77, 0, number);
        let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into());
        self.host_at(
            role,
            (self.family != Family::V6).then_some(v4),
            (self.family != Family::V4).then_some(v6),
        )
    }

    /// A machine on the bridge with other addresses than those this network gives.
    pub fn host_at(&self, role: &str, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Host {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let home = self.folder.join(format!("{number}-{role}"));
        fs::create_dir(&home).expect("the test's own folder is writable");
        let host = Host { namespace: format!("{}-{number}-{role}", self.name), home, v4, v6 };
        ip(&["netns", "add", &host.namespace]);
        let (port, peer) = (format!("port{number}"), &host.namespace);
        let wire = format!("link add {port} type veth peer name eth0 netns {peer}\n");
        ip_batch(&self.switch(), &(wire + &format!("link set {port} master lan up\n")));
        host.configure();
        host
    }

    fn switch(&self) -> String {
        format!("{}-lan", self.name)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        delete_namespace(&self.switch());
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// One machine: a network namespace and a home folder.
pub struct Host {
    namespace: String,
    home: PathBuf,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl Host {
    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let v4 = self.v4.map(IpAddr::V4);
        v4.into_iter().chain(self.v6.map(IpAddr::V6)).collect()
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Gives it one more address, with the length of its network's prefix.
    pub fn add_address(&self, address: IpAddr, prefix_bits: u8) {
        let nodad = if address.is_ipv6() { "nodad" } else { "" };
        ip_batch(
            &self.namespace,
            &format!("address add {address}/{prefix_bits} dev eth0 {nodad}\n"),
        );
    }

    /// Sends what is not for the link to `gateway`, on the link, instead of to nobody.
    pub fn route_through(&self, gateway: IpAddr) {
        let any = if gateway.is_ipv6() { "::/0" } else { "default" };
        let old = format!("route delete {any} dev eth0\n");
        let new = format!("route add {any} via {gateway} dev eth0\n");
        ip_batch(&self.namespace, &(old + &new));
    }

    /// Lays a wire of its own to another machine: an interface `name` with an address on each end.
    pub fn wire(&self, name: &str, address: &str, other: &Host, other_address: &str) {
        let there = &other.namespace;
        let wire = format!("link add {name} type veth peer name {name} netns {there}\n");
        let up = |address| format!("address add {address} dev {name}\nlink set {name} up\n");
        ip_batch(&self.namespace, &(wire + &up(address)));
        ip_batch(there, &up(other_address));
    }

    /// Runs `work` on this machine: the sockets it opens and the processes it starts stay there.
    ///
    /// It runs on a thread of its own, because only a thread can move between namespaces.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.namespace))
            .expect("`ip netns add` made the namespace");
        thread::scope(|scope| {
            let worker = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).expect("root may move");
                work()
            });
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn configure(&self) {
        self.run(|| {
            let set = |key: &str, value: &str| {
                let file = format!("/proc/sys/net/ipv6/conf/eth0/{key}");
                fs::write(&file, value).unwrap_or_else(|error| panic!("writing {file}: {error}"));
            };
            // An address must not spend its first second being checked for duplicates.
            set("accept_dad", "0");
            set("router_solicitations", "0");
            set("disable_ipv6", if self.v6.is_none() { "1" } else { "0" });
        });
        let mut batch = String::from("link set lo up\nlink set eth0 up\n");
        // The default routes carry multicast, and make strangers' addresses reachable on the link.
        if let Some(v4) = self.v4 {
            batch += &format!("address add {v4}/24 dev eth0\nroute add default dev eth0\n");
        }
        if let Some(v6) = self.v6 {
            batch += &format!("address add {v6}/64 dev eth0 nodad\nroute add ::/0 dev eth0\n");
        }
        ip_batch(&self.namespace, &batch);
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        delete_namespace(&self.namespace);
    }
}

fn demand_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "these tests make network namespaces: run them as root"
    );
}

/// Ends what a run that was killed left behind: namespaces named after a process that is no more.
fn remove_leftovers() {
    let mut leftovers = Vec::new();
    for folder in ["/run/netns", env!("CARGO_TARGET_TMPDIR")] {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            let owner = owner.and_then(|pid| pid.parse::<u32>().ok());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                leftovers.push((folder, name));
            }
        }
    }
    for (folder, name) in leftovers {
        if folder != "/run/netns" {
            let _ = fs::remove_dir_all(Path::new(folder).join(name));
            continue;
        }
        let pids = Command::new("ip").args(["netns", "pids", &name]).output();
        let pids = pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        for pid in pids.unwrap_or_default().lines().filter_map(|line| line.parse().ok()) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        delete_namespace(&name);
    }
}

fn delete_namespace(name: &str) {
    // Also runs while a test panics, where a second panic would hide the first.
    let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().unwrap_or_else(|error| {
        panic!("running `ip`: {error}; install it with: apt install iproute2")
    });
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`ip {}`: {complaint}", arguments.join(" "));
}

/// Runs several `ip` commands, one a line, in a namespace: one process instead of many.
fn ip_batch(namespace: &str, commands: &str) {
    let mut child = Command::new("ip")
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`ip` made the namespace a moment ago");
    let mut stdin = child.stdin.take().expect("stdin was asked to be a pipe");
    stdin.write_all(commands.as_bytes()).expect("`ip` reads its commands");
    drop(stdin);
    let output = child.wait_with_output().expect("a child can be waited for");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "`ip -n {namespace} -batch`:\n{commands}{complaint}");
}

/// What every namespace and folder of these tests begins with; the run's process id follows.
const PREFIX: &str = "perennial-interop-";
