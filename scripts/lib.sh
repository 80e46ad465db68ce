# What the scripts share. Sourced, not run.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# need COMMAND PACKAGE...: installs Debian packages where COMMAND is missing; says what to do where it cannot.
need() {
    local command=$1
    shift
    command -v "$command" >/dev/null 2>&1 && return
    install_for "$command" "$@"
    command -v "$command" >/dev/null 2>&1 || die "'$command' is still missing after installing $*"
}

# install_for WHAT PACKAGE...: installs Debian packages for WHAT; says what to do where it cannot.
install_for() {
    local what=$1
    shift
    [ "$(id -u)" = 0 ] || die "'$what' is missing: install the package(s) '$*' (as root)"
    command -v apt-get >/dev/null 2>&1 || die "'$what' is missing: install it (Debian's package(s): $*)"
    if [ -z "${WGNAT_APT_UPDATED:-}" ]; then
        say "apt-get update"
        apt-get update -qq >&2 || die "apt-get update failed"
        export WGNAT_APT_UPDATED=1
    fi
    say "installing $*"
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 \
        || die "could not install: $*"
}

# What a build needs: cargo, and a C compiler as its linker.
need_build() {
    command -v cargo >/dev/null 2>&1 || die "cargo is missing: install Rust 1.95 or newer (rustup.rs or your distribution)"
    need cc gcc libc6-dev
}

# What the lab needs: namespaces, netfilter, WireGuard in userspace.
need_lab() {
    need ip iproute2
    need nft nftables
    need conntrack conntrack
    need iptables-nft iptables
    need wg wireguard-tools
    need wireguard-go wireguard-go
    need setpriv util-linux
    need tcpdump tcpdump
    need turnserver coturn # its discovery client is the referee of `nat`, its server that of `reflect`
    need stun stun-client
    need dnsmasq dnsmasq-base # a name server that knows .internal, as Fly's does
    need miniupnpd miniupnpd-nftables # a gateway that speaks PCP, NAT-PMP and UPnP, as home routers do
    need pgrep procps # kill, for tests that interrupt a child
    need chromium chromium # the agent's page in a real browser
    need promtool prometheus # the agent's metrics, checked and scraped
    need systemd-analyze systemd # judges the service's unit; nothing of it is run
    need_clients
    need tmux tmux # a terminal for `top`
}

# Programs in other languages, whose connections the lab advises on.
need_clients() {
    need node nodejs
    need python3 python3
    python3 -c 'import requests' 2>/dev/null || install_for requests python3-requests
    need go golang-go
}

# What the virtual machine needs beside the lab: QEMU, busybox and a kernel, unpacked below the build directory and not
# installed, for QEMU's package may push others out.
need_vm() {
    need ip iproute2
    need nft nftables
    need wg wireguard-tools
    need setpriv util-linux
    need bash bash
    need xz xz-utils
    "$top/tests/vm/fetch" "${CARGO_TARGET_DIR:-$top/target}/vm-cache" || die "the virtual machine cannot be made"
}
