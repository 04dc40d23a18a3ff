#!/usr/bin/env bash
# Run live tests on Debian's own kernel (package linux-image-amd64), in a machine emulated by qemu.
# Usage: tools/test_kernel.sh [PYTEST ARGUMENT...]     default: the tests of the probes
#
# Once: a Debian root with debootstrap, from the sources and settings of this machine's apt, made an ext4 image.
# Each run: a throw-away view of that image; a copy of the checkout, and its .venv, are shared in, read-only.
# Everything lives in .cache/kernel; removing that folder begins again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
checkout=$PWD place=$PWD/.cache/kernel
root=$place/root image=$place/root.ext4 share=$place/share
suite=bookworm

say() { printf 'test-kernel: %s\n' "$*"; }
die() { printf 'test-kernel: %s\n' "$*" >&2; exit 2; }

[[ $(id -u) == 0 ]] || die "needs root, for debootstrap"
[[ $(uname -m) == x86_64 ]] || die "the emulated machine is an x86-64 one"

in_root() { # in_root COMMAND...: inside the new root, with the environment of this machine's package clients
  env DEBIAN_FRONTEND=noninteractive LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot "$root" "$@"
}

build_root() {
  local mirror
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Identifier: Packages' "Codename: $suite" | sort -u | head -n 1)
  [[ -n $mirror ]] || die "this machine's apt has no source of Debian $suite"
  say "making a Debian root (once, some minutes)"
  rm -rf "$root.partial" "$image"
  mkdir -p "$root.partial"
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$root.partial" "$mirror" >"$place/debootstrap.log" 2>&1 ||
    die "debootstrap failed (log: $place/debootstrap.log)"
  rm -rf "$root"
  mv "$root.partial" "$root"
  # The package clients' settings of this machine: sources, keys, certificates, proxies.
  local file
  rm -f "$root/etc/apt/sources.list"
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources /etc/resolv.conf /etc/hosts; do
    [[ ! -e $file ]] || install -D -m 644 "$file" "$root$file"
  done
  for file in /etc/apt/apt.conf.d/*; do
    # Hooks of packages that the new root does not have stay behind.
    grep -q 'Invoke' "$file" || cp "$file" "$root/etc/apt/apt.conf.d/"
  done
  cp -n /usr/share/keyrings/debian-* "$root/usr/share/keyrings/" 2>/dev/null || true
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  local packages
  mapfile -t packages < <(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' tools/packages-guest.txt)
  {
    mount -t proc proc "$root/proc"
    in_root apt-get -q -y update && in_root apt-get -q -y install --no-install-recommends "${packages[@]}" || rc=$?
    umount "$root/proc"
    ((${rc:-0} == 0))
  } >"$place/apt.log" 2>&1 || { rm -rf "$root"; die "apt-get failed in the new root (log: $place/apt.log)"; }
  in_root apt-get clean
  echo kubetape-kernel >"$root/etc/hostname"
  echo '/dev/vda / ext4 defaults 0 0' >"$root/etc/fstab"
  cat >"$root/etc/systemd/system/kubetape-job.service" <<UNIT
[Unit]
Description=the job that test_kernel.sh left in its share
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'modprobe 9pnet_virtio; mkdir -p /share; mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 share /share; sh /share/job >/dev/console 2>&1; sync; systemctl poweroff --force --force'
[Install]
WantedBy=default.target
UNIT
  in_root systemctl enable --quiet kubetape-job.service
  in_root systemctl set-default --quiet multi-user.target
  in_root systemctl mask --quiet serial-getty@ttyS0.service getty@tty1.service systemd-timesyncd.service apt-daily.timer apt-daily-upgrade.timer
}

build_image() {
  say "making a disk image of it"
  mke2fs -q -t ext4 -d "$root" -L root "$image.partial" 3G
  mv "$image.partial" "$image"
}

mkdir -p "$place" "$share"
stamp=$place/packages
if ! cmp -s tools/packages-guest.txt "$stamp" || [[ ! -e $image ]]; then
  build_root
  build_image
  cp tools/packages-guest.txt "$stamp"
fi

if (($# == 0)); then
  stacks=tests/live/test_stacks.py
  set -- tests/live/test_{exact,loss,stops,no_arguments,sched,block_io,user_probe,tls_python}.py tests/unit/capture/test_compilation.py \
    "$stacks::test_a_c_program_and_what_each_function_used" "$stacks::test_a_stripped_program_has_one_name_for_each_function" \
    "$stacks::test_only_what_is_in_scope_and_how_often_is_asked_for"
fi
rm -rf "${share:?}"/* "$place/checkout"
mkdir -p "$place/checkout/.venv"
# A copy, so that edits meanwhile do not reach the running tests.
git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
  [[ ! -e $file && ! -L $file ]] || printf '%s\0' "$file"
done | tar --null --files-from=- --create --file=- | tar -x -C "$place/checkout"
printf -v arguments '%q ' "$@"
# An emulated processor is some 15 times slower: the tests' own time limits grow by KUBETAPE_SLOWER.
cat >"$share/job" <<JOB
mkdir -p "$checkout"
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose checkout "$checkout"
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose venv "$checkout/.venv"
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
cd "$checkout"
export CI=true PYTHONDONTWRITEBYTECODE=1 KUBETAPE_SLOWER=15
# What hangs, hangs out of sight: the last look at all threads, and where in the kernel they wait.
(while sleep 30; do { uptime; ps -eLo pid,tid,stat,pcpu,wchan:32,args; } >/share/processes.txt 2>&1; done) &
uname -a
.venv/bin/python -m kubetape doctor >/share/doctor.txt 2>&1
.venv/bin/python -m pytest -p no:cacheprovider -p no:xdist -v -o addopts= --junit-xml=/share/result.xml $arguments >/share/pytest.txt 2>&1
echo \$? >/share/status
JOB
kernel=$(ls "$root"/boot/vmlinuz-* | sort -V | tail -n 1)
# One thread for both processors: with one each, qemu 7.2 at times keeps running code that the other processor has
# patched away (a tracepoint being switched off), and the machine stands still.
say "starting $(basename "$kernel") in an emulated machine"
began=$SECONDS
timeout --foreground "${KUBETAPE_KERNEL_MINUTES:-60}m" nice -n 15 qemu-system-x86_64 -accel tcg,thread=single -cpu max -smp 2 -m 3G \
  -nographic -no-reboot -serial "file:$place/console.log" -monitor none -nic none \
  -kernel "$kernel" -initrd "${kernel/vmlinuz/initrd.img}" \
  -append "root=/dev/vda rw console=ttyS0 quiet panic=-1 systemd.unified_cgroup_hierarchy=1" \
  -drive "file=$image,format=raw,if=virtio,snapshot=on" \
  -virtfs "local,path=$place/checkout,mount_tag=checkout,security_model=none,readonly=on" \
  -virtfs "local,path=$checkout/.venv,mount_tag=venv,security_model=none,readonly=on" \
  -virtfs "local,path=$share,mount_tag=share,security_model=none" </dev/null ||
  die "the machine did not end by itself (console: $place/console.log)"
say "ended after $((SECONDS - began)) s"
[[ -e $share/status ]] || die "no result (console: $place/console.log)"
cat "$share/doctor.txt" "$share/pytest.txt"
exit "$(cat "$share/status")"
