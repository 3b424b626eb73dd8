#!/usr/bin/env bash
# Runs the test suites and adds up their results; the last line is exactly
# "N passed, N failed" (", N skipped" when some were). A suite is a function below that
# prints jobs, one per line; jobs run several at a time, each with its output in
# build/test/. Read next: the suites, further down.
#
#   spec/run.sh               every suite but aarch64 and style
#   spec/run.sh lua repl      these
#   spec/run.sh aarch64       on 64-bit ARM, through QEMU (long; spec/aarch64.sh)
#   spec/run.sh style         clang-format, luacheck, no notes of work left, the demo (what .ci/run adds)
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export NYX_TUNE=0 # not what somebody measured on this machine

jobs=${JOBS:-$(nproc 2>/dev/null || echo 2)}
logs=${NYX_SPEC_LOGS:-build/test}
seconds_per_job=${NYX_SPEC_TIMEOUT:-900}

# ---------------------------------------------------------------- one job

# A job is "suite|kind|label|command". Kind tap: the output is TAP and every test in it
# counts. Kind run: the job itself is one test, passed when it exits with 0.
run_job() {
  local suite kind label command
  IFS='|' read -r suite kind label command <<<"$1"
  local log="$logs/$suite.${label//[^A-Za-z0-9_.-]/_}.log"
  local start=$SECONDS status=0
  timeout -k 10 "$seconds_per_job" bash -c "$command" </dev/null >"$log" 2>&1 || status=$?
  local passed failed skipped
  if [ "$kind" = tap ]; then
    # Also failed: a crash, a plan that does not match, a program that tested nothing.
    read -r passed failed skipped < <(awk -v status="$status" '
      /^ok .*# *(SKIP|skip)/ { skipped++; next }
      /^ok /                 { passed++ }
      /^not ok /             { failed++ }
      /^1\.\.[0-9]+/         { plan = substr($1, 4) + 0; planned = 1 }
      END {
        total = passed + failed + skipped
        if (!planned || plan != total || total == 0 && status || status && !failed) failed++
        print passed + 0, failed + 0, skipped + 0
      }' "$log")
  else
    passed=$((status == 0)) failed=$((status != 0)) skipped=0
  fi
  echo "$passed $failed $skipped" >>"$logs/results"
  local line
  line=$(printf '%-10s %-44s %5d passed' "$suite" "$label" "$passed")
  [ "$skipped" = 0 ] || line="$line, $skipped skipped"
  if [ "$failed" != 0 ]; then
    line="$line, $failed FAILED"
    [ "$status" = 0 ] || line="$line (exit status $status)"
  fi
  printf '%s  %ds\n' "$line" $((SECONDS - start))
  if [ "$failed" != 0 ]; then
    {
      echo "---- $suite $label: $command"
      show_failures "$kind" "$log"
    } | tee -a "$logs/failures"
  fi
}

# Of a TAP log the failures with their comments and whatever is not TAP; else its end.
show_failures() {
  if [ "$1" = tap ]; then
    awk '/^ok / { show = 0; next } /^not ok / { show = 1 }
         /^1\.\./ { next }
         show || !/^#/ { print }' "$2" | head -n 300
  else
    tail -n 100 "$2"
  fi
}

if [ "${1:-}" = --job ]; then
  run_job "$2"
  exit 0
fi

# ---------------------------------------------------------------- the suites

# Specs that start programs of their own run once, as suites of their name.
own_suites="repl embed rocks"

specs() { # the busted specs under the given folders, without those of own suites
  local pattern
  pattern="^spec/($(echo "$own_suites" | tr ' ' '|'))/"
  find "$@" -name '*_spec.lua' 2>/dev/null | grep -Ev "$pattern" | sort
}

busted="busted --output=TAP --exclude-tags=slow"

# lua_jobs <suite> <interpreter> <environment> <spec>...
lua_jobs() {
  local suite=$1 interpreter=$2 environment=$3 spec
  shift 3
  # Where spec/op finds nyx_oracle.
  environment="$environment LUA_CPATH='$PWD/${interpreter%/bin/nyx}/lib/lua/5.4/?.so;;'"
  for spec in "$@"; do
    echo "$suite|tap|$spec|$environment $busted --lua=$PWD/$interpreter $spec"
  done
}

# c_jobs <suite> <preset> <environment> [pattern]
c_jobs() {
  local program
  for program in build/"$2"/spec/${4:-*}_test; do
    [ -x "$program" ] || continue
    echo "$1|tap|${program##*/}|$3 $program"
  done
}

# The path of kernels that nyx uses, by itself or as NYX_CPU says.
cpu_path() { build/release/bin/nyx --doctor 2>/dev/null | sed -n 's/^cpu  *\([a-z0-9]*\) kernels.*/\1/p'; }

stock="LUA_PATH='$PWD/lua/?.lua;$PWD/lua/?/init.lua;;'"
sanitized="ASAN_OPTIONS=detect_leaks=1 TSAN_OPTIONS=halt_on_error=1"

# C tests and every spec, in the build people use.
suite_c() { c_jobs c release ""; }
suite_lua() { lua_jobs lua build/release/bin/nyx "" $(specs spec rocks); }
# The same specs in LuaJIT.
suite_luajit() {
  local luajit
  luajit=$(command -v luajit) || return 0
  [ -f build/release/lib/lua/5.1/nyx/core.so ] || return 0
  local environment="$stock LUA_CPATH='$PWD/build/release/lib/lua/5.1/?.so;;'" spec
  for spec in $(specs spec); do
    echo "luajit|tap|$spec|$environment $busted --lua=$luajit $spec"
  done
}
# Kernels again on the other instruction sets that this machine has. The names beyond these
# are one of them with other products of narrow types, which low_precision_test runs itself.
# C tests that go through all paths by themselves have done so in suite c.
suite_cpu() {
  local path best themselves
  themselves=$(grep -lE '"(paths|elementwise_rows|elementwise_int)\.h"' spec/c/*_test.c |
    sed 's|.*/||; s|\.c$||' | paste -sd '|')
  best=$(cpu_path)
  case $best in
    avxvnni) best=avx2 ;;
    avx512* | amx) best=avx512 ;;
  esac
  for path in base avx2 avx512; do
    [ "$path" != "$best" ] && [ "$(NYX_CPU=$path cpu_path)" = "$path" ] || continue
    c_jobs "cpu-$path" release "NYX_CPU=$path" | grep -vE "\|($themselves)\|"
    lua_jobs "cpu-$path" build/release/bin/nyx "NYX_CPU=$path" \
      spec/op/op_spec.lua spec/lua/tensor_spec.lua
  done
}
# Memory errors, leaks and undefined behaviour.
suite_dev() {
  c_jobs dev dev "$sanitized"
  lua_jobs dev build/dev/bin/nyx "$sanitized" $(specs spec rocks)
}
# Data races: with the widest path alone, and less of what one thread does (spec/c/check.h).
suite_tsan() { c_jobs tsan tsan "$sanitized"; }
# The other compiler: whatever it warns of, and the quicker C tests. The rest by hand, with
# ctest --preset clang.
clang_tests="arrange base dtype elementwise elementwise_int32 gemv grad header norm"
suite_clang() {
  local test
  command -v clang >/dev/null || return 0
  for test in $clang_tests; do c_jobs clang clang "" "$test"; done
}
# Programs of their own.
suite_repl() { lua_jobs repl build/release/bin/nyx "" spec/repl/*_spec.lua; }
suite_embed() { lua_jobs embed build/release/bin/nyx "" spec/embed/*_spec.lua; }
suite_rocks() { lua_jobs rocks build/release/bin/nyx "" spec/rocks/*_spec.lua; }
# Random calls against PyTorch and NumPy, in a virtual environment of their own.
suite_peers() { echo "peers|tap|random calls|spec/peers/run.sh --nyx build/release/bin/nyx"; }
suite_examples() {
  local script
  for script in examples/*.lua; do
    echo "examples|run|$script|build/release/bin/nyx $script"
  done
}
# Kernels and ops on 64-bit ARM, through QEMU, which takes 20 minutes: by hand. What a
# program of its own would have to start again, with QEMU, is left out.
suite_aarch64() {
  local program
  for program in build/aarch64/spec/*_test; do
    [ -x "$program" ] || continue
    echo "aarch64|tap|${program##*/}|NYX_CPU=base build/aarch64-root/run $program"
  done
  echo "aarch64|tap|low_precision_test dotprod|NYX_CPU=dotprod build/aarch64-root/run build/aarch64/spec/low_precision_test"
  lua_jobs aarch64 build/aarch64-root/nyx "LUA_CPATH='$PWD/build/aarch64/lib/lua/5.4/?.so;;'" \
    spec/op/op_spec.lua spec/lua/tensor_spec.lua
}
# Formatting and lint, and what a newcomer types first.
suite_style() {
  echo "style|run|clang-format|find bindings core kernels examples rocks spec -name '*.[ch]' -print0 | xargs -0 clang-format --dry-run -Werror"
  echo "style|run|luacheck|luacheck --quiet ."
  echo "style|run|nothing left to do|! git grep -nwE 'TO''DO|FIX''ME|X''XX|HA''CK' -- ':!*.json'"
  echo "style|run|demo|./bootstrap.sh demo"
}

