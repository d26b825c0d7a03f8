//! What helps where the guest cannot get a device of the host.

use super::DeviceError;
use crate::error::{ExitCode, Hint};

fn set(key: &str, name: &str, value: &str) -> String {
    format!("write `{name} = \"{value}\"` in `[{key}]`, or `--set {key}.{name}={value}`")
}

impl Hint for DeviceError {
    fn hints(&self) -> Vec<String> {
        let listed = |lead: &str, names: &[String]| match names {
            [] => Vec::new(),
            names => vec![format!("{lead}: {}", names.join("; "))],
        };
        match self {
            Self::Find { error, gone, .. } => {
                let gone = gone.iter().map(|(guest, controller)| {
                    format!("guest {guest} has the USB controller {controller}, with all that is plugged into it")
                });
                error.hints().into_iter().chain(gone).collect()
            }
            Self::NoIommu { advice, .. } => advice.clone(),
            Self::NoVfio { .. } => vec!["its kernel option is CONFIG_VFIO_PCI".to_owned()],
            Self::Group {
                key,
                members,
                functions,
                ..
            } => {
                let names: Vec<String> = members.iter().map(|(bdf, ..)| bdf.to_string()).collect();
                let names = names.join(" and ");
                let mut hints = Vec::new();
                if *functions {
                    let give = set(key, "functions", "all");
                    hints.push(format!("{give}: the guest gets {names} too"));
                }
                let take = set(key, "group", "all");
                hints.push(format!(
                    "{take}: the host gives up {names}, and no guest gets it"
                ));
                hints
            }
            Self::Guest { guest, owner, .. } | Self::GroupOfGuest { guest, owner, .. } => {
                vec![match owner {
                    Some(owner) => owner.advice(guest),
                    None => format!(
                        "`mvm stop {guest}` gives it back, or `mvm detach {guest} NAME` (`mvm show {guest}` has the name)"
                    ),
                }]
            }
            Self::BadLease { owner, .. } => {
                let whose = owner.as_ref().map(|owner| format!("the file is {owner}'s"));
                let fix = "root's `mvm recover` removes it when nobody has the device open";
                whose.into_iter().chain([fix.to_owned()]).collect()
            }
            Self::Host { .. } => vec![
                "`--take-from-host`, or `take-from-host = true` in its table, takes it all the same"
                    .to_owned(),
            ],
            Self::LiveVfs { guests, .. } | Self::VfCount { guests, .. } if !guests.is_empty() => {
                vec![format!(
                    "virtual functions of it are with guest{} {}",
                    if guests.len() == 1 { "" } else { "s" },
                    guests.join(", ")
                )]
            }
            Self::LiveVfs { pf, .. } => vec![format!(
                "once nobody uses them, `echo 0 > /sys/bus/pci/devices/{pf}/sriov_numvfs` removes them"
            )],
            Self::LiveMdevs { .. } => vec![
                "`mvm devices mdev` shows who has them; one that nobody has goes when `1` is written to its `remove`"
                    .to_owned(),
            ],
            Self::NoSriov { can, .. } => listed("these can", can),
            Self::VfCount { pf, .. } => vec![
                "mvm does not change the number of virtual functions that it did not make"
                    .to_owned(),
                format!(
                    "once nobody uses them, `echo 0 > /sys/bus/pci/devices/{pf}/sriov_numvfs` removes them, \
                     and mvm makes as many as are wanted"
                ),
            ],
            Self::NoFreeVf { why, .. } => why.clone(),
            Self::NoPfDriver { device, .. } => {
                vec![format!("give {device} back to its driver first")]
            }
            Self::NoGpu { has, .. } => listed("it has", has),
            Self::WhichGpu { kind, gpus } => {
                let addresses: Vec<&str> = gpus
                    .iter()
                    .filter_map(|gpu| gpu.split(' ').next())
                    .collect();
                let first = addresses.first().copied().unwrap_or_default();
                vec![
                    format!(
                        "say which, as in `--gpu {kind}@{first}` or `gpu.address = \"{first}\"`"
                    ),
                    format!("they are: {}", gpus.join("; ")),
                ]
            }
            Self::NoMdev { has, .. } => match has.as_slice() {
                [] => vec!["a type in its place makes one: `mvm devices mdev` lists the types".to_owned()],
                has => listed("there are", has),
            },
            Self::NoMdevType {
                kind,
                types,
                gpu,
                elsewhere,
                ..
            } => {
                let mut hints = match types.as_slice() {
                    [] if *gpu => vec!["no GPU of this host makes mediated devices now".to_owned()],
                    [] => vec!["no device of this host makes mediated devices now".to_owned()],
                    types => listed("the types are", types),
                };
                let other = elsewhere.as_ref().map(|parent| {
                    format!("{parent}, which is no GPU, makes them: `--mdev {kind}`")
                });
                hints.extend(other);
                hints
            }
            Self::NoInstances { users, .. } => listed("those that exist", users),
            Self::NoIommufd { .. } => {
                vec!["leave `vfio.backend` out: `group` works everywhere".to_owned()]
            }
            Self::NoPci { .. }
            | Self::NoGroup { .. }
            | Self::Bridge { .. }
            | Self::WholeAndPart { .. }
            | Self::Twice { .. }
            | Self::VfRange { .. }
            | Self::NoNet { .. }
            | Self::NotAGpu { .. }
            | Self::NotIgd { .. }
            | Self::NoPlace { .. }
            | Self::Hub { .. } => Vec::new(),
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoPci { .. }
            | Self::WholeAndPart { .. }
            | Self::Twice { .. }
            | Self::NotIgd { .. }
            | Self::NoPlace { .. } => ExitCode::Profile,
            _ => ExitCode::Host,
        }
    }
}
