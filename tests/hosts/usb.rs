//! USB: controllers' root hubs with their ports, devices, interfaces.

use super::parse::{Builder, Head};

/// `[usb usb1 on=0000:00:14.0 ports=16 speed=480 peers=usb2]` (a root hub) or
/// `[usb 1-4.2 id=046d:c52b dev=5 speed=12 product=USB+Receiver if=03.01.01:usbhid,03.01.02:usbhid]`.
pub(super) fn section(b: &mut Builder, head: &Head<'_>) -> String {
    head.knows(&[
        "on", "ports", "speed", "peers", "id", "dev", "rev", "usb", "product", "maker", "serial",
        "class", "if", "config",
    ]);
    let name = head.word(1).to_owned();
    if name.starts_with("usb") {
        root_hub(b, head, &name)
    } else {
        device(b, head, &name)
    }
}

fn root_hub(b: &mut Builder, head: &Head<'_>, name: &str) -> String {
    // A PCI function, or the directory of a controller that is none.
    let on = head.get("on").expect("a root hub is on= a controller");
    let controller = if on.starts_with('/') {
        on
    } else {
        b.place(&format!("@{on}"))
    };
    let dir = format!("{controller}/{name}");
    let bus = name.trim_start_matches("usb").to_owned();
    let super_speed = head.number("speed") != Some(480);
    let address = controller.rsplit('/').next().unwrap().to_owned();
    attributes(b, &dir, &bus, 1, "0", head.number("speed").unwrap_or(480));
    for (file, text) in [
        ("idVendor", "1d6b"),
        ("idProduct", if super_speed { "0003" } else { "0002" }),
        ("bcdDevice", "0608"),
        ("version", if super_speed { " 3.10" } else { " 2.00" }),
        ("bDeviceClass", "09"),
        ("bDeviceProtocol", if super_speed { "03" } else { "01" }),
        ("manufacturer", "Linux 6.8.0 xhci-hcd"),
        ("product", "xHCI Host Controller"),
        ("serial", &address),
        (
            "maxchild",
            &head.get("ports").unwrap_or_else(|| "8".to_owned()),
        ),
        ("power/control", "auto"),
        ("authorized_default", "1"),
        ("interface_authorized_default", "1"),
    ] {
        b.tree.attr(&dir, file, text);
    }
    node(b, &dir, name, "usb", Some("usb"));
    let hub = format!("{dir}/{bus}-0:1.0");
    interface(b, &hub, &format!("{bus}-0:1.0"), 0, "09.00.00", Some("hub"));
    let ports = head.number("ports").unwrap_or(8);
    for port in 1..=ports {
        make_port(b, &hub, name, port);
    }
    // The other half of each port, on the other root hub of the controller.
    if let Some(peers) = head.get("peers") {
        let other = b.place(&format!("@{peers}"));
        let other_hub = format!("{other}/{}-0:1.0", peers.trim_start_matches("usb"));
        for port in 1..=ports {
            let (a, z) = (
                format!("{hub}/{name}-port{port}"),
                format!("{other_hub}/{peers}-port{port}"),
            );
            if b.tree.nodes.contains_key(&format!("{z}/connect_type")) {
                b.tree.link(format!("{a}/peer"), &z);
                b.tree.link(format!("{z}/peer"), &a);
            }
        }
    }
    b.places.insert(name.to_owned(), dir.clone());
    dir
}

fn device(b: &mut Builder, head: &Head<'_>, name: &str) -> String {
    let (bus, ports) = name
        .split_once('-')
        .expect("a USB device is BUS-PORT[.PORT]");
    // What it is plugged into, and that one's port.
    let (hub, hub_interface, port) = match ports.rsplit_once('.') {
        Some((above, port)) => {
            let hub = format!("{bus}-{above}");
            (hub.clone(), format!("{hub}:1.0"), port)
        }
        None => (format!("usb{bus}"), format!("{bus}-0:1.0"), ports),
    };
    let above = b.place(&format!("@{hub}"));
    let dir = format!("{above}/{name}");
    let id = head.get("id").expect("a USB device has an id=");
    let (vendor, product) = id.split_once(':').expect("ids are VENDOR:PRODUCT");
    let number = head.number("dev").expect("a USB device has a dev=");
    let speed = head.number("speed").unwrap_or(480);
    attributes(b, &dir, bus, number, ports, speed);
    let class = head.get("class").unwrap_or_else(|| "00.00.00".to_owned());
    let class: Vec<&str> = class.split('.').collect();
    let version = head.get("usb").unwrap_or_else(|| "2.00".to_owned());
    for (file, text) in [
        ("idVendor", vendor),
        ("idProduct", product),
        (
            "bcdDevice",
            &head.get("rev").unwrap_or_else(|| "0100".to_owned()),
        ),
        ("version", &format!(" {version}")),
        ("bDeviceClass", class[0]),
        ("bDeviceSubClass", class[1]),
        ("bDeviceProtocol", class[2]),
        (
            "maxchild",
            &head.get("ports").unwrap_or_else(|| "0".to_owned()),
        ),
        ("removable", "removable"),
        ("power/control", "on"),
    ] {
        b.tree.attr(&dir, file, text);
    }
    for (file, key) in [
        ("manufacturer", "maker"),
        ("product", "product"),
        ("serial", "serial"),
    ] {
        if let Some(text) = head.get(key) {
            b.tree.attr(&dir, file, text);
        }
    }
    node(b, &dir, name, "usb", Some("usb"));
    let interfaces = head.get("if").unwrap_or_default();
    let mut count = 0;
    for (n, one) in interfaces.split(',').filter(|i| !i.is_empty()).enumerate() {
        let (class, driver) = match one.split_once(':') {
            Some((class, driver)) => (class, Some(driver)),
            None => (one, None),
        };
        let at = format!("{name}:1.{n}");
        interface(b, &format!("{dir}/{at}"), &at, n, class, driver);
        count += 1;
    }
    b.tree.attr(&dir, "bNumInterfaces", format!("{count:2}"));
    let hub_port = format!("{above}/{hub_interface}/{hub}-port{port}");
    b.tree.link(format!("{dir}/port"), &hub_port);
    b.tree.link(format!("{hub_port}/device"), &dir);
    b.places.insert(name.to_owned(), dir.clone());
    if let Some(ports) = head.number("ports") {
        for port in 1..=ports {
            make_port(b, &format!("{dir}/{name}:1.0"), name, port);
        }
        if let Some(peers) = head.get("peers") {
            let other = b.place(&format!("@{peers}"));
            for port in 1..=ports {
                let a = format!("{dir}/{name}:1.0/{name}-port{port}");
                let z = format!("{other}/{peers}:1.0/{peers}-port{port}");
                b.tree.link(format!("{a}/peer"), &z);
                b.tree.link(format!("{z}/peer"), &a);
            }
        }
    }
    dir
}

