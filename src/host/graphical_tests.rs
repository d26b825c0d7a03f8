//! Sessions below a folder that stands for the host.

use super::*;
use crate::host::Sysfs;

struct Tree(tempfile::TempDir, u32);

impl Tree {
    fn new() -> Self {
        let uid = nix::unistd::Uid::effective().as_raw();
        let tree = Self(tempfile::tempdir().unwrap(), uid);
        tree.file(
            "etc/passwd",
            &format!("ann:x:{uid}:100:Ann:/home/ann:/bin/sh\n"),
        );
        tree
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self) -> Vec<Session> {
        read(&Roots {
            sysfs: Sysfs::at(self.0.path().join("sys")),
            root: self.0.path().to_owned(),
            cache: None,
            user_config: None,
            around_devices: None,
            leases: self.0.path().join("leases"),
        })
    }
}

#[test]
fn what_the_users_own_processes_use_is_taken() {
    let tree = Tree::new();
    let uid = tree.1;
    tree.file(
        "proc/77/environ",
        &format!("HOME=/home/ann\0DISPLAY=:3.0\0XAUTHORITY=/tmp/cookie\0XDG_RUNTIME_DIR=/run/user/{uid}\0"),
    );
    // Nobody answers there any more.
    tree.file("proc/12/environ", "DISPLAY=:9\0");
    tree.file("tmp/.X11-unix/X3", "");
    tree.file("tmp/cookie", "");
    tree.file(&format!("run/user/{uid}/pulse/native"), "");
    let found = tree.read();
    assert_eq!(found.len(), 1, "{found:?}");
    let ann = &found[0];
    assert_eq!((ann.uid, ann.user.as_str()), (uid, "ann"));
    assert_eq!(ann.x11.as_deref(), Some(":3.0"));
    assert_eq!(ann.xauthority, Some("/tmp/cookie".into()));
    assert_eq!(
        ann.pulse,
        Some(format!("/run/user/{uid}/pulse/native").into())
    );
    assert!(ann.wayland.is_none() && ann.pipewire.is_none());
}

#[test]
fn logind_and_the_runtime_directory_tell_too() {
    let tree = Tree::new();
    let uid = tree.1;
    tree.file(
        "run/systemd/sessions/2",
        &format!("# comment\nUID={uid}\nCLASS=user\nACTIVE=1\nTYPE=x11\nDISPLAY=:0\n"),
    );
    tree.file(
        "run/systemd/sessions/c1",
        "UID=113\nCLASS=greeter\nDISPLAY=:0\n",
    );
    tree.file(
        "proc/net/unix",
        "Num\n0000: 00000002 0 0 0001 01 1 @/tmp/.X11-unix/X0\n",
    );
    tree.file(&format!("run/user/{uid}/gdm/Xauthority"), "");
    tree.file(&format!("run/user/{uid}/wayland-0"), "");
    tree.file(&format!("run/user/{uid}/pipewire-0"), "");
    let found = tree.read();
    assert_eq!(found.len(), 1, "{found:?}");
    let ann = &found[0];
    assert_eq!(ann.x11.as_deref(), Some(":0"));
    assert_eq!(
        ann.xauthority,
        Some(format!("/run/user/{uid}/gdm/Xauthority").into())
    );
    assert_eq!(
        ann.wayland,
        Some(format!("/run/user/{uid}/wayland-0").into())
    );
    assert_eq!(
        ann.pipewire,
        Some(format!("/run/user/{uid}/pipewire-0").into())
    );
    assert!(ann.is_graphical());
}

#[test]
fn who_has_no_screen_and_no_sound_is_not_told() {
    let tree = Tree::new();
    tree.file(&format!("run/user/{}/bus", tree.1), "");
    tree.file("proc/5/environ", "DISPLAY=:0\0WAYLAND_DISPLAY=wayland-7\0");
    assert_eq!(tree.read(), []);
}

/// Whoever can start a program can say anything in its environment.
#[test]
fn what_others_say_is_not_believed() {
    let tree = Tree::new();
    if tree.1 != 0 {
        eprintln!("skipped: not root");
        return;
    }
    tree.file("tmp/cookie", "");
    tree.file("tmp/run/pulse/native", "");
    tree.file("tmp/.X11-unix/X4", "");
    let environ = "DISPLAY=evil:0\0XAUTHORITY=/tmp/cookie\0XDG_RUNTIME_DIR=/tmp/run\0";
    tree.file("proc/77/environ", environ);
    std::os::unix::fs::chown(tree.0.path().join("proc/77/environ"), Some(4242), None).unwrap();
    assert_eq!(tree.read(), []);
    // A server of his own is a session; where logind keeps records, one that nobody has to believe in.
    tree.file("proc/77/environ", &environ.replace("evil:0", ":4"));
    let told = |tree: &Tree| {
        let found = tree.read();
        let [one] = found.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!((one.uid, one.x11.as_deref()), (4242, Some(":4")));
        assert!(one.xauthority.is_none() && one.pulse.is_none(), "{one:?}");
        one.known
    };
    assert!(told(&tree));
    tree.file("run/systemd/sessions/1", "UID=1000\nCLASS=user\nACTIVE=1\n");
    assert!(!told(&tree));
    tree.file(
        "run/systemd/sessions/2",
        "UID=4242\nCLASS=user\nACTIVE=1\nTYPE=tty\nREMOTE=1\n",
    );
    assert!(!told(&tree));
    let local = "UID=4242\nCLASS=user\nACTIVE=1\nTYPE=tty\nSEAT=seat0\nREMOTE=0\n";
    tree.file("run/systemd/sessions/3", local);
    assert!(told(&tree));
}
