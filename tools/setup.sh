#!/usr/bin/env bash
# Makes or renews .venv for this checkout; says nothing and does nothing when it is current.
#
#   bash tools/setup.sh          (`make setup`, `make demo` and `make test` call it)
#   PYTHON=/path/to/python3.12 bash tools/setup.sh        with an interpreter of your choice
#
# Debian packages are installed as root or with passwordless sudo; otherwise the line to run is printed and the set-up goes on.
# A torch that .venv already holds (a CPU build, say) is kept: pip is told to leave its version alone.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv
stamp=$venv/.setup-current
log=$venv/setup.log
rendering="libegl1 libgl1 libglu1-mesa libfreetype6 libfontconfig1 libglib2.0-0"   # EGL is the default renderer; from GLU on for Miniworld, the last for ManiSkill
optional="libosmesa6"                     # MUJOCO_GL=osmesa

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

exec 9<tools/setup.sh && flock 9   # two `make` at once: the second waits, then finds everything current

# what is installed, not how it is checked: pyproject.toml above its first table of a checking tool
fingerprint() { { sed '/^\[tool\.pytest/,$d' pyproject.toml; cat constraints.txt tools/setup.sh; pwd; } | sha256sum | cut -d' ' -f1; }
now=$(fingerprint)
[ -f "$stamp" ] && [ "$(cat "$stamp")" = "$now" ] && [ -x $venv/bin/python ] && exit 0
started=$(date +%s)

# --- the interpreter: 3.11 first, which is what constraints.txt was made with ------------------------------------------------
find_python() {
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then command -v "$candidate"; return; fi
  done
  return 1
}
if [ -x $venv/bin/python ]; then python=$venv/bin/python; else
  python=$(find_python) || fail "no Python 3.11 or newer found. Debian 12: apt-get install -y python3 python3-venv"
fi

# --- Debian packages ---------------------------------------------------------------------------------------------------------
has_package() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null || true)" = installed ]; }
has_header() { "$python" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))'; }
can_make_venv() { [ -x $venv/bin/python ] || "$python" -c 'import ensurepip' 2>/dev/null; }   # Debian packs ensurepip apart

as_root() {
  if [ "$(id -u)" = 0 ]; then env DEBIAN_FRONTEND=noninteractive "$@"; else sudo -n env DEBIAN_FRONTEND=noninteractive "$@"; fi
}

apt_install() {
  as_root apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends "$@" </dev/null >"$apt_log" 2>&1
}

install_debian() {
  local missing=() extra=() package
  for package in $rendering; do has_package "$package" || missing+=("$package"); done
  command -v gcc >/dev/null || missing+=(gcc)
  command -v g++ >/dev/null || missing+=(g++)
  has_header || missing+=(python3-dev)
  can_make_venv || missing+=(python3-venv)
  for package in $optional; do has_package "$package" || extra+=("$package"); done
  [ ${#missing[@]} = 0 ] && [ ${#extra[@]} = 0 ] && return
  local line="apt-get update && apt-get install -y --no-install-recommends ${missing[*]} ${extra[*]}"
  if [ "$(id -u)" != 0 ] && ! { command -v sudo >/dev/null && sudo -n true 2>/dev/null; }; then
    if [ ${#missing[@]} = 0 ]; then return; fi   # the optional ones alone are not worth a word
    say "not root and no passwordless sudo: going on without ${missing[*]}. An administrator runs:"
    say "    $line"
    say "without libegl1 and libgl1 nothing renders; without gcc and g++ nothing is compiled (slower, same results)."
    return
  fi
  say "Debian packages: ${missing[*]} ${extra[*]}"
  apt_log=$(mktemp)
  if ! apt_install "${missing[@]}" "${extra[@]}"; then   # no package lists yet, or old ones
    as_root apt-get -o DPkg::Lock::Timeout=300 update -qq >"$apt_log" 2>&1 || true
    if ! apt_install "${missing[@]}" "${extra[@]}" && ! { [ ${#missing[@]} != 0 ] && apt_install "${missing[@]}"; }; then
      tail -n 5 "$apt_log" >&2
      say "that failed; going on without. The line is: $line"
    fi
  fi
  rm -f "$apt_log"
}

if command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; then
  install_debian
else
  say "not a Debian system: rendering needs EGL, OpenGL and GLU libraries, compiled updates a C++ compiler and Python.h"
fi

# --- the virtual environment -------------------------------------------------------------------------------------------------
if [ ! -x $venv/bin/python ]; then
  say "making .venv with $python"
  if ! "$python" -m venv $venv >/dev/null 2>&1; then
    rm -rf $venv
    fail "'$python -m venv' does not work here. Debian 12: apt-get install -y python3-venv"
  fi
fi
python=$venv/bin/python

# torch that is there already stays: its version replaces the pinned one, and pip finds the torchvision that goes with it
constraints=$venv/constraints.txt
cp constraints.txt "$constraints"
held=$("$python" -c 'import importlib.metadata as m; print(m.version("torch").split("+")[0])' 2>/dev/null || true)
if [ -n "$held" ] && ! grep -qx "torch==$held" constraints.txt; then
  say "keeping the torch $held that .venv holds"
  { grep -vE '^(torch|torchvision)==' constraints.txt; echo "torch==$held"; } >"$constraints"
fi

# pip's log goes to a file; a line now and then shows that it lives
pip_install() {
  "$python" -m pip install --progress-bar off --disable-pip-version-check -c "$constraints" "$@" 2>&1 | tee -a "$log" | awk '
    /^ *Downloading / && match($0, /\([0-9.]+ (MB|GB)\)/) {
      size = substr($0, RSTART + 1, RLENGTH - 2); split($2, part, "-")
      if (size + 0 >= 10 || size ~ /GB/) { print "setup:   " part[1] " " part[2] ", " size; fflush() } }
    /^Collecting / { n++; if (n % 25 == 0) { print "setup:   " n " packages found"; fflush() } }
    /^Installing collected packages/ { print "setup:   unpacking (the longest step)"; fflush() }
    /^ERROR|^error/ { print "setup:   " $0; fflush() }'
}
: >"$log"
say "Python packages into .venv (several minutes the first time; log: $log)"
pip_install --quiet --upgrade pip setuptools && pip_install -e ".[dev]" || {
  tail -n 15 "$log" >&2
  fail "pip failed; the whole log is in $log"
}
echo "$now" >"$stamp"
say "done in $(($(date +%s) - started)) s: $("$python" -c 'import importlib.metadata as m; print("Python", __import__("platform").python_version() + ", torch", m.version("torch"))')"
