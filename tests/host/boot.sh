#!/bin/sh
# Becomes systemd as the first process of name spaces of its own (pid, mount, network and such; see booted.rs), on this
# host's files, of which none is changed: what is written goes to memory. Exit status 77: this host does not allow it.
set -eu
trap 'exit 77' EXIT

mount --make-rprivate /
mount -t proc proc /proc
mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys
mount -t tmpfs tmpfs /run
mkdir /run/booted
for folder in etc usr var tmp; do
    mkdir "/run/booted/$folder" "/run/booted/$folder.work"
    mount -t overlay -o "lowerdir=/$folder,upperdir=/run/booted/$folder,workdir=/run/booted/$folder.work" overlay "/$folder"
done
# Nothing of this host's own services is started, and nothing of its devices is touched.
rm -rf /etc/systemd/system/*.wants /usr/sbin/policy-rc.d
for unit in systemd-udevd systemd-udev-trigger systemd-remount-fs systemd-sysctl systemd-modules-load systemd-binfmt \
    systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-update-utmp systemd-random-seed; do
    ln -sf /dev/null "/etc/systemd/system/$unit.service"
done
for unit in dev-hugepages.mount dev-mqueue.mount sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount network-online.target; do
    ln -sf /dev/null "/etc/systemd/system/$unit"
done
printf '[Unit]\nDescription=What the tests need\nRequires=basic.target\nAfter=basic.target\n' \
    >/etc/systemd/system/booted.target

umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i container=booted PATH="$PATH" /lib/systemd/systemd --system --unit=booted.target --log-target=console \
    --show-status=no
