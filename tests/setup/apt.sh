# Sourced by the other scripts: a private apt root in the cache, so that packages of any suite and
# architecture can be fetched (not installed) without root and without touching the machine's own apt.
#
#   mvm_cache            the cache directory (made when missing)
#   apt_root SUITES ARCH readies an apt root and points apt at it (exports APT_CONFIG)
#   apt_versions PKG…    the newest version of each package, as NAME=VERSION
#   apt_closure PKG…     these packages and all they depend on, as NAME=VERSION
#   apt_lib_closure PKG… only the libraries among them
#   apt_get_debs NAME=VERSION…  downloads the .deb files of exactly these, prints their paths
#   unpack DIR DEB…      unpacks them without running their scripts
#
# The mirror is the machine's own: it is read from its apt configuration at run time, or given in
# MVM_DEBIAN_MIRROR (needed on distributions that have apt but are not Debian).

mvm_cache=${XDG_CACHE_HOME:-$HOME/.cache}/mvm-test
mkdir -p "$mvm_cache"

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $1"; shift; for l in "$@"; do say "hint: $l"; done; exit 1; }

debian_mirror() {
    if [ -n "${MVM_DEBIAN_MIRROR:-}" ]; then
        echo "$MVM_DEBIAN_MIRROR"
        return
    fi
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
        die "the test guests are made from Debian packages, and this machine has no apt-get and dpkg-deb" \
            "install apt and dpkg, or run the tests on Debian"
    # Label "Debian" leaves out debian-security, whose mirror has other suites. The release fields
    # are empty until the first `apt-get update`: then the suite's name decides.
    APT_CONFIG= apt-get indextargets --format '$(REPO_URI) $(SUITE)$(RELEASE) $(LABEL)' 'Created-By: Packages' |
        awk '$3 == "Debian" { print $1; found = 1; exit }
             $3 == "" && $1 ~ /\/debian\/?$/ { print $1; found = 1; exit }
             END { exit !found }' ||
        die "the apt sources of this machine name no Debian mirror" \
            "set MVM_DEBIAN_MIRROR to the URI of one, and install debian-archive-keyring"
}

apt_root() {
    apt_dir=$mvm_cache/apt/$(echo "$1" | tr ' ' '+')-$2
    apt_keyring=
    for apt_f in /usr/share/keyrings/debian-archive-keyring.pgp /usr/share/keyrings/debian-archive-keyring.gpg; do
        [ ! -e "$apt_f" ] || apt_keyring=$apt_f
    done
    [ -n "$apt_keyring" ] || die "Debian's archive keys are missing" "install the package debian-archive-keyring"
    apt_mirror=$(debian_mirror)
    mkdir -p "$apt_dir/lists/partial" "$apt_dir/cache/archives/partial"
    : >"$apt_dir/status"
    for apt_s in $1; do
        echo "deb [arch=$2 signed-by=$apt_keyring] $apt_mirror $apt_s main"
    done >"$apt_dir/sources.list.new"
    # A changed mirror needs new lists.
    cmp -s "$apt_dir/sources.list.new" "$apt_dir/sources.list" || rm -f "$apt_dir/updated"
    mv "$apt_dir/sources.list.new" "$apt_dir/sources.list"
    # The machine's apt.conf.d still counts (proxies): only the places are ours.
    cat >"$apt_dir/apt.conf" <<X
Dir::Etc::sourcelist "$apt_dir/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$apt_dir";
Dir::State::lists "$apt_dir/lists";
Dir::State::status "$apt_dir/status";
Dir::Cache "$apt_dir/cache";
APT::Architecture "$2";
APT::Architectures { "$2"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Retries "3";
X
    APT_CONFIG=$apt_dir/apt.conf
    export APT_CONFIG
    # Once a day is enough. Old lists serve where the network is away.
    if [ -z "$(find "$apt_dir/updated" -mtime -1 2>/dev/null)" ]; then
        apt-get -qq update >&2 || [ -e "$apt_dir/updated" ] ||
            die "apt could not read the package lists of $1 ($2)" "see apt's messages above; is the network there?"
        touch "$apt_dir/updated"
    fi
}

apt_get_debs() {
    mkdir -p "$apt_dir/debs"
    (cd "$apt_dir/debs" && apt-get -qq download "$@" >&2) || die "apt could not download: $*"
    for apt_p in "$@"; do
        # The file's name carries the version, with ':' escaped.
        case $apt_p in
        *=*) apt_v=$(echo "${apt_p#*=}" | sed 's/:/%3a/g') ;;
        *) die "a package without its version: $apt_p" ;;
        esac
        ls "$apt_dir/debs/${apt_p%%=*}_${apt_v}_"*.deb
    done
}

apt_versions() {
    for apt_p in "$@"; do
        apt-cache show --no-all-versions "$apt_p" | awk '/^Package:/ { p = $2 } /^Version:/ { print p "=" $2; exit }'
    done
}

apt_closure() {
    apt-get -s install "$@" | awk '/^Inst / { v = $3; sub(/^\(/, "", v); print $2 "=" v }'
}

apt_lib_closure() {
    apt_closure "$@" | grep '^lib' | grep -v perl
}

unpack() {
    unpack_to=$1
    shift
    # Packages of both layouts (/lib and /usr/lib) unpack into one place.
    for unpack_d in lib lib64 bin sbin; do
        mkdir -p "$unpack_to/usr/$unpack_d"
        [ -e "$unpack_to/$unpack_d" ] || ln -s usr/$unpack_d "$unpack_to/$unpack_d"
    done
    for unpack_deb in "$@"; do
        # dpkg-deb -x would put a real directory in place of the link.
        dpkg-deb --fsys-tarfile "$unpack_deb" | tar -x --keep-directory-symlink --no-same-owner -C "$unpack_to"
    done
}