/// A port of a hub, below the hub's interface.
fn make_port(b: &mut Builder, hub: &str, name: &str, port: u64) {
    let dir = format!("{hub}/{name}-port{port}");
    b.tree.attr(&dir, "connect_type", "hotplug");
    b.tree.attr(&dir, "disable", 0);
}

/// What root hubs and other devices have alike.
fn attributes(b: &mut Builder, dir: &str, bus: &str, number: u64, path: &str, speed: u64) {
    for (file, text) in [
        ("busnum", bus.to_owned()),
        ("devnum", number.to_string()),
        ("devpath", path.to_owned()),
        ("speed", speed.to_string()),
        ("authorized", "1".to_owned()),
        ("bConfigurationValue", "1".to_owned()),
        ("bNumConfigurations", "1".to_owned()),
        ("bDeviceSubClass", "00".to_owned()),
        ("bNumInterfaces", " 1".to_owned()),
        ("power/runtime_status", "active".to_owned()),
    ] {
        b.tree.attr(dir, file, text);
    }
    b.tree.file(format!("{dir}/remove"), "");
    let bus_number: u64 = bus.parse().unwrap();
    let minor = (bus_number - 1) * 128 + number - 1;
    b.tree.attr(dir, "dev", format!("189:{minor}"));
    b.tree.file(
        format!("{dir}/uevent"),
        format!("MAJOR=189\nMINOR={minor}\nDEVNAME=bus/usb/{bus_number:03}/{number:03}\nDEVTYPE=usb_device\nDRIVER=usb\n"),
    );
    b.tree
        .file(format!("/dev/bus/usb/{bus_number:03}/{number:03}"), "");
}

fn interface(
    b: &mut Builder,
    dir: &str,
    name: &str,
    number: usize,
    class: &str,
    driver: Option<&str>,
) {
    let class: Vec<&str> = class.split('.').collect();
    for (file, text) in [
        ("bInterfaceNumber", format!("{number:02x}")),
        ("bAlternateSetting", " 0".to_owned()),
        ("bInterfaceClass", class[0].to_owned()),
        ("bInterfaceSubClass", class[1].to_owned()),
        ("bInterfaceProtocol", class[2].to_owned()),
        ("bNumEndpoints", "01".to_owned()),
        ("authorized", "1".to_owned()),
    ] {
        b.tree.attr(dir, file, text);
    }
    let driven = driver.map_or_else(String::new, |d| format!("DRIVER={d}\n"));
    b.tree.file(
        format!("{dir}/uevent"),
        format!("DEVTYPE=usb_interface\n{driven}"),
    );
    node(b, dir, name, "usb", driver);
}

/// A device on the USB bus, with its driver.
fn node(b: &mut Builder, dir: &str, name: &str, bus: &str, driver: Option<&str>) {
    b.tree
        .link(format!("{dir}/subsystem"), format!("/sys/bus/{bus}"));
    b.tree.link(format!("/sys/bus/{bus}/devices/{name}"), dir);
    b.tree.file("/sys/bus/usb/drivers_probe", "");
    if let Some(driver) = driver {
        // The core's own drivers are no modules.
        let module = matches!(driver, "usb" | "hub").then_some("usbcore");
        b.driver(bus, driver, module);
        b.tree.link(
            format!("{dir}/driver"),
            format!("/sys/bus/{bus}/drivers/{driver}"),
        );
        b.tree
            .link(format!("/sys/bus/{bus}/drivers/{driver}/{name}"), dir);
        b.tree
            .attr(&format!("/.standin/usb/{name}"), "claims", driver);
    }
}
