#!/usr/bin/env bash
# setup.sh WORK: everything two guests need, into WORK: packages by name, a kernel (unpacked, not installed), the binaries, an initrd.
# Exit code 77: a package cannot be had.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
mkdir -p "$1"
work=$(cd "$1" && pwd)

PACKAGES=(qemu-system-x86 seabios ndctl daxctl busybox-static cpio kmod iproute2)
MODULES="cxl_acpi cxl_pci cxl_mem cxl_pmem cxl_port libnvdimm nd_pmem dax_pmem device_dax dax_cxl dax_hmem kmem virtio_pci virtio_net sch_netem"

skip() {
    echo "SKIPPED, not passed: $*" >&2
    exit 77
}

missing=()
for package in "${PACKAGES[@]}"; do dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package"); done
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || skip "these packages are missing, and only root can install them: ${missing[*]}"
    apt-get update -qq >"$work/apt.log" 2>&1 || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >>"$work/apt.log" 2>&1 \
        || skip "cannot install ${missing[*]}: $(tail -1 "$work/apt.log")"
fi

# This distribution's kernel, with CXL regions and device-dax. Not the one for clouds: in that no memory can fail.
image=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2; exit }')
[ -n "$image" ] || skip "no package linux-image-amd64 is known here (apt-get update)"
if [ ! -d "$work/$image" ]; then
    (cd "$work" && apt-get download -qq "$image" >>"$work/apt.log" 2>&1) || skip "cannot download $image"
    dpkg -x "$work/$image"_*.deb "$work/$image.part"
    rm -f "$work/$image"_*.deb
    mv "$work/$image.part" "$work/$image"
fi
cp "$work/$image"/boot/vmlinuz-* "$work/vmlinuz"

# The binaries that the other tests run, with their assertions; their libraries go with them.
(cd "$root" && cargo build --quiet -p embarcadero -p embarctl -p loadgen)
binaries=${CARGO_TARGET_DIR:-$root/target}/debug

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
modules=$(find "$work/$image" -mindepth 3 -maxdepth 4 -path '*/lib/modules/*' -type d | head -1)
version=$(basename "$modules")
base=${modules%/lib/modules/*}
mkdir -p "$tree"/{bin,usr,proc,sys,dev,tmp,run,etc,lib64} "$tree/lib/modules/$version"
ln -s bin "$tree/sbin"
ln -s ../bin "$tree/usr/bin"
cp "$(command -v busybox)" "$tree/bin/busybox"
for applet in $(busybox --list); do
    case $applet in busybox | ndctl | cxl | daxctl | tc) ;; *) ln -sf busybox "$tree/bin/$applet" ;; esac
done
for binary in "$(command -v cxl)" "$(command -v ndctl)" "$(command -v daxctl)" "$(command -v tc)" "$binaries"/{embarlet,embarctl,loadgen}; do
    cp -L "$binary" "$tree/bin/"
    # All of it lies in the guest's memory, twice while it is unpacked: what a debugger wants stays here.
    strip --strip-debug "$tree/bin/$(basename "$binary")"
    { ldd "$binary" 2>/dev/null | grep -o '/[^ ]*' || true; } | sort -u | while read -r library; do
        mkdir -p "$tree$(dirname "$library")"
        [ -e "$tree$library" ] || cp -L "$library" "$tree$library"
    done
done
[ -e "$modules/modules.dep" ] || depmod -b "$base" "$version"
# This machine's own modprobe.d says nothing about the guests.
for module in $MODULES; do
    modprobe -C /dev/null -d "$base" -S "$version" --show-depends "$module" 2>/dev/null | awk '/^insmod/ { print $2 }' || true
done | sort -u | while read -r file; do
    folder="$tree/lib/modules/$version/$(dirname "${file#*"/lib/modules/$version/"}")"
    mkdir -p "$folder"
    case $file in *.xz) xz -dc "$file" >"$folder/$(basename "${file%.xz}")" ;; *) cp "$file" "$folder/" ;; esac
done
for list in "$modules"/modules.builtin "$modules"/modules.order "$modules"/modules.builtin.modinfo; do
    [ ! -e "$list" ] || cp "$list" "$tree/lib/modules/$version/"
done
depmod -b "$tree" "$version" 2>/dev/null
cp "$here/init" "$tree/init"
cp -r "$root/config" "$tree/config"
chmod +x "$tree/init"
(cd "$tree" && find . | cpio -o -H newc --quiet) >"$work/initrd.cpio"
echo "kernel $version, initrd of $(stat -c %s "$work/initrd.cpio") bytes, $(qemu-system-x86_64 --version | head -1)"
