#!/usr/bin/env bash
# Makes ready what spec/run.sh aarch64 needs on a Debian or Ubuntu machine of another kind:
# the cross compiler and QEMU from the system's packages, and Lua, OpenBLAS and what else
# is for 64-bit ARM unpacked in build/aarch64-root. The system's own list of architectures
# stays as it is. Read next: cmake/aarch64.cmake.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD/build/aarch64-root

for tool in aarch64-linux-gnu-gcc qemu-aarch64-static apt-get dpkg-deb; do
  command -v "$tool" >/dev/null && continue
  echo "$tool is missing; on Debian or Ubuntu: apt-get install gcc-aarch64-linux-gnu qemu-user-static" >&2
  exit 1
done

if [ ! -f "$root/complete" ]; then
  rm -rf "$root"
  packages=$root/packages
  mkdir -p "$packages/lists/partial" "$packages/archives/partial"
  touch "$packages/status"
  apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User=root \
      -o "Dir::State=$packages" -o "Dir::State::status=$packages/status" -o "Dir::Cache=$packages" "$@"
  }
  apt update
  (cd "$packages" && apt download libc6 libgcc-s1 liblua5.4-0 liblua5.4-dev libcjson1 libcjson-dev \
    zlib1g zlib1g-dev libopenblas0-pthread libgfortran5 lua-filesystem lua-system lua-term)
  for package in "$packages"/*.deb; do dpkg-deb -x "$package" "$root"; done
  rm -rf "$packages"
  touch "$root/complete"
fi

# nyx and C tests as one command, for spec/run.sh and busted --lua.
for program in run nyx; do
  cat >"$root/$program" <<TEXT
#!/bin/sh
exec qemu-aarch64-static -L '$root' \
  -E LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu/openblas-pthread $([ $program = run ] || echo "'$PWD/build/aarch64/bin/nyx'") "\$@"
TEXT
  chmod +x "$root/$program"
done
