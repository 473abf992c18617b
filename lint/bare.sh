#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tries the README's two commands on a machine with nothing on it: a debootstrapped folder without make,
# cmake or a compiler. As root; takes about 15 minutes; no part of CI.
#   lint/bare.sh FOLDER [SUITE] [MIRROR]
# FOLDER is kept, so that a second try is quicker; remove it for a fresh machine.
set -eu

root=${1:?usage: lint/bare.sh FOLDER [SUITE] [MIRROR]}
suite=${2:-bookworm}
mirror=${3:-}
cd "$(dirname "$0")/.."

[ -e "$root/bin/sh" ] || debootstrap --variant=minbase "$suite" "$root" ${mirror:+"$mirror"}
cp /etc/resolv.conf "$root/etc/"
# Certificates that only this network has.
mkdir -p "$root/usr/local/share/ca-certificates"
cp -r /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/"
rm -rf "$root/salver"
mkdir "$root/salver"
git archive HEAD | tar -x -C "$root/salver"

inside() {
    chroot "$root" env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        TERM=dumb "$@"
}

mount --bind /proc "$root/proc"
mount --bind /dev "$root/dev"
trap 'umount "$root/proc" "$root/dev"' EXIT
for tool in make cmake gcc cc; do
    inside sh -c "command -v $tool" && echo "bare: $tool is there already: not a bare machine"
done

inside sh -c 'cd /salver && exec ./run demo' >"$root/salver/demo.log" 2>&1 &
demo=$!
until grep -q '^Serving on' "$root/salver/demo.log"; do
    kill -0 $demo || { cat "$root/salver/demo.log"; echo "bare: ./run demo ended" >&2; exit 1; }
    sleep 1
done
grep Paris "$root/salver/demo.log"
inside python3 -c 'import urllib.request as r
print(r.urlopen("http://127.0.0.1:8000/v1/models").read().decode())'
echo "bare: ./run demo serves"
pkill -TERM -P $demo
wait $demo || true
inside sh -c 'cd /salver && exec ./run test'
echo "bare: ./run test is green"
