//! Device registers: the one place that turns numbers into memory.
//!
//! An address is checked against the machine's map when a [`Register`] is made, for most of them
//! at compile time. No variable of the program lies in that map, so reading and writing there
//! changes none. What remains is the addresses that a device is told to write to: only `nic` tells
//! any, and they are those of memory that is shared for good.

use core::marker::PhantomData;
use core::ptr;

/// A device register of type `T`: `u8`, `u16` or `u32`.
#[derive(Clone, Copy)]
pub struct Register<T> {
    address: usize,
    width: PhantomData<T>,
}

impl<T: Copy> Register<T> {
    /// The register at `address`.
    ///
    /// # Panics
    ///
    /// When no device lies there, or the address is not a multiple of the register's width.
    pub const fn at(address: usize) -> Register<T> {
        assert!(is_device(address, size_of::<T>()) && address.is_multiple_of(size_of::<T>()));
        Register { address, width: PhantomData }
    }

    /// What the device says.
    pub fn read(self) -> T {
        // SAFETY: `at` has checked that this is a device's address, and aligned. `T` is a number.
        unsafe { ptr::with_exposed_provenance::<T>(self.address).read_volatile() }
    }

    /// Tells the device.
    pub fn write(self, value: T) {
        // SAFETY: as for `read`; and no variable lies there that this could change.
        unsafe { ptr::with_exposed_provenance_mut::<T>(self.address).write_volatile(value) }
    }
}

/// Copies what a memory-mapped device holds from `address` on.
///
/// # Panics
///
/// When no device lies there.
pub fn copy_from(address: usize, bytes: &mut [u8]) {
    assert!(is_device(address, bytes.len()));
    let from = ptr::with_exposed_provenance::<u8>(address);
    // SAFETY: all of it is a device's, as just checked, and `bytes` are the program's.
    unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) }
}

const fn is_device(address: usize, length: usize) -> bool {
    let mut i = 0;
    while i < DEVICES.len() {
        let (from, to) = DEVICES[i];
        if address >= from && address < to && length <= to - address {
            return true;
        }
        i += 1;
    }
    false
}

/// The map of QEMU's `virt` machine, as far as it is used here: from, to.
const DEVICES: [(usize, usize); 5] = [
    (0x0010_0000, 0x0010_1000), // the way out
    (0x0200_0000, 0x0201_0000), // clock
    (0x0c00_0000, 0x1000_0000), // interrupt controller
    (0x1000_0000, 0x1000_9000), // console, and eight slots for virtio
    (0x2200_0000, 0x2400_0000), // second NOR bank
];