# The two whose one job takes minutes come first, so that none is left alone at the end.
all_suites="peers rocks c lua luajit cpu dev tsan clang repl embed examples"
presets_of() { # what a suite needs built
  case $1 in
    dev) echo dev ;;
    tsan) echo tsan ;;
    clang) ! command -v clang >/dev/null || echo clang ;;
    aarch64) echo aarch64 ;;
    style) ;;
    embed) echo release tsan ;;
    *) echo release ;;
  esac
}

# ---------------------------------------------------------------- all together

mkdir -p "$logs"
rm -f "$logs"/*.log "$logs"/results "$logs"/failures
touch "$logs/results" "$logs/failures"
suites=${*:-$all_suites}
start=$SECONDS

for suite in $suites; do
  declare -F "suite_$suite" >/dev/null || { echo "no suite '$suite'; suites: $all_suites aarch64 style"; exit 2; }
done

built=""
for suite in $suites; do
  for preset in $(presets_of "$suite"); do
    case " $built " in *" $preset "*) continue ;; esac
    built="$built $preset"
    echo "building $preset ..."
    {
      { [ "$preset" != aarch64 ] || spec/aarch64.sh; } &&
        { [ -f "build/$preset/build.ninja" ] || cmake --preset "$preset"; }
    } >"$logs/build.$preset.log" 2>&1 &&
      cmake --build --preset "$preset" -j "$jobs" >>"$logs/build.$preset.log" 2>&1
    if [ $? != 0 ]; then
      tail -n 60 "$logs/build.$preset.log"
      echo "---- building $preset failed" | tee -a "$logs/failures"
      echo "0 1 0" >>"$logs/results"
    fi
  done
done

for suite in $suites; do "suite_$suite"; done | tr '\n' '\0' |
  xargs -0 -P "$jobs" -n 1 "$0" --job

if [ -s "$logs/failures" ]; then
  echo
  echo "Failures again:"
  cat "$logs/failures"
fi
grep -hoE '^ok [0-9]+ .*# *(SKIP|skip).*' "$logs"/*.log 2>/dev/null |
  sed -E 's/^ok [0-9]+ .*# *(SKIP|skip) */skipped: /' | sort | uniq -c | sort -rn | head -n 20
echo "$((SECONDS - start)) s; logs in $logs/"
awk '{ p += $1; f += $2; s += $3 }
     END {
       printf "%d passed, %d failed%s\n", p, f, s ? ", " s " skipped" : ""
       exit f > 0 || p == 0
     }' "$logs/results"
