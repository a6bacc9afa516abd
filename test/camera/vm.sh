#!/bin/bash
# vm.sh - runs a command beside a real V4L2 camera (the kernel's vivid driver) on
# a machine that has neither cameras nor kernel modules.
#
# It boots Debian's stock kernel in qemu, in software: no KVM is needed. The
# guest's root is this machine's own file system, shared read-only over 9p under
# a tmpfs: the guest runs the very same GStreamer and the very same binaries as
# the host, and nothing is installed in it. Measured here (November 2026, two
# cores): 15 s to the guest's first command with an empty cache, 7 s warm; raw
# 320x180 at 60 frames a second, 640x480 at 25.
#
#   vm.sh [options] -- COMMAND...   COMMAND runs in the guest as root, in this
#                                   directory; its exit status is the script's
# options:
#   -l       also have v4l2loopback, for a device of any format: camera_loop
#   -d       only fill the cache, start nothing
#   -c DIR   cache of kernel, modules and GStreamer registry (default: .cache
#            beside this script, or $CAMERA_CACHE)
#   -o DIR   host directory mounted read-write at /mnt/out in the guest
#   -m MODS  further modules to load, such as "snd-aloop uinput"
#   -n IF    use the tap interface IF, which exists, for the guest's eth0: the
#            guest is 10.99.0.2/24, the host's side 10.99.0.1
#   -t SEC   give up after SEC seconds (default 180)
#   -s N     guest CPUs (default 2)     -M MB  guest memory (default 1024)
#
# In the guest these shell functions are exported:
#   camera_plug, camera_unplug           load and unload vivid (unload: unless open)
#   camera_yank, camera_back             the device vanishes under an open file, and returns
#   camera_loop FOURCC WIDTH HEIGHT      a new /dev/video9 of a format, such as MJPG 320 240; then feed it:
#       … ! jpegenc ! filesink location=/dev/video9 buffer-mode=unbuffered append=true sync=false
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export PATH=$PATH:/usr/sbin:/sbin

cache=${CAMERA_CACHE:-$here/.cache}
tap='' modules='' loopback=0 limit=180 cpus=2 memory=1024 out='' only=0
vivid="n_devs=1 node_types=0x1 num_inputs=1 input_types=0x00 vid_cap_nr=0 multiplanar=1 no_error_inj=0"
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2; }
while getopts ldc:o:m:n:t:s:M:h opt; do
  case $opt in
    l) loopback=1 ;; d) only=1 ;; c) cache=$OPTARG ;; o) out=$OPTARG ;; m) modules=$OPTARG ;;
    n) tap=$OPTARG ;; t) limit=$OPTARG ;; s) cpus=$OPTARG ;; M) memory=$OPTARG ;; *) usage ;;
  esac
