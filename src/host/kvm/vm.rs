//! A throw-away virtual machine that counts down, and the stopwatch beside it.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use nix::errno::Errno;
use nix::libc;

#[cfg(target_arch = "aarch64")]
use super::vm_arm as arch;
#[cfg(target_arch = "x86_64")]
use super::vm_x86 as arch;
use super::{Abilities, Measured};

/// Where the code is, from the beginning of the guest's memory.
pub(super) const CODE_AT: u64 = 0x1000;

/// The loop's rounds: some 30 µs on a CPU of today.
const ROUNDS: u64 = 100_000;

/// The rounds of a first, short look. Where every instruction is emulated by the host above, a signal
/// does not end `KVM_RUN` early: the long loop would take what it takes.
const SHORT_ROUNDS: u64 = 1_000;

/// A short look that is this many times slower than natively needs no long one.
const HOPELESS: f64 = 100.0;

/// What the probe could not do.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// An ioctl said no.
    #[error("{call} failed")]
    Call {
        /// The ioctl's name.
        call: &'static str,
        /// The kernel's word.
        source: Errno,
    },
    /// The vCPU stopped in a way that it should not.
    #[error("the virtual CPU stopped with {0}")]
    Exit(String),
    /// Another interface than the one that has been stable since 2007.
    #[error("KVM speaks version {0} of its interface, not 12")]
    Version(i32),
    /// No memory for the guest.
    #[error("no memory for the virtual machine")]
    Memory,
}

impl Error {
    pub(super) fn at(call: &'static str) -> impl Fn(kvm_ioctls::Error) -> Self {
        move |e| Self::Call {
            call,
            source: Errno::from_raw(e.errno()),
        }
    }

    /// The kernel's word, where it was an ioctl that failed.
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Self::Call { source, .. } => Some(*source),
            _ => None,
        }
    }
}

/// The guest's memory: 1 MiB, aligned for pages of up to 64 KiB.
pub(super) struct Memory {
    at: NonNull<u8>,
}

impl Memory {
    const LAYOUT: Layout = match Layout::from_size_align(1 << 20, 1 << 16) {
        Ok(layout) => layout,
        Err(_) => panic!("1 MiB aligned to 64 KiB is a layout"),
    };

    fn new() -> Result<Self, Error> {
        // SAFETY: the layout's size is not zero.
        let at = NonNull::new(unsafe { alloc_zeroed(Self::LAYOUT) }).ok_or(Error::Memory)?;
        Ok(Self { at })
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        assert!(offset + bytes.len() <= Self::LAYOUT.size());
        // SAFETY: it is inside the allocation, as just asserted; the guest, which shares this memory,
        // does not run while we write.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.at.as_ptr().add(offset),
                bytes.len(),
            );
        }
    }

    /// Writes a number at an offset from the memory's beginning.
    #[cfg_attr(
        target_arch = "aarch64",
        expect(dead_code, reason = "page tables are for x86_64")
    )]
    pub(super) fn write_u64(&self, offset: u64, value: u64) {
        self.write(offset, &value.to_le_bytes());
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this very layout in `new`, and freed only here.
        unsafe { dealloc(self.at.as_ptr(), Self::LAYOUT) };
    }
}

/// The virtual machine. The fields are dropped in this order: vCPU, VM, memory.
pub(super) struct Probe {
    cpu: VcpuFd,
    _vm: VmFd,
    _memory: Memory,
}

