# shellcheck shell=sh
# Runs the steps of the set-up: shows each with its time, keeps its output in the log, skips what is up to date.

log=build/setup.log

# Milliseconds since 1970.
now() {
    date +%s%3N
}

# seconds_since MILLISECONDS: as 12.3
seconds_since() {
    elapsed=$(($(now) - $1))
    printf '%d.%d' "$((elapsed / 1000))" "$((elapsed % 1000 / 100))"
}

# always TITLE SCRIPT: runs a script that finds out by itself what is to be done. Its descriptor 3 is for the user's eyes.
always() {
    printf '==> %s … ' "$1"
    step_started=$(now)
    log_size=$(wc -c <"$log")
    if sh -eu "$2" 3>&1 >>"$log" 2>&1 </dev/null 9>&-; then
        printf '%s s\n' "$(seconds_since "$step_started")"
    else
        printf 'failed after %s s\n' "$(seconds_since "$step_started")"
        tail -c +"$((log_size + 1))" "$log" | tail -n 25 | sed 's/^/    /' >&2
        printf '%s: the step "%s" failed; all of its output is in %s\n' "$0" "$1" "$log" >&2
        exit 1
    fi
}

# step TITLE OUTPUT SCRIPT [INPUT…]: runs a script unless it has made OUTPUT out of the same script and inputs before.
step() {
    step_title=$1 step_output=$2 step_script=$3
    shift 2
    stamp=build/stamps/$(basename "$step_script" .sh)
    digest=$(cat -- /etc/os-release "$@" | sha256sum)
    if [ -e "$step_output" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ]; then
        printf '==> %s … up to date\n' "$step_title"
        return
    fi
    always "$step_title" "$step_script"
    printf '%s\n' "$digest" >"$stamp"
}
