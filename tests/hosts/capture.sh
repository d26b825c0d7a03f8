#!/bin/sh
# Writes this machine's devices as a tree for tests/hosts: its /sys as far as mvm reads it, and a few files of /proc and
# /dev. Run it as root for whole PCI headers; it reads and changes nothing.
#
#   sh capture.sh >my-machine.tree
#
# Serial numbers, the end of MAC addresses and of UUIDs on the command line are replaced; with --as-it-is they are not.
# Please read the file before you give it to others. $ROOT stands before /sys and /proc, for tests.
root=${ROOT:-}
mask=yes
[ "${1:-}" = --as-it-is ] && mask=
count=0

# One line of the tree: a file with what it holds.
file() { # path name
    [ -r "$1" ] && [ -f "$1" ] || return 0
    text= indented= lines=0 last=
    while IFS= read -r last; do
        lines=$((lines + 1))
        text=$last
        indented="$indented
  $last"
        last=
    done <"$1" 2>/dev/null || :
    case ${mask:+$2} in
    address)
        case $text in ??:??:??:??:??:??)
            count=$((count + 1))
            [ "$text" = 00:00:00:00:00:00 ] || text=$(printf '%s:00:00:%02x' "${text%:??:??:??}" $count)
            ;;
        esac
        ;;
    # A controller's root hub has its address there.
    serial) case $text in *:*.*) ;; *) count=$((count + 1)) text=SERIAL$count ;; esac ;;
    esac
    if [ $lines -gt 1 ]; then
        printf '%s |%s\n' "$2" "$indented"
    elif [ -n "$last" ]; then
        printf '%s = "%s"\n' "$2" "$last"
    elif [ $lines = 1 ] && [ -z "$text" ]; then
        printf '%s = "\\n"\n' "$2"
    elif [ $lines = 1 ]; then
        printf '%s = %s\n' "$2" "$text"
    else
        printf '%s =\n' "$2"
    fi
}

# The links of a directory, of those names. One ls for all of them: processes are what takes the time.
links() { # directory names...
    at=$1
    shift
    [ $# -gt 0 ] || return 0
    (cd "$at" && exec ls -ld "$@" 2>/dev/null) | while read -r mode _ _ _ _ _ _ _ entry; do
        case $mode in l*) printf '%s\n' "$entry" ;; esac
    done
}

