//! The network interface: virtio-net behind virtio-mmio, as smoltcp wants it.
//!
//! Driver and device share two rings, one for each way. A [`Ring`] consists of atomics, for the
//! device writes there at any time; descriptor `n` stands for frame `n` for good, so that all
//! there is to say is whose frame `n` is just now ([`Queue`] keeps the bits). virtio 1.x only: QEMU
//! needs `-global virtio-mmio.force-legacy=false`.
//!
//! What arrives while all frames are out is dropped by the device, and TCP sends it again; with no
//! frame free to send from, smoltcp is told to come back later.

use crate::mmio::Register;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering, fence};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// The registers of a slot with a network interface in it.
#[derive(Clone, Copy)]
pub struct Port {
    base: usize,
    /// Its line at the interrupt controller.
    pub line: u32,
    features: u32,
}

impl Port {
    /// Its address (EUI-48).
    pub fn hardware_address(self) -> [u8; 6] {
        core::array::from_fn(|i| Register::<u8>::at(self.base + CONFIG + i).read())
    }

    /// Whether a cable is in; yes, if it cannot tell.
    pub fn carrier(self) -> bool {
        let status = Register::<u16>::at(self.base + CONFIG + 6);
        self.features & STATUS_OFFERED == 0 || status.read() & LINK_UP != 0
    }

    /// Takes back its interrupt; to be called before its queues are looked at.
    pub fn acknowledge(self) {
        self.register(INTERRUPT_ACK).write(self.register(INTERRUPT_STATUS).read());
    }

    fn find() -> Option<Port> {
        let mut slots = (0..SLOTS).map(|i| Port {
            base: SLOT + SLOT_BYTES * i,
            line: i as u32 + 1,
            features: 0,
        });
        slots.find(|port| {
            port.register(MAGIC).read() == u32::from_le_bytes(*b"virt")
                && port.register(VERSION).read() == 2
                && port.register(DEVICE_ID).read() == NETWORK
        })
    }

    fn register(self, offset: usize) -> Register<u32> {
        Register::at(self.base + offset)
    }

    /// Agrees on what both can do. Queues come next, then [`DRIVER_OK`].
    fn negotiate(&mut self) {
        let status = self.register(STATUS);
        status.write(0);
        status.write(ACKNOWLEDGE | DRIVER);
        self.register(DEVICE_FEATURES_SELECT).write(0);
        self.features = self.register(DEVICE_FEATURES).read() & (ADDRESS_OFFERED | STATUS_OFFERED);
        for (half, wanted) in [(0, self.features), (1, VERSION_1)] {
            self.register(DRIVER_FEATURES_SELECT).write(half);
            self.register(DRIVER_FEATURES).write(wanted);
        }
        status.write(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        assert!(status.read() & FEATURES_OK != 0, "the network interface speaks virtio 1.x");
    }
}

/// The network interface.
pub struct Nic {
    receive: Queue,
    send: Queue,
}

impl Nic {
    /// Finds the interface and starts it.
    ///
    /// # Panics
    ///
    /// When there is none, and when called twice.
    pub fn start() -> (Nic, Port) {
        static STARTED: AtomicBool = AtomicBool::new(false);
        assert!(!STARTED.swap(true, Ordering::Relaxed), "the rings have one owner");
        static RINGS: [Ring; 2] = [const { Ring::new() }; 2];
        static FRAMES: [Frames; 2] = [const { Frames::new() }; 2];

        let mut port = Port::find().expect("there is a network interface of virtio 1.x");
        port.negotiate();
        let [receive, send] = [0, 1].map(|i| Queue::start(port, i, &RINGS[i], &FRAMES[i]));
        let mut nic = Nic { receive, send };
        nic.send.ring.available.flags.store(NO_INTERRUPT, Ordering::Relaxed);
        port.register(STATUS).write(ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
        for frame in 0..DEPTH {
            nic.receive.hand_over(frame, FRAME_BYTES, DEVICE_WRITES);
        }
        (nic, port)
    }
}

impl Device for Nic {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Sending<'_>)> {
        let sending = Sending::on(&mut self.send)?;
        self.receive.is_returned().then_some((Received { queue: &mut self.receive }, sending))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sending<'_>> {
        Sending::on(&mut self.send)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES - HEADER_BYTES;
        capabilities.max_burst_size = Some(DEPTH);
        capabilities
    }
}

/// A frame that has come. It stays the first in its queue until it has been read.
pub struct Received<'a> {
    queue: &'a mut Queue,
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let (frame, length) = self.queue.take_back().expect("`receive` saw one");
        let bytes = self.queue.frame(frame);
        let result = read(bytes.get(HEADER_BYTES..length).unwrap_or(&[]));
        self.queue.hand_over(frame, FRAME_BYTES, DEVICE_WRITES);
        result
    }
}

