#!/usr/bin/env bash
# The one script to start with: installs what is missing, builds, demonstrates, tests.
# `./bootstrap.sh help` lists what it can do. Read next: spec/run.sh, CMakePresets.json.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
./bootstrap.sh         installs what is missing and builds Nyx (build/release/bin/nyx)
./bootstrap.sh demo    the same, then trains a network on handwritten digits
./bootstrap.sh test    builds and runs the whole test suite; the last line is
                       "N passed, N failed"; names of suites after it run only those
                       (spec/run.sh lists them)
./bootstrap.sh help    this text

Environment: JOBS=n jobs at once (default: the number of cores)
TEXT
}

# What each package is for:
#   a compiler, cmake, ninja, pkg-config, Lua 5.4   needed
#   libedit      line editing in the REPL           OpenBLAS  fast matrix products
#   zlib         compressed data sets               cJSON     nyx.save and nyx.load
#   libzip       .npz files of NumPy
#   LuaJIT       its module, and the specs under it
#   busted, luarocks, PoCL (OpenCL on the CPU), Graphviz, valgrind      for the tests
#   clang                                           for the tests, as the other compiler
#   luacheck, clang-format                          for .ci/run
apt_needed="build-essential cmake ninja-build pkg-config liblua5.4-dev lua5.4"
apt_wanted="libedit-dev libopenblas0-pthread libluajit-5.1-dev luajit zlib1g-dev libcjson-dev libzip-dev"
apt_tests="lua-busted luarocks lua-check clang clang-format pocl-opencl-icd ocl-icd-libopencl1 graphviz valgrind"

# For other systems: the command to type, by package manager.
other_systems() {
  cat <<'TEXT'
dnf     sudo dnf install gcc make cmake ninja-build pkgconf lua lua-devel libedit-devel zlib-devel cjson-devel libzip-devel openblas luajit luajit-devel luarocks clang clang-tools-extra pocl graphviz
pacman  sudo pacman -S --needed base-devel cmake ninja lua luajit libedit openblas zlib cjson libzip luarocks clang pocl graphviz
zypper  sudo zypper install gcc make cmake ninja pkgconf lua54 lua54-devel libedit-devel zlib-devel cJSON-devel libzip-devel libopenblas_pthreads0 luajit luajit-devel lua54-luarocks clang pocl graphviz
brew    brew install cmake ninja pkg-config lua luajit libedit openblas zlib cjson libzip luarocks clang-format pocl graphviz
TEXT
}

say() { printf '%s\n' "$*" >&2; }

missing_packages() { # of those given, the ones that dpkg does not have
  local package
  for package in "$@"; do
    case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
      ii*) ;;
      *) echo "$package" ;;
    esac
  done
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# install <package>...: through apt, all at once; if that fails, one by one, and only the
# needed ones are an error.
install() {
  local missing package
  missing=$(missing_packages "$@")
  [ -n "$missing" ] || return 0
  missing=$(echo $missing)
  if [ "$(id -u)" != 0 ] && ! command -v sudo >/dev/null; then
    say "These packages are missing, and there is no sudo to install them. As root:"
    say "  apt-get install $missing"
    for package in $missing; do
      case " $apt_needed " in *" $package "*) say "Nyx needs $package"; exit 1 ;; esac
    done
    say "going on without them"
    return 0
  fi
  say "installing: $missing"
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get update -qq || say "apt-get update failed; trying with the lists there are"
  # shellcheck disable=SC2086 # a list of words
  as_root apt-get install -y -qq --no-install-recommends $missing </dev/null >&2 && return 0
  for package in $missing; do
    as_root apt-get install -y -qq --no-install-recommends "$package" </dev/null >&2 ||
      case " $apt_needed " in
        *" $package "*) say "could not install $package"; exit 1 ;;
        *) say "could not install $package; going on without it" ;;
      esac
  done
}

# Makes sure of everything for building; with "tests", for testing too.
dependencies() {
  if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    local wanted="$apt_needed $apt_wanted"
    [ "${1:-}" != tests ] || wanted="$wanted $apt_tests"
    # shellcheck disable=SC2086
    install $wanted
    return
  fi
  local tool absent=""
  for tool in cc cmake ninja pkg-config lua; do
    command -v "$tool" >/dev/null || absent="$absent $tool"
  done
  [ -n "$absent" ] || return 0
  say "Missing:$absent. This system has no apt; with its package manager:"
  other_systems >&2
  exit 1
}

# build <preset>: configures once (the build itself notices new files) and builds.
build() {
  [ -f "build/$1/build.ninja" ] || cmake --preset "$1" >&2
  cmake --build --preset "$1" -j "$jobs" >&2
}

jobs=${JOBS:-$(nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)}
export JOBS="$jobs"

case ${1:-} in
  "")
    dependencies
    build release
    cat <<'TEXT'

Built. Next:
  build/release/bin/nyx            the REPL; try: x = nyx.randn(3, 3); x:matmul(x:t())
  build/release/bin/nyx --doctor   what this machine offers
  ./bootstrap.sh demo              train a network on handwritten digits
  cmake --install build/release    install (under /usr/local, or --prefix DIR)
TEXT
    ;;
  demo)
    dependencies
    build release
    exec build/release/bin/nyx examples/digits.lua
    ;;
  test)
    shift
    dependencies tests
    exec spec/run.sh "$@"
    ;;
  help | -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