impl Probe {
    /// Makes the virtual machine, and asks what KVM can do while at it.
    pub(super) fn new(kvm: &Kvm) -> Result<(Self, Abilities), Error> {
        match kvm.get_api_version() {
            12 => {}
            other => return Err(Error::Version(other)),
        }
        let memory = Memory::new()?;
        memory.write(CODE_AT, arch::CODE);
        let vm = arch::create(kvm)?;
        let mut abilities = Abilities {
            max_vcpus: u32::try_from(kvm.get_max_vcpus()).unwrap_or(u32::MAX),
            recommended_vcpus: u32::try_from(kvm.get_nr_vcpus()).unwrap_or(u32::MAX),
            ..Abilities::default()
        };
        arch::abilities(kvm, &vm, &mut abilities);
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: arch::GUEST_BASE,
            memory_size: Memory::LAYOUT.size() as u64,
            userspace_addr: memory.at.as_ptr() as u64,
        };
        // SAFETY: the memory outlives the VM (see the order of the fields) and nothing else uses it.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(Error::at("KVM_SET_USER_MEMORY_REGION"))?;
        let cpu = vm.create_vcpu(0).map_err(Error::at("KVM_CREATE_VCPU"))?;
        arch::set_up(kvm, &vm, &cpu, &memory)?;
        let probe = Self {
            cpu,
            _vm: vm,
            _memory: memory,
        };
        Ok((probe, abilities))
    }

    /// Runs the loop; `Ok` with the rounds that were done, all of them or as many as `limit` allowed.
    /// The caller's interval timer makes KVM come back to look at the clock.
    fn run(&mut self, rounds: u64, limit: Duration) -> Result<u64, Error> {
        arch::start(&self.cpu, rounds)?;
        let until = Instant::now() + limit;
        loop {
            match self.cpu.run() {
                Ok(exit) if arch::is_end(&exit) => return Ok(rounds),
                Ok(VcpuExit::Intr) => {}
                Ok(exit) => return Err(Error::Exit(exit_name(&exit))),
                Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {}
                Err(e) => return Err(Error::at("KVM_RUN")(e)),
            }
            if Instant::now() >= until {
                return Ok(rounds - arch::left(&self.cpu)?.min(rounds));
            }
        }
    }

    /// Runs the loop natively and in the virtual machine, and says how long each took. `limit` is for
    /// one run.
    pub(super) fn measure(&mut self, limit: Duration) -> Result<Measured, Error> {
        let _timer = Timer::every(Duration::from_millis(5));
        // The first entry takes the page faults.
        let (took, done) = time(|| self.run(1, limit));
        if done? == 0 {
            return Ok(measured(1, 0, took, Duration::ZERO));
        }
        let short = self.best_of_three(SHORT_ROUNDS, limit)?;
        if short.ratio() > HOPELESS {
            return Ok(short);
        }
        self.best_of_three(ROUNDS, limit)
    }

    /// The cost of entering and leaving the guest is measured with a loop of one round and taken off:
    /// on a nested host it is far more than the loop's. Preemption lengthens single runs on a busy
    /// host, so the best of three counts, of each.
    fn best_of_three(&mut self, rounds: u64, limit: Duration) -> Result<Measured, Error> {
        let (mut native, mut entry) = (Duration::MAX, Duration::MAX);
        for _ in 0..3 {
            native = native.min(time(|| arch::native(rounds)).0);
            let (took, done) = time(|| self.run(1, limit));
            done?;
            entry = entry.min(took);
        }
        // On an emulated host all is slow, and slow alike.
        let limit = limit.max(native * 20);
        let mut best = measured(rounds, 0, Duration::MAX, native);
        for _ in 0..3 {
            let (took, done) = time(|| self.run(rounds, limit));
            let this = measured(rounds, done?, took.saturating_sub(entry), native);
            let complete = this.guest_rounds == rounds && took < limit;
            if this.ratio() < best.ratio() {
                best = this;
            }
            // One that ran out of time is not going to do better, and the caller is waiting.
            if !complete {
                break;
            }
        }
        Ok(best)
    }
}

fn measured(rounds: u64, guest_rounds: u64, guest: Duration, native: Duration) -> Measured {
    let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    Measured {
        rounds,
        guest_rounds,
        guest_ns: ns(guest),
        native_ns: ns(native),
    }
}

fn time<T>(what: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = what();
    (start.elapsed(), result)
}

/// A signal at every interval for as long as this lives, so that `KVM_RUN` returns.
/// Its handler stays when it is dropped: a last signal may still be on its way, and this process is the
/// probe's own.
struct Timer;

extern "C" fn nothing(_: libc::c_int) {}

impl Timer {
    fn every(interval: Duration) -> Self {
        use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
        // No SA_RESTART: the interruption is what the signal is for.
        let ours = SigAction::new(
            SigHandler::Handler(nothing),
            SaFlags::empty(),
            SigSet::empty(),
        );
        // SAFETY: the handler does nothing, which is safe at any time.
        unsafe { sigaction(Signal::SIGALRM, &ours) }
            .expect("SIGALRM is a signal that can be handled");
        set_timer(interval);
        Self
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        set_timer(Duration::ZERO);
    }
}

fn set_timer(interval: Duration) {
    let at = libc::timeval {
        tv_sec: 0,
        tv_usec: libc::suseconds_t::from(interval.subsec_micros() as i32),
    };
    let value = libc::itimerval {
        it_interval: at,
        it_value: at,
    };
    // SAFETY: the value is valid for the call, and nothing is asked back.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &value, std::ptr::null_mut()) };
}

/// The exit's name, without its data.
fn exit_name(exit: &VcpuExit<'_>) -> String {
    let text = format!("{exit:?}");
    let end = text.find(|c: char| !c.is_ascii_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}