/// A frame free to send from.
pub struct Sending<'a> {
    queue: &'a mut Queue,
    frame: usize,
}

impl<'a> Sending<'a> {
    fn on(queue: &'a mut Queue) -> Option<Sending<'a>> {
        while queue.take_back().is_some() {}
        let frame = queue.first_ours()?;
        Some(Sending { queue, frame })
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let to = HEADER_BYTES + length;
        // Nobody writes the header of a frame to send: it stays 0, which asks for nothing.
        let result = write(&mut self.queue.frame(self.frame)[HEADER_BYTES..to]);
        self.queue.hand_over(self.frame, to, 0);
        result
    }
}

/// One way of frames.
struct Queue {
    port: Port,
    number: usize,
    ring: &'static Ring,
    frames: &'static Frames,
    /// A bit for each frame that is the driver's; the others are the device's.
    ours: u8,
    /// Frames handed over, and taken back, since the start.
    handed: u16,
    taken: u16,
}

impl Queue {
    fn start(port: Port, number: usize, ring: &'static Ring, frames: &'static Frames) -> Queue {
        port.register(QUEUE_SELECT).write(number as u32);
        assert!(port.register(QUEUE_LENGTH_MAX).read() >= DEPTH as u32, "the queue is there");
        port.register(QUEUE_LENGTH).write(DEPTH as u32);
        let parts = [
            (QUEUE_DESCRIPTORS, (&raw const ring.descriptors).expose_provenance()),
            (QUEUE_AVAILABLE, (&raw const ring.available).expose_provenance()),
            (QUEUE_USED, (&raw const ring.used).expose_provenance()),
        ];
        for (register, address) in parts {
            port.register(register).write(address as u32);
            port.register(register + 4).write(0);
        }
        for (frame, descriptor) in ring.descriptors.iter().enumerate() {
            let address = frames.0[frame].get().expose_provenance();
            descriptor.address.store(address as u32, Ordering::Relaxed);
        }
        port.register(QUEUE_READY).write(1);
        Queue { port, number, ring, frames, ours: (1 << DEPTH) - 1, handed: 0, taken: 0 }
    }

    fn first_ours(&self) -> Option<usize> {
        (self.ours != 0).then(|| self.ours.trailing_zeros() as usize)
    }

    fn frame(&mut self, frame: usize) -> &mut [u8; FRAME_BYTES] {
        assert!(self.ours & 1 << frame != 0, "a frame that the device may write is not looked at");
        // SAFETY: the frame is not the device's, as just checked, and this queue is the only one
        // over these frames (`Nic::start` runs once); `&mut self` keeps it from lending twice.
        unsafe { &mut *self.frames.0[frame].get() }
    }

    /// Gives the first `length` bytes of a frame to the device.
    fn hand_over(&mut self, frame: usize, length: usize, flags: u16) {
        let descriptor = &self.ring.descriptors[frame];
        descriptor.length.store(length as u32, Ordering::Relaxed);
        descriptor.flags.store(flags, Ordering::Relaxed);
        self.ours &= !(1 << frame);
        let available = &self.ring.available;
        available.frames[usize::from(self.handed) % DEPTH].store(frame as u16, Ordering::Relaxed);
        self.handed = self.handed.wrapping_add(1);
        available.count.store(self.handed, Ordering::Release);
        // The device may have gone to sleep just before it could see the count.
        fence(Ordering::SeqCst);
        if self.ring.used.flags.load(Ordering::Relaxed) & NO_NOTIFY == 0 {
            self.port.register(QUEUE_NOTIFY).write(self.number as u32);
        }
    }

    /// Whether the device has given back a frame.
    fn is_returned(&self) -> bool {
        self.ring.used.count.load(Ordering::Acquire) != self.taken
    }