done
shift $((OPTIND - 1))
[ "${1:-}" = -- ] && shift
[ $# -gt 0 ] || [ $only = 1 ] || usage
note() { echo "camera: $*" >&2; }

# --- packages -----------------------------------------------------------------
missing=()
for want in qemu-system-x86_64:qemu-system-x86 cpio:cpio modprobe:kmod busybox:busybox-static v4l2-ctl:v4l-utils; do
  command -v "${want%%:*}" >/dev/null || missing+=("${want##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  note "apt-get install ${missing[*]}"
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
    { note "could not install ${missing[*]}"; exit 1; }
fi

# --- the kernel: Debian's package, unpacked into the cache ----------------------
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
if [ ! -s "$cache/version" ]; then
  package=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-/{print $2; exit}')
  [ -n "$package" ] || { note "apt knows no linux-image-amd64: apt-get update"; exit 1; }
  note "downloading $package"
  work=$(mktemp -d "$cache/kernel.XXXXXX")
  (cd "$work" && apt-get download -qq "$package" && dpkg-deb --fsys-tarfile "$package"_*.deb |
    tar -x --exclude='*/drivers/gpu' --exclude='*/drivers/net/wireless' --exclude='*/drivers/net/ethernet' \
      --exclude='*/drivers/scsi' --exclude='*/drivers/infiniband' --exclude='*/drivers/staging' --exclude='*/drivers/iio' \
      --exclude='*/drivers/hwmon' --exclude=./usr --exclude='./boot/System*')
  version=$(basename "$work"/lib/modules/*)
  depmod -b "$work" "$version"
  rm -rf "$cache/boot" "$cache/lib"
  mv "$work/boot" "$work/lib" "$cache/"
  rm -rf "$work"
  echo "$version" > "$cache/version"
fi
version=$(cat "$cache/version")

if [ $loopback = 1 ] && [ ! -s "$cache/v4l2loopback-$version.ko" ]; then
  note "building v4l2loopback for $version"
  work=$cache/build
  rm -rf "$work"; mkdir -p "$work"
  (
    cd "$work"
    apt-get download -qq v4l2loopback-dkms "linux-headers-$version" "linux-headers-${version%-amd64}-common" \
      linux-kbuild-6.1 linux-compiler-gcc-12-x86
    for deb in *.deb; do dpkg -x "$deb" root; done
    headers=$work/root/usr/src/linux-headers-$version
    common=$work/root/usr/src/linux-headers-${version%-amd64}-common
    kbuild=$work/root/usr/lib/linux-kbuild-6.1
    sed -i "s#/usr/src/linux-headers#$work/root/usr/src/linux-headers#" "$headers/Makefile"
    for dir in scripts tools; do ln -sfn "$kbuild/$dir" "$headers/$dir"; ln -sfn "$kbuild/$dir" "$common/$dir"; done
    make -s -C "$headers" M="$(echo "$work"/root/usr/src/v4l2loopback-*)" modules
  ) >"$cache/build.log" 2>&1 || { tail "$cache/build.log" >&2; exit 1; }
  cp "$work"/root/usr/src/v4l2loopback-*/v4l2loopback.ko "$cache/v4l2loopback-$version.ko"
  rm -rf "$work" "$cache/build.log"
fi
[ $only = 0 ] || exit 0

# --- the initramfs: busybox, the modules, and an init that mounts and switches ---
run=$(mktemp -d "$cache/run.XXXXXX")
trap 'rm -rf "$run"' EXIT
mkdir -p "$run/root/bin" "$run/root/m"
cp "$(command -v busybox)" "$run/root/bin/busybox"
declare -A seen
for module in virtio_pci 9pnet_virtio 9p overlay virtio_net $modules vivid videodev; do
  while read -r file; do
    [ -z "${seen[$file]:-}" ] || continue
    seen[$file]=1
    name=$(basename "$file" .ko)
    cp "$file" "$run/root/m/$name.ko"
    [ "$name" = vivid ] || echo "$name" >> "$run/root/m/list"
  done < <(modprobe -d "$cache" -S "$version" --show-depends "$module" | awk '{print $2}')
done
[ $loopback = 0 ] || cp "$cache/v4l2loopback-$version.ko" "$run/root/m/v4l2loopback.ko"
cat > "$run/root/init" <<'INIT'
#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /sys /low /up /new /out
$b mount -t proc p /proc
$b mount -t sysfs s /sys
while read m; do $b insmod /m/$m.ko || echo "camera: insmod $m failed"; done < /m/list
o=trans=virtio,version=9p2000.L,msize=512000
$b mount -t 9p -o $o,ro,cache=loose host /low && $b mount -t tmpfs t /up && $b mkdir /up/u /up/w &&
  $b mount -t overlay -o lowerdir=/low,upperdir=/up/u,workdir=/up/w,xino=off ov /new || $b poweroff -f
for d in proc sys dev run tmp mnt; do $b mkdir -p /new/$d; done
$b mount --move /proc /new/proc
$b mount --move /sys /new/sys
$b mount -t devtmpfs d /new/dev
$b mkdir -p /new/dev/pts /new/dev/shm
$b mount -t devpts p /new/dev/pts
$b mount -t tmpfs t /new/dev/shm
$b mount -t tmpfs t /new/run
$b mkdir -p /new/mnt/out /new/run/camera
$b mount -t 9p -o $o,rw,cache=none out /new/mnt/out
$b cp -r /m /new/run/camera/
exec $b switch_root /new /bin/bash /mnt/out/.camera/guest
INIT
chmod +x "$run/root/init"
(cd "$run/root" && find . | cpio -o -H newc --quiet > "$run/initramfs")

# --- what the guest runs ----------------------------------------------------------
[ -n "$out" ] || { out=$run/out; mkdir "$out"; }
out=$(cd "$out" && pwd)
mkdir -p "$out/.camera"
rm -f "$out/.camera/status"
# a scan of every plugin is slow under emulation: the host makes the registry
if command -v gst-inspect-1.0 >/dev/null; then GST_REGISTRY=$cache/gst-registry.bin gst-inspect-1.0 >/dev/null 2>&1 || true; fi
{
  echo 'exec </dev/null'
  printf 'export PATH=%q HOME=/root TMPDIR=/tmp LANG=C.UTF-8 CAMERA_VM=1 CI=%q VIVID=%q\n' "$PATH" "${CI:-}" "$vivid"
  echo 'export GST_REGISTRY=/run/gst-registry.bin'
  printf 'cp %q /run/gst-registry.bin 2>/dev/null\n' "$cache/gst-registry.bin"
  cat <<'GUEST'
camera_plug()   { insmod /run/camera/m/vivid.ko $VIVID; }
camera_unplug() { rmmod vivid; }
camera_yank()   { echo vivid.0 > /sys/bus/platform/drivers/vivid/unbind; }
camera_back()   { echo vivid.0 > /sys/bus/platform/drivers/vivid/bind; }
camera_loop()   { # what was written in one format can't be given another
  [ ! -e /dev/video9 ] || rmmod v4l2loopback
  insmod /run/camera/m/v4l2loopback.ko video_nr=9 exclusive_caps=0 card_label=loop &&
    v4l2-ctl -d /dev/video9 -c keep_format=1 --set-fmt-video-out=width=$2,height=$3,pixelformat=$1
}
export -f camera_plug camera_unplug camera_yank camera_back camera_loop
ip link set lo up
camera_plug
GUEST
  if [ -n "$tap" ]; then echo 'ip addr add 10.99.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 10.99.0.1'
  else echo 'ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2'; fi
  echo 'read up _ </proc/uptime; echo "camera: guest $(uname -r) ready ${up} s after its kernel started: $(ls /dev/video* 2>/dev/null | tr "\n" " ")"'
  printf 'cd %q\n' "$PWD"
  printf '%q ' "$@"; echo
  echo 'echo $? >/mnt/out/.camera/status; sync; echo o >/proc/sysrq-trigger; sleep 9'
} > "$out/.camera/guest"

# --- go -----------------------------------------------------------------------------
if [ -n "$tap" ]; then net=tap,id=n,ifname=$tap,script=no,downscript=no
else net=user,id=n,restrict=on; fi
timeout -k 5 "$limit" qemu-system-x86_64 -accel tcg,thread=multi,tb-size=256 -cpu max -smp "$cpus" -m "$memory" -M q35 \
  -display none -nodefaults -no-reboot -serial stdio -kernel "$cache/boot/vmlinuz-$version" -initrd "$run/initramfs" \
  -append "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable clocksource=tsc nokaslr random.trust_cpu=1" \
  -virtfs local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap \
  -virtfs local,path="$out",mount_tag=out,security_model=none,multidevs=remap \
  -netdev "$net" -device virtio-net-pci,netdev=n,romfile= -device virtio-rng-pci </dev/null &
qemu=$!
trap 'kill "$qemu" 2>/dev/null' TERM INT
status=0
wait "$qemu" || status=$?
wait "$qemu" 2>/dev/null || true
if [ -s "$out/.camera/status" ]; then status=$(cat "$out/.camera/status")
else note "the guest gave no exit status (qemu: $status)"; [ "$status" != 0 ] || status=1; fi
rm -rf "$out/.camera"
exit "$status"
