//! `mvm unit`

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::output::{self, Format, FormatArg};
use super::{Context, Failure};
use crate::error::{ExitCode, Report};
use crate::host::Init;
use crate::host::init::{lingers, systemd_version};
use crate::ids::GuestName;
use crate::machine;
use crate::ops::{process, units};
use crate::profile::schema::Layer;
use crate::profile::{self, Choices};
use crate::service::hostsleep::{self, Callers};
use crate::service::{self, Around, Item, Kind, Set, rest};
use crate::units::Span;

/// For the init system to read its files anew.
const RELOAD: Duration = Duration::from_secs(30);
/// For a guest to shut down, where its profile says nothing.
const STOP: Span = Span::secs(60);
/// The variables that a unit says again.
const CARRIED: [&str; 9] = [
    "MVM_CONFIG_DIR",
    "MVM_STATE_DIR",
    "MVM_RUNTIME_DIR",
    "MVM_CACHE_DIR",
    "MVM_HOST_DIR",
    "MVM_SYSFS",
    "MVM_LOG",
    "MVM_QEMU_X86_64",
    "MVM_QEMU_AARCH64",
];
/// Those that only services of users lack.
const CARRIED_FOR_USERS: [&str; 3] = ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"];

/// Let the host's init system run a guest
///
/// Prints the files that the init system of this host, or the one that `--init` names, would get, and where
/// they belong; `--install` writes them. The guest is then started and stopped by the init's own words too, and `mvm
/// start` uses them. A supervisor that dies is started anew and goes on with the guest, which has noticed
/// nothing. What is installed does not start with the host: for that there is `[autostart]` in the machine
/// file, and `mvm unit --autostart`. `--sleep` is for the host's own sleep: `mvm sleep pre` before it, `mvm sleep
/// post` after it.
///
/// A file that is not mvm's is not written over without `--force`. `--remove` takes away what was written, and
/// nothing else; a guest that runs goes on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm unit web
  mvm unit web --install && systemctl start mvm@web
  mvm unit web --init openrc
  mvm unit --autostart --install
  mvm unit --sleep --install
  mvm unit web --remove")]
pub(super) struct UnitArgs {
    /// The guest: a machine file or a profile
    #[arg(value_name = "NAME", required_unless_present_any = ["autostart", "sleep"])]
    name: Option<GuestName>,
    /// The unit that starts the guests with `[autostart]` with the host, and stops all guests with it
    #[arg(long, conflicts_with = "name")]
    autostart: bool,
    /// What lets guests sleep before the host does, and wakes them after it
    #[arg(long, conflicts_with_all = ["name", "autostart", "user"])]
    sleep: bool,
    /// The init system: systemd, openrc, runit, s6, procd, busybox or sysv; by default the one that runs
    #[arg(long, value_name = "INIT", value_parser = init)]
    init: Option<Init>,
    /// Write the files
    #[arg(long, conflicts_with = "remove")]
    install: bool,
    /// Take the files away
    #[arg(long)]
    remove: bool,
    /// Write over files that are not mvm's
    #[arg(long, requires = "install")]
    force: bool,
    /// A unit of this user and not of the system, as for everybody but root; systemd only
    #[arg(long)]
    user: bool,
    /// How long all guests together may take to shut down with the host
    #[arg(
        long,
        value_name = "SPAN",
        default_value = "120s",
        requires = "autostart"
    )]
    within: Span,
    /// The root directory of the host: another one is looked at and written to, and told nothing
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    #[command(flatten)]
    format: FormatArg,
}

/// The init of that word.
pub(super) fn init(word: &str) -> Result<Init, String> {
    Init::from_word(word).ok_or_else(|| {
        let all: Vec<&str> = Init::ALL.iter().map(|init| init.as_str()).collect();
        format!("expected one of {}", all.join(", "))
    })
}

