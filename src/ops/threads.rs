//! Where threads run and how they are scheduled. Nothing of it outlives them, so there is nothing to take back.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

use crate::profile::schema::SchedulerPolicy;
use crate::units::CpuList;

/// The bits of one word of the kernel's sets.
const BITS: u32 = libc::c_ulong::BITS;
/// The most words of a set that are asked for: as many CPUs as [`CpuList`] can name.
const WORDS: usize = 65_536 / BITS as usize;

/// A set of CPUs as the kernel wants it.
fn mask(list: &CpuList) -> Vec<libc::c_ulong> {
    let last = list.cpus().last().copied().unwrap_or(0);
    let mut words = vec![0; (last / BITS) as usize + 1];
    for cpu in list.cpus() {
        if let Some(word) = words.get_mut((cpu / BITS) as usize) {
            *word |= 1 << (cpu % BITS);
        }
    }
    words
}

fn set(thread: libc::pid_t, mask: &[libc::c_ulong]) -> io::Result<()> {
    // SAFETY: the kernel reads that many bytes of a slice that lives until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            thread,
            size_of_val(mask),
            mask.as_ptr(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The CPUs that a thread may run on; 0 is the one that asks.
///
/// # Errors
/// It is gone.
pub fn cpus(thread: u32) -> io::Result<CpuList> {
    let mut words: Vec<libc::c_ulong> = vec![0; WORDS];
    let thread = pid(thread)?;
    // SAFETY: the kernel writes at most that many bytes into a vector of that size.
    let written = unsafe {
        libc::syscall(
            libc::SYS_sched_getaffinity,
            thread,
            size_of_val(words.as_slice()),
            words.as_mut_ptr(),
        )
    };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    let set = (0u32..).zip(&words).flat_map(|(at, word)| {
        let bits = (0..BITS).filter(move |bit| word >> bit & 1 == 1);
        bits.map(move |bit| at * BITS + bit)
    });
    CpuList::of(set).ok_or_else(|| io::Error::other("the kernel tells of no CPU"))
}

/// Lets a thread run on those CPUs and no others. What comes of it is what [`cpus`] says afterwards: the kernel
/// leaves out those that a control group keeps from it.
///
/// # Errors
/// It is gone, is another user's, or none of the CPUs is for it.
pub fn pin(thread: u32, list: &CpuList) -> io::Result<()> {
    set(pid(thread)?, &mask(list))
}

/// Lets a program and all that it starts run on those CPUs, from its first instruction.
pub fn start_on(command: &mut Command, list: &CpuList) {
    let mask = mask(list);
    // SAFETY: the closure runs between fork and exec. It makes one system call with a vector that was made
    // before the fork, and allocates nothing.
    unsafe {
        command.pre_exec(move || set(0, &mask));
    }
}

/// How a thread is scheduled: its policy, and its priority in real time.
///
/// # Errors
/// It is gone.
pub fn scheduling(thread: u32) -> io::Result<(i32, i32)> {
    let mut parameters = libc::sched_param { sched_priority: 0 };
    let thread = pid(thread)?;
    // The system calls themselves: musl's functions of these names do nothing.
    // SAFETY: a plain number in, a plain number out.
    let policy = unsafe { libc::syscall(libc::SYS_sched_getscheduler, thread) };
    // SAFETY: the kernel writes into a structure of the kind that it expects, which lives until the call
    // returns.
    let result = unsafe { libc::syscall(libc::SYS_sched_getparam, thread, &raw mut parameters) };
    if policy < 0 || result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((
        i32::try_from(policy).unwrap_or(-1),
        parameters.sched_priority,
    ))
}

/// The kernel's number of a policy.
pub fn number(policy: SchedulerPolicy) -> i32 {
    match policy {
        SchedulerPolicy::Fifo => libc::SCHED_FIFO,
        SchedulerPolicy::Rr => libc::SCHED_RR,
        SchedulerPolicy::Other => libc::SCHED_OTHER,
    }
}

/// Has a thread scheduled so.
///
/// # Errors
/// It is gone, is another user's, or may not have that priority.
pub fn schedule(thread: u32, policy: SchedulerPolicy, priority: u32) -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: i32::try_from(priority).unwrap_or(i32::MAX),
    };
    let thread = pid(thread)?;
    // SAFETY: the kernel reads a structure of the kind that it expects, which lives until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            thread,
            number(policy),
            &raw const parameters,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The threads of a process.
///
/// # Errors
/// It is gone.
pub fn of_process(process: u32) -> io::Result<Vec<u32>> {
    let entries = std::fs::read_dir(format!("/proc/{process}/task"))?;
    let mut threads = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        threads.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(threads)
}

fn pid(thread: u32) -> io::Result<libc::pid_t> {
    libc::pid_t::try_from(thread).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    #[test]
    fn sets_are_the_kernels() {
        let list: CpuList = "0-1,63,64,130".parse().unwrap();
        let words = mask(&list);
        assert_eq!(words.len(), 3);
        assert_eq!(words, [1 << 63 | 0b11, 1, 0b100]);
    }

    #[test]
    fn a_program_runs_where_it_is_started() {
        let all = cpus(0).unwrap();
        let one = CpuList::of(all.cpus().last().copied()).unwrap();
        let mut command = Command::new("grep");
        command.args(["Cpus_allowed_list", "/proc/self/status"]);
        start_on(&mut command, &one);
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(said.split_whitespace().last().unwrap(), one.to_string());
        // Not this one.
        assert_eq!(cpus(0).unwrap(), all);
    }

    #[test]
    fn a_thread_is_moved_and_asked() {
        let all = cpus(0).unwrap();
        let one = CpuList::of(all.cpus().first().copied()).unwrap();
        let moved = std::thread::spawn(move || {
            let me = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
            assert!(of_process(std::process::id()).unwrap().contains(&me));
            pin(me, &one).unwrap();
            schedule(me, SchedulerPolicy::Other, 0).unwrap();
            (cpus(me).unwrap() == one, scheduling(me).unwrap())
        });
        assert_eq!(moved.join().unwrap(), (true, (0, 0)));
        // CPUs that no host has.
        let none = pin(0, &"65000".parse().unwrap()).unwrap_err();
        assert_eq!(none.raw_os_error(), Some(libc::EINVAL));
    }
}