# A directory and those below it. What is worth having goes by its name, whatever directory it is in.
walk() { # directory below $root
    [ -d "$root$1" ] || return 0
    printf '\n[%s]\n' "$1"
    names= below=
    for entry in "$root$1"/* "$root$1"/.bulk_profile; do
        name=${entry##*/}
        case $name in
        device | state | status | name | vendor | mode)
            # Files in one directory, links or directories in another.
            if [ -L "$entry" ]; then
                [ "$name" != device ] || names="$names $name"
            elif [ -d "$entry" ]; then
                below="$below $name"
            else
                file "$entry" "$name"
            fi
            ;;
        class | subsystem_vendor | subsystem_device | revision | modalias | driver_override | enable | numa_node | local_cpulist | \
            d3cold_allowed | power_state | boot_vga | reset_method | irq | resource | uevent | \
            current_link_speed | current_link_width | max_link_speed | max_link_width | \
            sriov_totalvfs | sriov_numvfs | sriov_offset | sriov_stride | sriov_vf_device | sriov_drivers_autoprobe | sriov_vf_total_msix | \
            address | operstate | phys_port_name | enabled | bind | model | size | removable | partition | dev | id | number | \
            available_instances | device_api | description | \
            busnum | devnum | devpath | speed | version | idVendor | idProduct | bcdDevice | \
            bDeviceClass | bDeviceSubClass | bDeviceProtocol | bConfigurationValue | bNumConfigurations | bNumInterfaces | \
            manufacturer | product | serial | maxchild | authorized | connect_type | \
            bInterfaceNumber | bAlternateSetting | bInterfaceClass | bInterfaceSubClass | bInterfaceProtocol | \
            auto_provisioning | exec_quantum_ms | preempt_timeout_us | sched_priority | ggtt_quota | contexts_quota | \
            doorbells_quota | lmem_quota | ggtt_spare | contexts_spare | doorbells_spare | lmem_spare) file "$entry" "$name" ;;
        # Files that cannot be read, or are for writing only.
        remove | rescan | reset | sriov_vf_msix_count | create | control | stop | rom) [ -f "$entry" ] && printf '%s =\n' "$name" ;;
        config)
            [ -f "$root$1/vendor" ] || continue
            printf 'config :'
            od -An -v -tx1 -w256 -N256 "$entry"
            ;;
        power) for f in control runtime_status; do file "$entry/$f" "power/$f"; done ;;
        firmware_node) file "$entry/path" firmware_node/path ;;
        intel-iommu) for f in address cap ecap version; do file "$entry/$f" "intel-iommu/$f"; done ;;
        amd-iommu) for f in cap features; do file "$entry/$f" "amd-iommu/$f"; done ;;
        dm) for f in name uuid; do file "$entry/$f" "dm/$f"; done ;;
        bonding) for f in mode slaves; do file "$entry/$f" "bonding/$f"; done ;;
        subsystem | driver | iommu | iommu_group | physfn | virtfn* | master | upper_* | lower_* | bridge | port | peer | mdev_type)
            if [ -L "$entry" ]; then
                names="$names $name"
            elif [ -d "$entry" ]; then
                below="$below $name"
            fi
            ;;
        link | msi_irqs | queues | statistics | wakeup* | ep_* | *:pcie* | trace | integrity | mq | bdi | hwmon* | i2c* | ptp* | pps* | \
            input* | tty* | leds | drm_dp_aux* | gt | gt[0-9] | tile* | metrics | engine | physical_node | threshold | available | \
            policies | hidraw* | bsg | scsi_* | 0003:* | usbmon | usbmisc | descriptors | fs | nvmem* | vc | rtc* | cdrom | events | \
            mei* | ieee80211 | phydev | mdio* | reset_subordinate | ata_* | dev_loss* | format | cpumask) ;;
        *)
            if [ -L "$entry" ]; then
                # The members of holders, slaves, a bridge, a type of mediated devices, a unit.
                case $1 in */holders | */slaves | */brif | */devices) names="$names $name" ;; esac
            elif [ -d "$entry" ]; then
                below="$below $name"
            fi
            ;;
        esac
    done
    links "$root$1" $names
    set -- "$1" $below
    while [ $# -gt 1 ]; do
        walk "$1/$2"
        # Only the arguments are a call's own.
        dir=$1
        shift 2
        set -- "$dir" "$@"
    done
}

# A directory of links to devices: a class, a bus.
members() {
    [ -d "$root$1" ] || return 0
    printf '\n[%s]\n' "$1"
    names=
    for entry in "$root$1"/*; do [ -L "$entry" ] && names="$names ${entry##*/}"; done
    links "$root$1" $names
}

echo "# $(uname -srm), written by capture.sh on $(date -u +%Y-%m-%d)."
echo "#"
echo "# Sources"
echo "# - The machine itself."
echo "# Guesses"
echo "# - None."
echo raw

printf '\n[/proc]\n'
for f in cmdline mounts swaps fb net/route sys/kernel/osrelease; do
    if [ $f = cmdline ] && [ -n "$mask" ]; then
        out=
        for word in $(cat "$root/proc/cmdline"); do
            case $word in *UUID=*) word=${word%%UUID=*}UUID=00000000-0000-0000-0000-000000000000 ;; esac
            out="$out${out:+ }$word"
        done
        printf 'cmdline = %s\n' "$out"
    else
        file "$root/proc/$f" $f
    fi
done
# The first processor speaks for all.
echo 'cpuinfo |'
while IFS= read -r line; do
    [ -n "$line" ] || break
    printf '  %s\n' "$line"
done <"$root/proc/cpuinfo"

printf '\n[/dev]\n'
for f in kvm iommu vfio/vfio vfio/devices; do
    if [ -d "$root/dev/$f" ]; then echo "$f/"; elif [ -e "$root/dev/$f" ]; then echo "$f ="; fi
