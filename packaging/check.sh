#!/bin/sh
# Checks the unit, the groups and the directories with systemd's own tools. Needs no root and no
# installed shifter; prints what is wrong and ends with 1 if something is.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT INT TERM

# A binary that is not installed yet is not what is checked here.
sed 's|^ExecStart=/usr/sbin/shifterd|ExecStart=/bin/true|' "$here/shifterd.service" \
    > "$root/shifterd.service"
# Unknown keys are only warned of, so every line counts that names the unit.
systemd-analyze verify --man=no "$root/shifterd.service" > "$root/verify" 2>&1 || true
if grep shifterd "$root/verify"; then
    echo "packaging/shifterd.service: systemd-analyze verify complains" >&2
    exit 1
fi

mkdir -p "$root/etc" "$root/usr/lib/sysusers.d" "$root/usr/lib/tmpfiles.d"
: > "$root/etc/passwd"
: > "$root/etc/group"
systemd-sysusers --root="$root" "$here/shifter.sysusers.conf" 2> "$root/sysusers" ||
    { cat "$root/sysusers" >&2; exit 1; }
for group in shifter shifter-view; do
    grep -q "^$group:" "$root/etc/group" ||
        { echo "packaging/shifter.sysusers.conf: makes no group $group" >&2; exit 1; }
done

if [ "$(id -u)" = 0 ]; then
    echo 'root:x:0:0::/root:/bin/sh' > "$root/etc/passwd"
    echo 'root:x:0:' >> "$root/etc/group"
    systemd-tmpfiles --root="$root" --create "$here/shifter.tmpfiles.conf"
    found=$(stat -c '%a %U' "$root/etc/shifter/services.d")
    [ "$found" = '755 root' ] ||
        { echo "packaging/shifter.tmpfiles.conf: services.d is $found" >&2; exit 1; }
fi
echo 'packaging: ok'
