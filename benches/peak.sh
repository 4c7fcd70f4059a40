# shellcheck shell=bash
# For the scripts here: `peak COMMAND` runs it with its output in $place/log and prints the highest VmHWM that /proc showed,
# in MiB, and its seconds.
peak() {
  local start=$SECONDS high=0 line
  "$@" >"$place/log" 2>&1 &
  local process=$!
  while line=$(grep -s VmHWM "/proc/$process/status"); do
    high=$(tr -dc 0-9 <<<"$line")
    sleep 0.05
  done
  wait "$process" || { cat "$place/log" >&2; return 1; }
  echo "$((high / 1024)) $((SECONDS - start))"
}