done
for f in "$root"/dev/vfio/[0-9]* "$root"/dev/dri/[cr]*; do [ -e "$f" ] && echo "${f#"$root"/dev/} ="; done
for f in "$root"/dev/mapper/*; do [ -L "$f" ] && echo "mapper/${f##*/} -> $(readlink "$f")"; done

printf '\n[/sys/devices/system/cpu]\n'
for f in online possible present; do file "$root/sys/devices/system/cpu/$f" $f; done
for node in "$root"/sys/devices/system/node/node[0-9]*; do
    [ -d "$node" ] || continue
    printf '\n[%s]\n' "${node#"$root"}"
    # Not for the shell's own read, which takes one byte at a time.
    printf 'cpulist = %s\n' "$(cat "$node/cpulist")"
done

for dir in "$root"/sys/devices/pci* "$root"/sys/devices/platform/*framebuffer* "$root"/sys/devices/virtual/net \
    "$root"/sys/devices/virtual/vtconsole "$root"/sys/devices/virtual/iommu "$root"/sys/devices/virtual/block/dm-* \
    "$root"/sys/devices/virtual/vfio "$root"/sys/devices/virtual/mtty "$root"/sys/devices/virtual/mdpy \
    "$root"/sys/devices/virtual/nvme-subsystem "$root"/sys/devices/platform/soc*/*.pci* "$root"/sys/devices/platform/*.pci*; do
    walk "${dir#"$root"}"
done
for group in "$root"/sys/kernel/iommu_groups/*; do
    [ -d "$group" ] || continue
    printf '\n[%s]\n' "${group#"$root"}"
    file "$group/type" type
    file "$group/reserved_regions" reserved_regions
    members "${group#"$root"}/devices"
done
[ -d "$root/sys/kernel/iommu_groups" ] && printf '\n[/sys/kernel/iommu_groups]\n'

for class in net drm block nvme iommu vfio vfio-dev vtconsole graphics mdev_bus sound infiniband; do members "/sys/class/$class"; done
members /sys/block
for bus in pci usb mdev; do
    members "/sys/bus/$bus/devices"
    [ -d "$root/sys/bus/$bus" ] && printf '\n[/sys/bus/%s]\n' $bus
    for f in drivers_probe rescan; do [ -f "$root/sys/bus/$bus/$f" ] && echo "$f ="; done
    file "$root/sys/bus/$bus/drivers_autoprobe" drivers_autoprobe
done
for driver in "$root"/sys/bus/pci/drivers/* "$root"/sys/bus/usb/drivers/* "$root"/sys/bus/mdev/drivers/* \
    "$root"/sys/bus/platform/drivers/*framebuffer* "$root"/sys/bus/platform/drivers/simpledrm; do
    [ -d "$driver" ] || continue
    members "${driver#"$root"}"
    for f in bind unbind new_id remove_id; do [ -f "$driver/$f" ] && echo "$f ="; done
done
for module in vfio_pci i915 xe kvmgt nvidia nouveau amdgpu; do
    [ -d "$root/sys/module/$module" ] || continue
    printf '\n[/sys/module/%s]\n' $module
    for f in initstate parameters/disable_idle_d3 parameters/enable_sriov parameters/max_vfs parameters/enable_guc \
        parameters/force_probe parameters/enable_gvt; do
        file "$root/sys/module/$module/$f" $f
    done
    for f in "$root/sys/module/$module"/drivers/*; do links "$root/sys/module/$module" "drivers/${f##*/}"; done
done

# For the stand-in kernel: the driver that a device has is the one that takes it.
for bus in pci usb; do
    for device in "$root"/sys/bus/$bus/devices/*; do
        [ -L "$device/driver" ] || continue
        driver=$(readlink "$device/driver")
        case ${driver##*/} in vfio-pci | usbfs) continue ;; esac
        printf '\n[/.standin/%s/%s]\nclaims = %s\n' $bus "${device##*/}" "${driver##*/}"
    done
done
