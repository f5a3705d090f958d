#!/bin/bash
# Boots a systemd for a test: as process 1 of its own namespaces, with its own network,
# on an overlay of this machine's root directory. Nothing that it writes reaches the machine.
#
#   boot.sh DIR       DIR holds what the test brings along; it is /guide in there
set -euo pipefail
dir=$1
cg=$dir/cgroup
if [[ ${2:-} != inside ]]; then
	# A control group of its own below the present ones, which is the root of what systemd sees.
	mount --make-rprivate /
	mkdir -p "$cg"
	mount -t cgroup2 cgroup2 "$cg"
	mkdir "$cg/rotatord-guide-$$"
	echo $$ >"$cg/rotatord-guide-$$/cgroup.procs"
	exec unshare --pid --fork --net --ipc --uts --cgroup --mount --propagation private "$0" "$dir" inside
fi
mkdir -p "$dir/layer"
mount -t tmpfs -o size=512M tmpfs "$dir/layer"
mkdir "$dir/layer/"{upper,work,root}
root=$dir/layer/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$dir/layer/upper,workdir=$dir/layer/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
	touch "$root/dev/$device"
	mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
# As on a machine that never had rotatord, and without the services of this one.
rm -rf "$root"/{etc,var/lib,var/lib/private}/rotatord "$root"/usr/{local/bin,bin,lib/systemd/system,lib/sysusers.d}/rotatord{,.service,.conf} "$root"/etc/systemd/system/*
for unit in getty.target systemd-{udevd,udev-trigger,networkd,resolved,timesyncd,sysctl,modules-load,remount-fs}.service; do
	ln -s /dev/null "$root/etc/systemd/system/$unit"
done
echo 6f1f0f0e6d6b4c8f9a0b1c2d3e4f5a6b >"$root/etc/machine-id"
mkdir -p "$root/guide"
mount --bind "$dir/in" "$root/guide"
cd "$root"
mkdir before
pivot_root . before
umount -l /before
mount --make-rshared / # else no process sees what systemd mounts for the credentials
exec env -i container=guide PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	/lib/systemd/systemd --system --unit=basic.target --log-target=journal
