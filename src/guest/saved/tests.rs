#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::guest::state;
use crate::guest::testguest::Place;

/// A saved guest with one disk, and the plan that it goes on as.
fn saved() -> (Place, RunDir, Asleep, Plan) {
    let place = Place::new();
    let plan = place.plan("g");
    let run = RunDir::new(&place.dirs, &plan.machine.name);
    fs::create_dir_all(run.saved().parent().unwrap()).unwrap();
    fs::write(run.saved(), "image").unwrap();
    let disk = run.saved().with_file_name("disk.raw");
    fs::write(&disk, "disk").unwrap();
    let saved = Saved {
        disks: vec![Identity::of(&disk).unwrap()],
        ..Saved::of(&run, &plan, false).unwrap()
    };
    let asleep = Asleep {
        kind: Kind::Saved,
        at: 7,
        machine: plan.machine.clone(),
        saved: Some(saved),
    };
    state::write(&run.asleep(), &asleep).unwrap();
    (place, run, asleep, plan)
}

fn refused(run: &RunDir, plan: &Plan) -> String {
    asleep::check(run, plan).unwrap_err().to_string()
}

#[test]
fn it_goes_on_as_it_was_and_not_otherwise() {
    let (_place, run, asleep, plan) = saved();
    assert_eq!(asleep::check(&run, &plan).unwrap(), Some(asleep));

    let mut other = plan.clone();
    other.machine.qemu.version = (1, 0, 0);
    assert!(refused(&run, &other).contains("by QEMU 1.0.0"));
    other.machine.qemu.version = (99, 0, 0);
    assert!(asleep::check(&run, &other).is_ok());

    let mut other = plan.clone();
    let device = ["-device", "a-new-one"].map(|word| Arg::Text(word.to_owned()));
    other.command.args.extend(device);
    assert!(refused(&run, &other).contains("`a-new-one` is new"));

    let disk = run.saved().with_file_name("disk.raw");
    fs::write(&disk, "disc").unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(9);
    fs::File::options()
        .append(true)
        .open(&disk)
        .unwrap()
        .set_modified(later)
        .unwrap();
    assert!(refused(&run, &plan).contains("disk.raw was written to"));
    fs::write(&disk, "longer").unwrap();
    assert!(refused(&run, &plan).contains("has 6 bytes and had 4"));

    fs::write(run.saved(), "imag").unwrap();
    assert!(refused(&run, &plan).contains("it has 4 bytes and had 5"));
    fs::remove_file(run.saved()).unwrap();
    assert!(refused(&run, &plan).contains("No such file"));
}

#[test]
fn an_image_is_kept_by_its_mark_alone() {
    let (_place, run, asleep, plan) = saved();
    fs::write(run.saved_part(), "half").unwrap();
    sweep(&run);
    assert!(run.saved().exists() && !run.saved_part().exists());

    let used = Asleep {
        kind: Kind::UsedUp,
        ..asleep
    };
    state::write(&run.asleep(), &used).unwrap();
    assert!(refused(&run, &plan).contains("used up"));
    sweep(&run);
    assert!(!run.saved().exists());

    fs::write(run.saved(), "image").unwrap();
    asleep::forget(&run).unwrap();
    assert!(!run.saved().exists() && !run.asleep().exists());
}

#[test]
fn a_board_by_its_kind_is_the_one_that_the_guest_knows() {
    let (_place, _run, mut asleep, plan) = saved();
    let kind = plan.machine.board.kind.as_str();
    asleep.machine.board.machine_type = format!("{kind}-of-old");
    let mut machine = plan.machine;
    machine.board.machine_type = kind.to_owned();
    pin(&asleep, &mut machine);
    assert_eq!(machine.board.machine_type, format!("{kind}-of-old"));
    machine.board.machine_type = format!("{kind}-by-name");
    pin(&asleep, &mut machine);
    assert_eq!(machine.board.machine_type, format!("{kind}-by-name"));
}