pub(super) fn run(args: &UnitArgs, context: &Context) -> Result<(), Failure> {
    let root = super::choices::whole(&args.root)?;
    let init = args.init.or_else(|| Init::detect(&root)).ok_or_else(|| {
        Report::new(
            ExitCode::Host,
            "this host's init system is none that mvm knows",
        )
        .hint("`--init` says which one the files are for")
    })?;
    let user = args.user || !nix::unistd::Uid::effective().is_root();
    let around = around(context, init, user, &root)?;
    if args.sleep {
        return sleep(args, &around, &root);
    }
    let guest = args
        .name
        .as_ref()
        .map(|name| guest(context, name))
        .transpose()?;
    let host = service::Host {
        stop: args.within.duration(),
    };
    let kind = guest
        .as_ref()
        .map_or(Kind::Host(&host), |(guest, _)| Kind::Guest(guest));
    let set = service::files(kind, &around)?;
    let mark = service::mark(kind);
    if args.remove {
        let gone = units::remove(&root, &set, &mark)?;
        told("removed", &gone);
        return if gone.is_empty() {
            Ok(())
        } else {
            reload(&around, &root)
        };
    }
    if !args.install {
        return show(&set, init, args.format.format);
    }
    let written = units::install(&root, &set, &mark, args.force)?;
    told("written", &written);
    for note in &set.notes {
        output::note(&format!("note: {note}"));
    }
    if around.user.is_some() {
        warn_of_linger(&root);
    }
    if let Some((guest, true)) = &guest {
        let all = service::files(Kind::Host(&host), &around)?;
        let mark = service::mark(Kind::Host(&host));
        if !units::is_installed(&root, &all, &mark, &around.runtime) {
            output::note(&format!(
                "note: {} has `[autostart]`, and nothing starts guests with this host: `mvm unit --autostart --install`",
                guest.name
            ));
        }
    }
    if written.is_empty() {
        Ok(())
    } else {
        reload(&around, &root)
    }
}

/// What runs around the host's sleep.
fn sleep(args: &UnitArgs, around: &Around, root: &Path) -> Result<(), Failure> {
    let mark = hostsleep::mark();
    if args.remove {
        let all = hostsleep::files(around, None)?;
        let gone = units::remove(root, &all, &mark)?;
        told("removed", &gone);
        return reload(around, root);
    }
    let there = |path: &str| root.join(path).is_dir();
    let callers = Callers {
        elogind: there("etc/elogind") || there("usr/lib/elogind") || there("lib/elogind"),
        acpid: there("etc/acpi/events"),
    };
    let set = hostsleep::files(around, Some(callers))?;
    if !args.install {
        return show(&set, around.init, args.format.format);
    }
    let written = units::install(root, &set, &mark, args.force)?;
    told("written", &written);
    for note in &set.notes {
        output::note(&format!("note: {note}"));
    }
    if written.is_empty() {
        return Ok(());
    }
    reload(around, root)
}

fn told(what: &str, paths: &[PathBuf]) {
    if paths.is_empty() {
        output::note(&format!("nothing is to be {what}"));
    }
    for path in paths {
        output::note(&format!("{what}: {}", path.display()));
    }
}

/// Lets the init of this host know; another root's is not there to be told.
fn reload(around: &Around, root: &Path) -> Result<(), Failure> {
    let running = root == Path::new("/") && Init::detect(root) == Some(around.init);
    let Some(words) = rest::reload(around).filter(|_| running) else {
        return Ok(());
    };
    call(&words, RELOAD)
}

/// Runs words of an init.
pub(super) fn call(words: &[String], within: Duration) -> Result<(), Failure> {
    let Some((program, rest)) = words.split_first() else {
        return Ok(());
    };
    let path = Path::new(program);
    let path = if path.is_absolute() {
        path.to_owned()
    } else {
        process::find(program, Some(Path::new("/sbin/init")))
            .ok_or_else(|| Report::new(ExitCode::Host, format!("`{program}` is not in PATH")))?
    };
    Ok(process::run(&path, rest, within).map_err(Report::from)?)
}

fn warn_of_linger(root: &Path) {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective());
    let Some(user) = user.ok().flatten() else {
        return;
    };
    if !lingers(root, &user.name) {
        output::note(&format!(
            "warning: linger is off for {0}: the guest is stopped at the end of the last session, and does not \
             start with the host\nhint: `loginctl enable-linger {0}`",
            user.name
        ));
    }
}

fn show(set: &Set, init: Init, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        let items: Vec<_> = set
            .items
            .iter()
            .map(|item| match item {
                Item::File { path, mode, text } => {
                    json!({ "path": path, "mode": format!("{mode:04o}"), "text": text })
                }
                Item::Link { path, target } => json!({ "path": path, "link": target }),
                Item::Lines { path, text } => json!({ "path": path, "lines": text }),
            })
            .collect();
        output::print_json(&json!({ "init": init, "files": items, "notes": set.notes }))?;
        return Ok(());
    }
    let mut text = String::new();
    for item in &set.items {
        if !text.is_empty() {
            text.push('\n');
        }
        text += &match item {
            Item::File { path, text, .. } if text.is_empty() => {
                format!("==> {} (empty)\n", path.display())
            }
            Item::File { path, text, .. } => format!("==> {}\n{text}", path.display()),
            Item::Link { path, target } => {
                format!("==> {} -> {}\n", path.display(), target.display())
            }
            Item::Lines { path, text } => format!("==> lines of {}\n{text}", path.display()),
        };
    }
    output::print(&text)?;
    for note in &set.notes {
        output::note(&format!("note: {note}"));
    }
    Ok(())
}

