#!/usr/bin/env bash
# Runs a program that does not find one of the kernel's IPv6 settings of devices, as on a kernel that lacks it:
#
#   without_setting.sh SETTING DEVICE_TO_COME COMMAND...
#
# In a mount namespace of its own, /proc/sys/net/ipv6/conf has directories of links to all settings but this one; also
# for a device that the program is going to make.
set -euo pipefail

if [[ ${1:-} != --inside ]]; then
    exec unshare --mount --propagation private "$0" --inside "$@"
fi
setting=$2 to_come=$3
shift 3
conf=/proc/sys/net/ipv6/conf
work=$(mktemp -d)
mount -t tmpfs -o mode=755 none "$work"
mkdir "$work/kernel" "$work/shown"
mount --bind "$conf" "$work/kernel"
names=("$work/kernel/lo/"*)
for device in "$work/kernel/"* "$work/kernel/$to_come"; do
    device=${device##*/}
    mkdir "$work/shown/$device"
    for name in "${names[@]##*/}"; do
        [[ $name == "$setting" ]] || ln -s "$work/kernel/$device/$name" "$work/shown/$device/$name"
    done
done
mount --bind "$work/shown" "$conf"
[[ ! -e $conf/all/$setting && -e $conf/all/forwarding ]] || { echo "the setting $setting is still there" >&2; exit 1; }
exec "$@"
