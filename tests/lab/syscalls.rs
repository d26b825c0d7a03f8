//! Which system calls change something, and what they are about. For x86_64.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use libc::c_long;
use nix::sys::ptrace;
use nix::unistd::Pid;

/// The call that a traced thread is about to make, in words; nothing where it changes nothing, or where the
/// thread comes back from a call.
pub(crate) fn change(pid: Pid) -> Option<String> {
    let regs = ptrace::getregs(pid).ok()?;
    // What the kernel puts there at the entry of a call.
    if regs.rax as i64 != -i64::from(libc::ENOSYS) {
        return None;
    }
    let call = Call {
        pid,
        arguments: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8],
    };
    call.change(c_long::try_from(regs.orig_rax).ok()?)
}

struct Call {
    pid: Pid,
    arguments: [u64; 5],
}

impl Call {
    fn change(&self, number: c_long) -> Option<String> {
        let writes = libc::O_CREAT | libc::O_TRUNC;
        let words = match number {
            libc::SYS_write | libc::SYS_writev | libc::SYS_pwrite64 | libc::SYS_pwritev => {
                let to = self.target(0)?;
                if unseen(&to) {
                    return None;
                }
                format!("write {to} {}", self.data(number))
            }
            libc::SYS_sendto | libc::SYS_sendmsg => format!("send {}", self.target(0)?),
            libc::SYS_open if self.integer(1) & writes != 0 => format!("create {}", self.text(0)),
            libc::SYS_openat if self.integer(2) & writes != 0 => {
                format!("create {}", self.text(1))
            }
            libc::SYS_creat => format!("create {}", self.text(0)),
            libc::SYS_mkdir => format!("mkdir {}", self.text(0)),
            libc::SYS_mkdirat => format!("mkdir {}", self.text(1)),
            libc::SYS_rmdir => format!("rmdir {}", self.text(0)),
            libc::SYS_unlink => format!("unlink {}", self.text(0)),
            libc::SYS_unlinkat => format!("unlink {}", self.text(1)),
            libc::SYS_rename => format!("rename {} {}", self.text(0), self.text(1)),
            libc::SYS_renameat | libc::SYS_renameat2 => {
                format!("rename {} {}", self.text(1), self.text(3))
            }
            libc::SYS_link => format!("link {} {}", self.text(0), self.text(1)),
            libc::SYS_linkat => format!("link {} {}", self.text(1), self.text(3)),
            libc::SYS_symlink => format!("symlink {} {}", self.text(0), self.text(1)),
            libc::SYS_symlinkat => format!("symlink {} {}", self.text(0), self.text(2)),
            libc::SYS_mknod => format!("mknod {}", self.text(0)),
            libc::SYS_mknodat => format!("mknod {}", self.text(1)),
            libc::SYS_truncate => format!("truncate {}", self.text(0)),
            libc::SYS_ftruncate | libc::SYS_fallocate | libc::SYS_copy_file_range => {
                format!("change {}", self.target(0)?)
            }
            libc::SYS_chmod | libc::SYS_chown | libc::SYS_lchown => {
                format!("chmod or chown {}", self.text(0))
            }
            libc::SYS_fchmodat | libc::SYS_fchownat => format!("chmod or chown {}", self.text(1)),
            libc::SYS_fchmod | libc::SYS_fchown => format!("chmod or chown {}", self.target(0)?),
            libc::SYS_setxattr | libc::SYS_lsetxattr | libc::SYS_removexattr => {
                format!("setxattr {}", self.text(0))
            }
            libc::SYS_fsetxattr => format!("setxattr {}", self.target(0)?),
            libc::SYS_mount | libc::SYS_umount2 => format!("mount {}", self.text(1)),
            libc::SYS_bind => format!("bind {}", self.address(1)),
            libc::SYS_listen => format!("listen {}", self.target(0)?),
            libc::SYS_ioctl => {
                let on = self.target(0)?;
                let counts = on.starts_with("/dev/net/")
                    || on.starts_with("/dev/vfio")
                    || on.starts_with("/dev/iommu")
                    || on.starts_with("/dev/vhost")
                    || on.starts_with("socket:");
                if !counts || self.arguments[1] == libc::FIONBIO {
                    return None;
                }
                format!("ioctl {:#x} {on}", self.arguments[1])
            }
            libc::SYS_prlimit64 if self.arguments[2] != 0 => "prlimit".to_owned(),
            libc::SYS_setrlimit => "setrlimit".to_owned(),
            libc::SYS_fork | libc::SYS_vfork => "fork".to_owned(),
            // The flags of clone3 are the first word of its structure.
            libc::SYS_clone if !thread(self.arguments[0]) => "fork".to_owned(),
            libc::SYS_clone3 if !thread(self.word(self.arguments[0])) => "fork".to_owned(),
            libc::SYS_execve => format!("execve {}", self.text(0)),
            libc::SYS_execveat => format!("execve {}", self.text(1)),
            libc::SYS_kill | libc::SYS_pidfd_send_signal if self.arguments[1] != 0 => {
                format!("signal {}", self.arguments[1])
            }
            libc::SYS_init_module | libc::SYS_finit_module | libc::SYS_delete_module => {
                "kernel module".to_owned()
            }
            _ => return None,
        };
        Some(words)
    }

    fn integer(&self, argument: usize) -> i32 {
        // The upper half is not part of it.
        self.arguments[argument] as i32
    }

    /// What a descriptor is.
    fn target(&self, argument: usize) -> Option<String> {
        let fd = self.integer(argument);
        let path = fs::read_link(format!("/proc/{}/fd/{fd}", self.pid)).ok()?;
        Some(path.display().to_string())
    }

    fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let memory = File::open(format!("/proc/{}/mem", self.pid));
        let read = memory.and_then(|memory| memory.read_at(&mut bytes, address));
        bytes.truncate(read.unwrap_or(0));
        bytes
    }

    /// A string that ends with a zero.
    fn text(&self, argument: usize) -> String {
        let bytes = self.bytes(self.arguments[argument], 256);
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    fn word(&self, address: u64) -> u64 {
        let bytes = self.bytes(address, 8);
        bytes.try_into().map_or(0, u64::from_le_bytes)
    }

    /// The path of a Unix socket's address.
    fn address(&self, argument: usize) -> String {
        let bytes = self.bytes(self.arguments[argument], 110);
        let path = bytes.get(2..).unwrap_or_default();
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(path).into_owned()
    }

    /// The beginning of what is written.
    fn data(&self, number: c_long) -> String {
        let (address, length) = match number {
            libc::SYS_write | libc::SYS_pwrite64 => (self.arguments[1], self.arguments[2]),
            _ => (
                self.word(self.arguments[1]),
                self.word(self.arguments[1] + 8),
            ),
        };
        let length = usize::try_from(length).unwrap_or(0);
        let bytes = self.bytes(address, length.min(48));
        let more = if length > 48 { "…" } else { "" };
        format!("{:?}{more}", String::from_utf8_lossy(&bytes))
    }
}

fn thread(flags: u64) -> bool {
    flags & libc::CLONE_THREAD as u64 != 0
}

/// Whether nobody but the process and who started it sees what is written there.
fn unseen(target: &str) -> bool {
    [
        "pipe:",
        "anon_inode:",
        "/dev/null",
        "/dev/tty",
        "/dev/pts/",
        "/lab/",
    ]
    .iter()
    .any(|start| target.starts_with(start))
}
