#!/usr/bin/env bash
# Unpacks a software Vulkan driver that draws ManiSkill (Mesa 25's lavapipe) into .venv/mesa; says nothing when it is there.
#
#   bash tools/setup_maniskill.sh            (`make setup-maniskill` calls it)
#   bash tools/setup_maniskill.sh FOLDER     elsewhere; then set MBRL_PVR_MESA=FOLDER
#
# Debian 12's own Mesa 22.3 is too old for ManiSkill, so the packages come from bookworm-backports. Nothing is installed:
# apt-get fetches, with package lists of its own, what this system lacks, and the libraries are unpacked. Root is not needed,
# and the system's Mesa stays as it is. A GPU whose driver brings Vulkan needs none of this.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:-.venv/mesa}
stamp=$target/.current

say() { printf 'setup-maniskill: %s\n' "$*"; }
fail() { printf 'setup-maniskill: %s\n' "$*" >&2; exit 1; }

now=$(sha256sum tools/setup_maniskill.sh | cut -d' ' -f1)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ] && [ -f "$target/lvp_icd.json" ] && exit 0

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
  fail "no apt-get here. Install Mesa 25 or newer with your system's tools; its lavapipe is found by itself"
. /etc/os-release
[ "${ID:-}" = debian ] || fail "this is ${PRETTY_NAME:-no Debian}. Install its mesa-vulkan-drivers where they are 25 or newer; they are found by themselves"
suites="$VERSION_CODENAME $VERSION_CODENAME-updates"; from=$VERSION_CODENAME
if [ "$VERSION_CODENAME" = bookworm ]; then suites="$suites bookworm-backports"; from=bookworm-backports; fi
keys=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | grep -v security | head -n 1 || true)
[ -n "$mirror" ] || mirror=http://deb.debian.org/debian

work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
chmod 755 "$work"   # apt-get fetches as a user of its own where it is root
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/root" "$work/lib"
printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$mirror" "$suites" "$keys" >"$work/mesa.sources"
: >"$work/nothing"
# read after the system's own settings (proxies stay): other lists, no locks of the system, none of its hooks
cat >"$work/apt.conf" <<END
Dir::Etc::SourceList "$work/mesa.sources";
Dir::Etc::SourceParts "/dev/null";
Dir::State::Lists "$work/lists";
Dir::Cache "$work/cache";
Debug::NoLocking "true";
APT::Sandbox::User "$(id -un)";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
END
log=$work/log
apt() { apt-get -c "$work/apt.conf" -o Acquire::Retries=3 "$@" 2>>"$log"; }
give_up() { tail -n 5 "$log" >&2; fail "$1"; }

say "fetching a software Vulkan driver from $mirror $from (a minute or so)"
apt update -qq >>"$log" || give_up "the package lists of $mirror ($suites) could not be fetched"
wanted=(install -y --print-uris -qq --no-install-recommends -t "$from" mesa-vulkan-drivers libvulkan1)
urls() { awk '{ print $2 }' | sed 's/_.*//' | sort; }   # names of packages
# all that the driver depends on, and of that only what this system lacks or has too old
every=$(apt -o Dir::State::status="$work/nothing" "${wanted[@]}" | urls) || give_up "the driver's packages were not found"
lacking=$(apt "${wanted[@]}" | urls) || give_up "this system's packages do not go together with the driver's"
packages=$( { comm -12 <(echo "$every") <(echo "$lacking"); echo mesa-vulkan-drivers; echo libvulkan1; } | sort -u)
if grep -qx 'libc6' <<<"$packages"; then fail "the driver needs a newer C library than this system's"; fi
(cd "$work/debs" && apt download -qq -t "$from" $packages >>"$log") || give_up "these could not be fetched:" $packages
for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done

# the driver, the loader, and what they need, in one flat folder; drivers of GPUs are left out
find "$work/root" -name '*.so*' ! -name 'libvulkan_*' ! -name 'libVkLayer*' ! -path '*/gallium*' -exec cp -P {} "$work/lib/" \;
find "$work/lib" -xtype l -delete   # links into folders that are not taken
find "$work/root" -name 'libvulkan_lvp.so' -exec cp -L {} "$work/lib/" \;
[ -f "$work/lib/libvulkan_lvp.so" ] || fail "mesa-vulkan-drivers holds no libvulkan_lvp.so for this processor"
version=$(dpkg-deb -f "$work"/debs/mesa-vulkan-drivers_*.deb Version)
api=$(sed -n 's/.*"api_version": *"\([^"]*\)".*/\1/p' "$(find "$work/root" -name 'lvp_icd*.json' | head -n 1)")
mkdir -p "$target"; rm -rf "$target/lib" "$stamp"
mv "$work/lib" "$target/lib"
# a path with a slash is looked up beside the file, so that the folder can be moved
printf '{"file_format_version": "1.0.0", "ICD": {"library_path": "./lib/libvulkan_lvp.so", "api_version": "%s"}}\n' "$api" >"$target/lvp_icd.json"
echo "$version" >"$target/VERSION"
echo "$now" >"$stamp"
say "Mesa $version in $target ($(du -sh "$target" | cut -f1))"
