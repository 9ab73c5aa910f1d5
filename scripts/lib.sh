# Sourced by the scripts beside it: where things are, processes that are always cleaned up, cores, ports,
# Debian's packages, and enough RESP to ask a server one question.
# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is used by the scripts
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
case $CARGO_TARGET_DIR in /*) ;; *) CARGO_TARGET_DIR=$PWD/$CARGO_TARGET_DIR ;; esac
target=$CARGO_TARGET_DIR
cd "$root"

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
    bold='' dim='' red='' green='' plain=''
fi

note() { printf '%s\n' "$*"; }
title() { printf '%s%s%s\n' "$bold" "$*" "$plain"; }
die() {
    printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
    exit 1
}

# 1000000 as 1,000,000.
grouped() { sed -E ':more; s/^([0-9]+)([0-9]{3})/\1,\2/; t more' <<<"$1"; }

# Prints the comment at the top of the calling script, which is its help.
usage() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

# A whole number from 1 to $2; $1 is the option's name, $3 its value.
want_count() {
    if [[ ! $3 =~ ^[1-9][0-9]{0,8}$ ]] || (($3 > $2)); then
        die "$1 takes a whole number from 1 to $2, not '$3'"
    fi
}

# --- Processes ------------------------------------------------------------------------------------
# Every process is started in a group of its own, so that Ctrl-C reaches the script alone, and the script
# then ends each group that it started, by number, whatever the reason for its own end.

groups=()
scratch=''
started_pid=''

# start LOG COMMAND..: in the background, output to LOG, or to ours where LOG is '-'; its number in $started_pid.
start() {
    local log=$1
    shift
    set -m
    if [[ $log == - ]]; then
        "$@" </dev/null &
    else
        # Emptied here, not by the child: nobody may find lines of an earlier run in it.
        : >"$log"
        "$@" </dev/null >>"$log" 2>&1 &
    fi
    set +m
    started_pid=$!
    groups+=("$started_pid")
}

# run LOG COMMAND..: waits for it, and answers with its status.
run() {
    local status=0
    start "$@"
    wait "$started_pid" 2>/dev/null || status=$?
    forget "$started_pid"
    return "$status"
}

forget() {
    local kept=() pid
    for pid in "${groups[@]}"; do
        if [[ $pid != "$1" ]]; then kept+=("$pid"); fi
    done
    groups=("${kept[@]}")
}

# stop PID: asks it to end, waits up to $patience seconds, then insists.
patience=5
stop() {
    local pid=$1 tries
    kill -TERM -- "-$pid" 2>/dev/null || true
    for ((tries = 0; tries < patience * 20; tries++)); do
        kill -0 -- "-$pid" 2>/dev/null || break
        sleep 0.05
    done
    kill -KILL -- "-$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    forget "$pid"
}

clean_up() {
    local status=$? at
    trap - EXIT INT TERM HUP
    # The youngest first: clients before the servers that they talk to.
    for ((at = ${#groups[@]} - 1; at >= 0; at--)); do stop "${groups[at]}"; done
    if [[ -n $scratch ]]; then rm -rf "$scratch"; fi
    exit "$status"
}
trap clean_up EXIT
trap 'printf "\nstopped\n" >&2; exit 130' INT
trap 'exit 143' TERM HUP

# A directory that goes when the script ends; made at the first call, its path in $scratch.
make_scratch() {
    if [[ -z $scratch ]]; then scratch=$(mktemp -d "${TMPDIR:-/tmp}/coreside.XXXXXXXX"); fi
}

# await_line PID LOG SECONDS PATTERN: waits for a line of the log that matches; the match is in $line.
await_line() {
    local pid=$1 log=$2 limit=$3 pattern=$4 until=$((SECONDS + $3))
    while ! line=$(grep -m 1 -E -- "$pattern" "$log" 2>/dev/null); do
        if ! kill -0 "$pid" 2>/dev/null; then
            tail -n 20 "$log" >&2
            die "the process ended before it said '$pattern'; its output is in $log"
        fi
        if ((SECONDS > until)); then
            tail -n 20 "$log" >&2
            die "no line '$pattern' after $limit s; the output is in $log"
        fi
        sleep 0.05
    done
}

# Optimised programs are built of the same packages with the same features by all scripts, so that they share what is
# built.
optimised=(cargo build --locked --release -p coreside -p coreside-bench --features coreside/cli)

# build TARGET..: optimised programs, such as `--example kv`.
build() {
    local log=$target/logs/build.log
    local command=("${optimised[@]}" "$@")
    mkdir -p "$target/logs"
    note "${dim}building: ${command[*]}$plain"
    if [[ -t 2 ]]; then log=-; fi
    if ! run "$log" "${command[@]}"; then
        if [[ $log != - ]]; then tail -n 40 "$log" >&2; fi
        die "the build failed"
    fi
}

# A server of ours: start_node LOG COMMAND.. --listen 127.0.0.1:0; its port in $port, its number in $started_pid.
start_node() {
    local log=$1
    start "$@"
    await_line "$started_pid" "$log" 60 '^listening on 127\.0\.0\.1:[0-9]+'
    port=${line##*:}
    port=${port%%[^0-9]*}
}

# --- Steps ----------------------------------------------------------------------------------------
# A gate is a row of steps. Each is named, timed and logged; the first that fails ends the script. The last line
# counts the tests that ran, as their runners reported them.

passed=0
steps_began=$SECONDS
# What hangs is ended; the slowest step takes a few minutes.
step_seconds_max=1200

# step NAME TESTS-AT-LEAST COMMAND..: runs one; a step that should run tests and ran none has failed.
step() {
    local name=$1 least=$2 log=$target/logs/$1.log began=$SECONDS status=0 ok failed
    shift 2
    mkdir -p "$target/logs"
    printf '%s%-12s%s ' "$bold" "$name" "$plain"
    patience=20
    run "$log" timeout --kill-after=30 "$step_seconds_max" \
        env TERM=dumb CARGO_TERM_COLOR=never CARGO_TERM_PROGRESS_WHEN=never "$@" || status=$?
    patience=5
    read -r ok failed < <(count_tests "$log")
    passed=$((passed + ok))
    if ((status == 0 && failed == 0 && ok >= least)); then
        printf '%sok%s %5d s' "$green" "$plain" $((SECONDS - began))
        if ((ok > 0)); then printf '  %d passed' "$ok"; fi
        printf '\n'
        return
    fi
    printf '%sFAILED%s after %d s\n\n' "$red" "$plain" $((SECONDS - began))
    if ((status == 124)); then note "ended after $step_seconds_max s"; fi
    if ((status == 0 && failed == 0)); then note "expected at least $least test(s), found $ok"; fi
    tail -n 40 "$log"
    printf '\nThe whole output: %s\nThe command:      %s\n' "$log" "${*@Q}"
    if ((failed == 0)); then failed=1; fi
    printf '\n%d passed, %d failed\n' "$passed" "$failed"
    exit 1
}

skip() { printf '%s%-12s%s skipped: %s\n' "$bold" "$1" "$plain" "$2"; }

# Ends a gate whose steps all passed.
summary() {
    printf '\nAll steps passed in %d s.\n%d passed, 0 failed\n' $((SECONDS - steps_began)) "$passed"
}

# Passed and failed tests in a log: from cargo test, from nextest, and from the scripts' own closing lines.
count_tests() {
    awk '
        function number_before(word) {
            return match($0, "[0-9]+ " word) ? substr($0, RSTART) + 0 : 0
        }
        /^test result: / || /^ *Summary \[/ || /^[0-9]+ passed, [0-9]+ failed$/ {
            passed += number_before("passed")
            failed += number_before("failed") + number_before("timed out")
        }
        END { print passed + 0, failed + 0 }' "$1"
}

# --- Cores ----------------------------------------------------------------------------------------

# The cores that this process may run on, in order, into $cores.
find_cores() {
    local list part
    cores=()
    list=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)
    for part in ${list//,/ }; do
        if [[ $part == *-* ]]; then
            mapfile -t -O "${#cores[@]}" cores < <(seq "${part%-*}" "${part#*-}")
        else
            cores+=("$part")
        fi
    done
    first_core=${cores[0]}
    last_core=${cores[-1]}
}

# The machine in one line, for reports.
machine() {
    local model
    model=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
    printf '%s, %s cores, Linux %s' "${model:-$(uname -m)}" "$(nproc)" "$(uname -r)"
}

# How much of its processors the machine was using in the last second without us, in percent.
busy_percent() {
    local before after
    before=$(head -n 1 /proc/stat)
    sleep 1
    after=$(head -n 1 /proc/stat)
    printf '%s\n%s\n' "$before" "$after" | awk '
        { all = 0; for (i = 2; i <= NF; i++) all += $i; idle = $5 + $6 }
        NR == 1 { all_before = all; idle_before = idle }
        NR == 2 { span = all - all_before; printf "%.0f", span ? 100 * (1 - (idle - idle_before) / span) : 0 }'
}

commit() {
    local id
    id=$(git rev-parse --short HEAD 2>/dev/null) || { printf 'no commit' && return; }
    if [[ -n $(git status --porcelain --untracked-files=no 2>/dev/null) ]]; then id="$id, changed"; fi
    printf '%s' "$id"
}

# --- Debian's packages ----------------------------------------------------------------------------

# need COMMAND PACKAGE: installs the package where the command is missing.
need() {
    if command -v "$1" >/dev/null; then return; fi
    install_package "$2"
    command -v "$1" >/dev/null || die "package $2 brought no '$1'"
}

# install_package NAME: by apt-get where we may; where we may not, says what to install.
install_package() {
    local log=$target/logs/install-$1.log
    local install=(apt-get install -y --no-install-recommends "$1")
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        die "$1 is missing: install it (Debian and Ubuntu: apt-get install $1)"
    fi
    mkdir -p "$target/logs"
    note "installing $1 (apt-get)"
    export DEBIAN_FRONTEND=noninteractive
    if run "$log" "${install[@]}"; then return; fi
    if run "$log" apt-get update && run "$log" "${install[@]}"; then return; fi
    tail -n 20 "$log" >&2
    die "apt-get could not install $1; its output is in $log"
}

# redis-cli, redis-benchmark and redis-server, its path into $redis_server. Debian's redis-tools already holds the
# server's program, under the name of the tool that checks its files; package redis-server would add a link to it
# and a service that starts at once and stays. The link is made here instead, and nothing keeps running.
need_redis() {
    local checker
    need redis-cli redis-tools
    need redis-benchmark redis-tools
    if ! redis_server=$(command -v redis-server); then
        checker=$(command -v redis-check-rdb) || die "redis-server is missing: install it"
        mkdir -p "$target/tools"
        redis_server=$target/tools/redis-server
        ln -sf "$checker" "$redis_server"
        "$redis_server" --version >/dev/null 2>&1 || die "redis-server is missing: install it"
    fi
}

# start_redis LOG [COMMAND-PREFIX..]: a redis-server without files on a free port, into $port and $started_pid.
start_redis() {
    local log=$1 tries deadline
    shift
    make_scratch
    for ((tries = 0; tries < 20; tries++)); do
        port=$((20000 + RANDOM % 12000))
        if answers "$port"; then continue; fi
        start "$log" "$@" "$redis_server" --bind 127.0.0.1 --port "$port" --save '' --appendonly no --dir "$scratch"
        deadline=$((SECONDS + 10))
        while kill -0 "$started_pid" 2>/dev/null && ((SECONDS < deadline)); do
            if grep -q 'Ready to accept connections' "$log"; then return; fi
            sleep 0.05
        done
        stop "$started_pid"
    done
    tail -n 20 "$log" >&2
    die "redis-server did not start; its output is in $log"
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# --- RESP -----------------------------------------------------------------------------------------

# resp PORT WORD..: sends one command and prints the reply, one line per element; fails on an error reply.
resp() {
    local port=$1 word status=0 LC_ALL=C
    shift
    exec {resp_fd}<>"/dev/tcp/127.0.0.1/$port" || return 1
    {
        printf '*%d\r\n' "$#"
        for word in "$@"; do printf '$%d\r\n%s\r\n' "${#word}" "$word"; done
    } >&"$resp_fd"
    resp_value || status=$?
    exec {resp_fd}>&-
    return "$status"
}

resp_value() {
    local head body count
    IFS= read -r -t 60 -u "$resp_fd" head || return 1
    head=${head%$'\r'}
    case $head in
    -*) printf '%s\n' "${head:1}" && return 1 ;;
    '$-1' | '*-1' | _) printf '(none)\n' ;;
    '$'*)
        IFS= read -r -N "$((${head:1} + 2))" -t 60 -u "$resp_fd" body || return 1
        printf '%s\n' "${body%$'\r\n'}"
        ;;
    '*'* | '~'* | '>'*)
        for ((count = ${head:1}; count > 0; count--)); do resp_value || return 1; done
        ;;
    *) printf '%s\n' "${head:1}" ;;
    esac
}