    /// The next frame the device gives back, and how much of it holds something.
    fn take_back(&mut self) -> Option<(usize, usize)> {
        self.is_returned().then(|| {
            let entry = &self.ring.used.frames[usize::from(self.taken) % DEPTH];
            self.taken = self.taken.wrapping_add(1);
            let frame = entry[0].load(Ordering::Relaxed) as usize;
            assert!(frame < DEPTH && self.ours & 1 << frame == 0, "the device had that frame");
            self.ours |= 1 << frame;
            (frame, FRAME_BYTES.min(entry[1].load(Ordering::Relaxed) as usize))
        })
    }
}

/// What driver and device share of a queue (virtio 1.2, section 2.7).
#[repr(C, align(16))]
struct Ring {
    descriptors: [Descriptor; DEPTH],
    available: Available,
    used: Used,
}

/// Where a frame lies. The upper half of its address and the next descriptor stay 0.
#[repr(C, align(16))]
struct Descriptor {
    address: AtomicU32,
    _address_high: u32,
    length: AtomicU32,
    flags: AtomicU16,
    _next: u16,
}

/// The driver's: frames handed over, `count` of them since the start.
#[repr(C, align(2))]
struct Available {
    flags: AtomicU16,
    count: AtomicU16,
    frames: [AtomicU16; DEPTH],
}

/// The device's: frames given back, and how many bytes it wrote into each.
#[repr(C, align(4))]
struct Used {
    flags: AtomicU16,
    count: AtomicU16,
    frames: [[AtomicU32; 2]; DEPTH],
}

impl Ring {
    const fn new() -> Ring {
        Ring {
            descriptors: [const { Descriptor::new() }; DEPTH],
            available: Available {
                flags: AtomicU16::new(0),
                count: AtomicU16::new(0),
                frames: [const { AtomicU16::new(0) }; DEPTH],
            },
            used: Used {
                flags: AtomicU16::new(0),
                count: AtomicU16::new(0),
                frames: [const { [const { AtomicU32::new(0) }; 2] }; DEPTH],
            },
        }
    }
}

impl Descriptor {
    const fn new() -> Descriptor {
        Descriptor {
            address: AtomicU32::new(0),
            _address_high: 0,
            length: AtomicU32::new(0),
            flags: AtomicU16::new(0),
            _next: 0,
        }
    }
}

/// The frames of a queue, each with virtio's header in front.
struct Frames([UnsafeCell<[u8; FRAME_BYTES]>; DEPTH]);

impl Frames {
    const fn new() -> Frames {
        Frames([const { UnsafeCell::new([0; FRAME_BYTES]) }; DEPTH])
    }
}

// SAFETY: there is one thread, and `Queue::frame` is the only one to look inside.
unsafe impl Sync for Frames {}

/// Frames each way: a power of two. Four take up an answer's segments while the next are written.
const DEPTH: usize = 4;

/// virtio's header, and a frame without VLAN tag or checksum.
const HEADER_BYTES: usize = 12;
const FRAME_BYTES: usize = HEADER_BYTES + 1514;

/// The machine's slots for virtio.
const SLOTS: usize = 8;
const SLOT: usize = 0x1000_1000;
const SLOT_BYTES: usize = 0x1000;

/// Registers of a slot (virtio 1.2, section 4.2.2). Those of a queue's parts are two words each.
const MAGIC: usize = 0x000;
const VERSION: usize = 0x004;
const DEVICE_ID: usize = 0x008;
const DEVICE_FEATURES: usize = 0x010;
const DEVICE_FEATURES_SELECT: usize = 0x014;
const DRIVER_FEATURES: usize = 0x020;
const DRIVER_FEATURES_SELECT: usize = 0x024;
const QUEUE_SELECT: usize = 0x030;
const QUEUE_LENGTH_MAX: usize = 0x034;
const QUEUE_LENGTH: usize = 0x038;
const QUEUE_READY: usize = 0x044;
const QUEUE_NOTIFY: usize = 0x050;
const INTERRUPT_STATUS: usize = 0x060;
const INTERRUPT_ACK: usize = 0x064;
const STATUS: usize = 0x070;
const QUEUE_DESCRIPTORS: usize = 0x080;
const QUEUE_AVAILABLE: usize = 0x090;
const QUEUE_USED: usize = 0x0a0;
const CONFIG: usize = 0x100;

const NETWORK: u32 = 1;

/// Bits of the status register.
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;

/// Features: VIRTIO_NET_F_MAC and _STATUS in the lower half, VIRTIO_F_VERSION_1 in the upper.
const ADDRESS_OFFERED: u32 = 1 << 5;
const STATUS_OFFERED: u32 = 1 << 16;
const VERSION_1: u32 = 1;

/// Flags: of a descriptor, of the available ring, of the used ring; and of the link.
const DEVICE_WRITES: u16 = 2;
const NO_INTERRUPT: u16 = 1;
const NO_NOTIFY: u16 = 1;
const LINK_UP: u16 = 1;