/// What a unit of this context is written for.
pub(super) fn around(
    context: &Context,
    init: Init,
    user: bool,
    root: &Path,
) -> Result<Around, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::message(
            ExitCode::Host,
            format!("mvm's own program is not known: {error}"),
        )
    })?;
    let folder = || {
        let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".config");
        let config = config
            .filter(|path| path.is_absolute())
            .unwrap_or_else(home);
        config.join("systemd/user")
    };
    // Void Linux has its folder elsewhere.
    let runit = ["/etc/service", "/var/service"]
        .into_iter()
        .find(|path| root.join(path.trim_start_matches('/')).exists())
        .unwrap_or("/etc/service");
    Ok(Around {
        init,
        program: text(&program)?,
        environment: environment(context, user)?,
        runtime: text(&context.dirs.runtime)?,
        state: text(&context.dirs.state)?,
        user: user.then(folder),
        systemd: systemd_version(root),
        runit: runit.to_owned(),
    })
}

fn text(path: &Path) -> Result<String, Failure> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        let text = format!("`{}` is not UTF-8, and no unit can hold it", path.display());
        Failure::message(ExitCode::Host, text)
    })
}

/// The variables of this process that its units need, paths from the root on.
fn environment(context: &Context, user: bool) -> Result<Vec<(String, String)>, Failure> {
    let dirs = &context.dirs;
    let mut found = Vec::new();
    let users = CARRIED_FOR_USERS.into_iter().filter(|_| user);
    for name in CARRIED.into_iter().chain(users) {
        let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else {
            continue;
        };
        let value = match name {
            "MVM_CONFIG_DIR" => dirs.config.clone(),
            "MVM_STATE_DIR" => dirs.state.clone(),
            "MVM_RUNTIME_DIR" => dirs.runtime.clone(),
            "MVM_CACHE_DIR" => dirs.cache.clone(),
            "MVM_HOST_DIR" => dirs.host.clone(),
            "MVM_LOG" => value.into(),
            _ if value.as_encoded_bytes().contains(&b'/') => {
                super::choices::whole(Path::new(&value))?
            }
            _ => value.into(),
        };
        found.push((name.to_owned(), text(&value)?));
    }
    Ok(found)
}

/// The guest as its unit needs it, and whether it starts with the host.
fn guest(context: &Context, name: &GuestName) -> Result<(service::Guest, bool), Failure> {
    let loaded = profile::load(&context.dirs, name.as_str(), &Choices::default())?;
    let layer = &loaded.layer;
    let stop = layer
        .lifecycle
        .as_ref()
        .and_then(|table| table.stop_timeout);
    let guest = service::Guest {
        name: name.clone(),
        stop: stop.unwrap_or(STOP).duration(),
        locks_memory: machine::host_devices::write_memory(layer),
    };
    Ok((guest, autostarts(layer)))
}

/// Whether the guest starts with the host.
pub(super) fn autostarts(layer: &Layer) -> bool {
    let table = layer.autostart.as_ref();
    table.is_some_and(|table| table.enabled.unwrap_or(true))
}

/// The unit of this user that is installed for the guest here, if there is one.
pub(super) fn installed(context: &Context, name: &GuestName) -> Result<Option<Around>, Failure> {
    let root = Path::new("/");
    let Some(init) = Init::detect(root) else {
        return Ok(None);
    };
    let user = !nix::unistd::Uid::effective().is_root();
    if user && init != Init::Systemd {
        return Ok(None);
    }
    let around = around(context, init, user, root)?;
    // Where the files are does not depend on more than the name.
    let guest = service::Guest {
        name: name.clone(),
        stop: STOP.duration(),
        locks_memory: false,
    };
    let kind = Kind::Guest(&guest);
    let set = service::files(kind, &around)?;
    let there = units::is_installed(root, &set, &service::mark(kind), &around.runtime);
    Ok(there.then_some(around))
}
