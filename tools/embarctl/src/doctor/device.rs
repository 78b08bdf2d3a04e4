//! The devdax device that the pool is, if it is one: whether it can be mapped, in which pieces, and whether it is large enough.

use std::path::Path;

use embarcadero::pool::region::{DeviceState, device_state};

use super::Seen;
use super::asked::Place;
use super::report::{Check, State};
use super::tree::size;

/// Where the kernel lists devices of memory.
const DEVICES: &str = "sys/bus/dax/devices";
/// Pages that cover much: 2 MiB, the usual one, and more.
const ALIGNMENT_LEAST: u64 = 2 << 20;

/// All of this group; nothing, if the pool is a file.
pub fn checks(seen: &Seen<'_>) -> Vec<Check> {
    if !seen.asked.place.is_device() {
        return Vec::new();
    }
    vec![mode(seen), alignment(seen), length(seen)]
}

/// Where the kernel says what it knows of the pool's device; none: it is no device, or the kernel has none of that name.
pub fn folder(seen: &Seen<'_>) -> Option<String> {
    let name = seen.needs.pool().file_name().filter(|_| seen.asked.place.is_device())?.to_str()?;
    let folder = format!("{DEVICES}/{name}");
    seen.tree.has(&folder).then_some(folder)
}

fn mode(seen: &Seen<'_>) -> Check {
    const NAME: &str = "device mode";
    let path = seen.needs.pool();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_there = seen.asked.place == Place::Device;
    let needed = "devdax: a device of memory that programs map";
    match device_state(&seen.tree.path(DEVICES), path) {
        None if is_there => {
            Check::new(NAME, State::Note, format!("not known here: {} is no device of /{DEVICES}", path.display()))
        }
        None => Check::new(NAME, State::Fail, format!("there is no device {}", path.display()))
            .needed(needed)
            .remedy("daxctl list        # those there are")
            .remedy("cxl create-region -m -d decoder0.0 -t ram mem0        # see config/OPERATING.md, 2"),
        Some(DeviceState::SystemRam { .. }) => {
            Check::new(NAME, State::Fail, "system-ram: the kernel gives its memory to programs")
                .needed(needed)
                .remedy(format!("daxctl offline-memory {name}"))
                .remedy(format!("daxctl reconfigure-device --mode=devdax {name}"))
        }
        Some(DeviceState::Disabled { .. }) => Check::new(NAME, State::Fail, "no driver has it: it is disabled")
            .needed(needed)
            .remedy(format!("daxctl enable-device {name}")),
        Some(DeviceState::NoNode { .. }) if !is_there => {
            Check::new(NAME, State::Fail, format!("the kernel has {name}, and there is no {}", path.display()))
                .needed(needed)
                .remedy(format!("docker run --device /dev/{name} ...        # in a container; else: udevadm trigger"))
        }
        Some(DeviceState::NoNode { .. }) => Check::new(NAME, State::Ok, "devdax"),
    }
}

fn alignment(seen: &Seen<'_>) -> Check {
    const NAME: &str = "device alignment";
    let Some(align) =
        folder(seen).and_then(|folder| seen.tree.number(&format!("{folder}/align"))).filter(|align| *align > 0)
    else {
        return Check::unknown(NAME, &format!("/{DEVICES}/*/align"));
    };
    let name = seen.needs.pool().file_name().unwrap_or(Path::new("dax0.0").as_os_str()).to_string_lossy().into_owned();
    match seen.needs.config.pool.bytes {
        Some(bytes) if !bytes.is_multiple_of(align) => {
            Check::new(NAME, State::Fail, format!("{}; pool.bytes is {bytes}", size(align)))
                .needed("a multiple of it: the device is mapped in pieces of that size")
                .remedy(format!("pool: {{ bytes: {} }}        # or auto: the whole device", bytes - bytes % align))
        }
        _ => Check::new(NAME, State::Warn, format!("{}: the device is mapped in pieces of that size", size(align)))
            .needed("2 MiB or more: smaller pages cost a miss of the address cache for each 4 KiB")
            .remedy(format!("daxctl disable-device {name}"))
            .remedy(format!("daxctl destroy-device {name} && daxctl create-device -a 2M        # all of it is lost"))
            .ok_if(align >= ALIGNMENT_LEAST),
    }
}

fn length(seen: &Seen<'_>) -> Check {
    const NAME: &str = "device size";
    let Some(bytes) = folder(seen).and_then(|folder| seen.tree.number(&format!("{folder}/size"))) else {
        return Check::unknown(NAME, &format!("/{DEVICES}/*/size"));
    };
    let needed = seen.needs.config.pool.bytes;
    match needed {
        Some(needed) => Check::new(NAME, State::Fail, format!("{}; pool.bytes is {}", size(bytes), size(needed)))
            .needed("a device as large as the pool")
            .remedy("pool: { bytes: auto }        # the whole device")
            .ok_if(bytes >= needed),
        None => Check::new(NAME, State::Ok, format!("{}, and pool.bytes is auto: all of it", size(bytes))),
    }
}
