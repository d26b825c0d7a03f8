#!/bin/sh
# Makes the demo guest and puts it where the profile `demo` looks for it: mvm's image folder.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
guest=$("$here/../guest/make.sh" x86_64)
if [ -n "${MVM_STATE_DIR:-}" ]; then
    state=$MVM_STATE_DIR
elif [ "$(id -u)" = 0 ]; then
    state=/var/lib/mvm
else
    state=${XDG_STATE_HOME:-$HOME/.local/state}/mvm
fi
demo=$state/images/demo
mkdir -p "$demo"
for f in kernel initrd; do
    # A running guest may have the old file open: never written in place.
    cmp -s "$guest/$f" "$demo/$f" || { cp "$guest/$f" "$demo/$f.new" && mv "$demo/$f.new" "$demo/$f"; }
done
echo "the demo guest is in $demo: mvm run demo"
