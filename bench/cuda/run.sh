#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Everything that needs a GPU, on a machine that has one and none of our libraries: checks and times, section by
# section. Before, where it was built: bench/cuda/pack.sh, which leaves build/device.tar.xz.
#   bench/cuda/run.sh SECTION...
#     limits    what the machine gives: bandwidth, launches, cuBLASLt         10 s
#     check     tests/cuda/*, the kernels alone                               60 s
#     parity    logits and greedy tokens beside transformers, tiny and real   90 s
#     crowd     a sequence alone and among 256                                60 s
#     e2e       tests/e2e/test_llm_gpu.py                                     90 s
#     sanitize  compute-sanitizer over tests/cuda/* at small shapes          240 s, beside the sections that follow:
#               these must be checks, no times
#     kernels   bench/cuda/*                                                  90 s
#     torch     bench/cuda/*_torch.py, the references                         60 s
#     step      whole steps and first tokens of four models                  150 s
#     timeline  a step at batch 1, kernel by kernel, by CUPTI                 30 s
#     serve     1,000 requests through HTTP and without, at several rates    330 s
#     start     from exec to the first token, weights in the page cache       90 s
#     soak      SOAK_SECONDS (480) at 90 % load with cancels                 520 s
# A section that the time left (SECONDS_MAX, 570) does not hold is left out and says so. stdout gets a short table of
# each section, $OUT/logs.tar.gz all they said. Exits 1 when one printed FAILED.
# Environment: DEVICE_BUILD (build/device, unpacked beside its archive), OUT, SECONDS_MAX, SOAK_SECONDS, SOAK_MODEL, MODELS ("name ..." of step and
# serve), DEVICE (cuda; cpu: to try the script where there is no GPU). Of sanitize: SANITIZE_TOOLS, SANITIZE_TESTS ("name ..." of tests/cuda),
# SANITIZE_SECONDS (240), SANITIZE_JOBS (8 at a time), SANITIZER (compute-sanitizer; another release's, which may know more barriers).
set -u

cd "$(dirname "$0")/../.." || exit
build=$PWD/${DEVICE_BUILD:-build/device}
OUT=${OUT:-$PWD/build/device-out}
DEVICE=${DEVICE:-cuda}
SECONDS_MAX=${SECONDS_MAX:-570}
SOAK_SECONDS=${SOAK_SECONDS:-480}
RATE_SECONDS=${RATE_SECONDS:-10}
work=/tmp/salver-device
out=$work/logs
port=18890
kernels=$build/plugins/llm/kernels_$DEVICE.so
lengths=bench/data/sharegpt_like_lengths.json
server=
mkdir -p "$OUT" "$out"
if [ -e "$build.tar.xz" ]; then
    rm -rf "$build"
    tar -C "$(dirname "$build")" -xJf "$build.tar.xz" 2>/dev/null ||
        python3 -m tarfile -e "$build.tar.xz" "$(dirname "$build")" || exit 2
fi

say() { printf '%s\n' "$*"; }
bad() { say "FAILED: $*"; }
left() { echo $((SECONDS_MAX - SECONDS)); }
# Runs a command within so many seconds and what is left.
within() {
    local most=$1 rest
    shift
    rest=$(left)
    [ "$rest" -gt 1 ] || return 124
    timeout -k 5 "$((most < rest ? most : rest))" "$@"
}

# The folder of NVIDIA's Python wheels.
wheels() { python3 -c 'import sysconfig; print(sysconfig.get_paths()["purelib"] + "/nvidia")'; }

# cuBLASLt: the system's, NVIDIA's installer's, a Python wheel's.
find_cublas() {
    local folder
    ldconfig -p | grep -q 'libcublasLt.so.13' && return
    for folder in /usr/local/cuda/lib64 $(wheels)/cu13/lib; do
        [ -e "$folder/libcublasLt.so.13" ] || continue
        export LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
        return
    done
    say "no libcublasLt.so.13 found"
}

tests() { find "$build/tests" -name 'cuda_*' -type f | sort; }

# ---- the machine ----

measure_limits() {
    [ -s "$out/limits.log" ] || within 60 "$build/bench/cuda/limits" >"$out/limits.log" 2>&1
    read_rate=$(sed -n 's/^limits: .* read \([0-9.]*\) TB.*/\1/p' "$out/limits.log")
    matmul_rate=$(awk '/^cuBLASLt 8192/ { for (i = 1; i < NF; i++) if ($(i + 1) == "F") print $i }' "$out/limits.log")
    : "${read_rate:=3.09}" "${matmul_rate:=780}"
}

limits() {
    [ "$DEVICE" = cuda ] && nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,temperature.gpu --format=csv,noheader
    cat "$out/limits.log"
}

# ---- checks ----

check() {
    local test name
    for test in $(tests); do
        name=$(basename "$test")
        within 120 "$test" >"$work/$name.log" 2>&1
        local rc=$?
        { echo "== $name: $rc"; cat "$work/$name.log"; } >>"$out/check.log"
        say "$name: $([ $rc = 0 ] && echo good || echo "FAILED ($rc)"); $(tail -n 1 "$work/$name.log")"
        [ $rc = 0 ] || grep -iE 'fail|error|nan' "$work/$name.log" | head -n 12
    done
}

# name folder: a config folder of a real shape with a tokenizer.
make_shape() {
    [ -e "$work/$1/config.json" ] || python3 bench/make_shape.py "$1" "$work/$1" >>"$out/shapes.log" 2>&1 ||
        say "make_shape $1: $(tail -n 1 "$out/shapes.log")"
}

# The same with weights in it.
make_weights() {
    make_shape "$1"
    [ -e "$work/$1/model.safetensors" ] || within 120 python3 bench/make_weights.py "$work/$1" >>"$out/shapes.log" 2>&1 ||
        say "make_weights $1: $(tail -n 1 "$out/shapes.log")"
}

parity() {
    local models=() name
    for name in tests/data/llm/tiny-*/; do models+=("${name%/}"); done
    for name in Llama-3.2-1B Qwen3-0.6B Qwen2.5-0.5B; do
        make_weights $name &
        models+=("$work/$name")
    done
    wait
    within 240 python3 tests/kernels/judge.py "$build/tests/logits" "$kernels" "${models[@]}" >"$out/parity.log" 2>&1 ||
        bad parity
    grep -E 'error|judge|Error' "$out/parity.log" | tail -n 20
}

crowd() {
    local name near
    for name in tests/data/llm/tiny-llama tests/data/llm/tiny-qwen3 "$work/Qwen3-0.6B" "$work/Llama-3.2-1B"; do
        near=0.4 # the tiny ones' logits are off by 3 % in torch's bf16 too, about 0.1 each
        case $name in "$work"/*) near=0.2 && make_weights "$(basename "$name")" ;; esac
        echo "== $name" >>"$out/crowd.log"
        within 120 "$build/tests/crowd" "$kernels" "$name" 256 48 $near >"$work/crowd.log" 2>&1 || bad "crowd $name"
        cat "$work/crowd.log" >>"$out/crowd.log"
        say "$(basename "$name"): $(grep '^crowd' "$work/crowd.log" | sed 's/^crowd: //' | paste -sd ';')"
    done
}

e2e() {
    SALVER_BUILD=$build within 240 python3 -m pytest -x -c tests/pytest.ini tests/e2e/test_llm_gpu.py >"$out/e2e.log" 2>&1 || bad e2e
    tail -n 4 "$out/e2e.log"
}

# racecheck takes the longest. It does not look into the kernels that make a test's inputs and references; cuBLASLt's it
# must, or it fails itself (2025.3: "failed to handle a hardware exception"). cuda_program runs what others test.
not_raced() { # test: a regular expression of kernels' names
    case $1 in
    cuda_attend) echo 'append_kernel|fill_q_kernel' ;;
    cuda_gemm) echo 'exact_|produce|fill' ;;
    esac
}

sanitize_one() { # tool test
    local begun less log=$work/sanitize-$1-$2.log size=small
    [ "$1 $2" != 'racecheck cuda_mega' ] || size=race
    begun=$(date +%s)
    [ $((sanitize_end - begun)) -gt 5 ] || return
    less=$([ "$1" != racecheck ] || not_raced "$2")
    timeout -k 5 $((sanitize_end - begun)) "$SANITIZER" --tool "$1" --error-exitcode 9 --print-limit 100 \
        ${less:+--kernel-name-exclude regex="$less"} "$build/tests/$2" $size >"$log" 2>&1
    echo "$? $(($(date +%s) - begun))" >"${log%.log}.end"
}
export -f sanitize_one not_raced
export work build SANITIZER=${SANITIZER:-compute-sanitizer}

# The slowest tool first.
sanitize_jobs() {
    local tool test
    for tool in ${SANITIZE_TOOLS:-racecheck memcheck initcheck synccheck}; do
        for test in ${SANITIZE_TESTS:-$(tests | sed 's/.*cuda_//')}; do
            [ "$tool $test" = 'racecheck program' ] || echo "$tool cuda_$test"
        done
    done
}

sanitize() {
    local tool test rc seconds log most
    most=$(left)
    [ "$most" -lt "${SANITIZE_SECONDS:=240}" ] || most=$SANITIZE_SECONDS
    export sanitize_end=$(($(date +%s) + most))
    rm -f "$work"/sanitize-*
    sanitize_jobs | xargs -P "${SANITIZE_JOBS:-8}" -L 1 bash -c 'sanitize_one "$@"' -
    sanitize_jobs | while read -r tool test; do
        log=$work/sanitize-$tool-$test.log
        read -r rc seconds 2>/dev/null <"${log%.log}.end" || rc=
        case $rc in
        '') say "$tool $test: FAILED, no time was left to begin" ;;
        0) say "$tool $test: $(grep -q SUMMARY "$log" || echo FAILED, not looked at,) $seconds s, $(grep SUMMARY "$log" | tail -n 1)" ;;
        124 | 137) say "$tool $test: FAILED, no end in $seconds s" ;;
        *) say "$tool $test: FAILED ($rc), $seconds s, $(grep SUMMARY "$log" | tail -n 1)" ;;
        esac
        grep -hE 'Detected overflow|Internal Sanitizer Error' "$log" 2>/dev/null | sort -u | head -n 3
    done
    for log in "$work"/sanitize-*.log; do echo "== $log"; head -c 20000 "$log"; done >"$out/sanitize.log"
}

# ---- times ----

kernels() {
    local program
    for program in "$build"/bench/cuda/*; do
        case $program in */limits) continue ;; esac
        within 120 "$program" 2>&1 || bad "bench $(basename "$program")"
    done
}

torch() {
    local script
    for script in bench/cuda/*_torch.py; do
        within 120 python3 "$script" 2>&1 || say "$script: failed"
    done
}

in_process() { # name, seconds, more options
    local name=$1 most=$2
    shift 2
    within "$most" "$build/bench/llm_step" -k "$kernels" -m "$work/$name" -D \
        -l "$name" -R "$read_rate" -F "$matmul_rate" "$@" 2>>"$out/llm_step.log"
}

step() {
    local name
    for name in ${MODELS:-Llama-3.2-1B Qwen3-0.6B Llama-3.1-8B Qwen2.5-7B}; do
        make_shape "$name"
        in_process "$name" 100 -b 1,8,64,256 -p 128,1024,8192 || bad "step $name"
    done
}

timeline() {
    local name cupti
    cupti=$(dirname "$(find /usr/local/cuda/ "$(wheels)" -name libcupti.so.13 2>/dev/null | head -n 1)")
    for name in ${MODELS:-Llama-3.2-1B Llama-3.1-8B}; do
        make_shape "$name"
        LD_LIBRARY_PATH=$cupti${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} CUDA_INJECTION64_PATH=$build/bench/timeline.so \
            TIMELINE_OUT=$out/timeline-$name.log in_process "$name" 60 -b 1 -n 48 || bad "timeline $name"
        c++filt <"$out/timeline-$name.log" | sed 's/(anonymous namespace):://; s/(.*//' | head -n 24
    done
}

# Starts a server of $work/NAME; more words are `key: value` lines of its config. Sets server.
start_server() {
    local name=$1 line
    shift
    cat >"$work/app.yaml" <<END
http_options: {host: 127.0.0.1, port: $port}
applications:
  - name: llm
    route_prefix: /
    plugin: llm
    deployments:
      - name: model
        max_ongoing_requests: 2048
        config:
          model: $work/$name
          device: $DEVICE
$(for line in "$@"; do echo "          $line"; done)
END
    rm -rf "$work/state"
    "$build/salver" serve "$work/app.yaml" --state "$work/state" \
        --plugins "$build/plugins" >>"$out/server.log" 2>&1 &
    server=$!
    trap 'kill $server 2>/dev/null' EXIT
    echo '[[3, 2]]' >"$work/one.json"
    while kill -0 $server 2>/dev/null && [ "$(left)" -gt 1 ]; do
        within 60 "$build/bench/llm_serve" -p $port -w "$work/one.json" -v 5-100 >/dev/null 2>&1 && return
        sleep 0.1
    done
    tail -n 5 "$out/server.log"
    return 1
}

stop_server() {
    kill $server 2>/dev/null
    wait $server
    trap - EXIT
}

vocab_of() { sed -n 's/.*"vocab_size": *\([0-9]*\).*/\1/p' "$work/$1/config.json"; }

load() { # model, label, seconds, more options
    local name=$1 label=$2 most=$3
    shift 3
    within "$most" "$build/bench/llm_serve" -p $port -w $lengths -v "10-$(vocab_of "$name")" \
        -l "$label" -o "$out/serve.json" "$@" 2>>"$out/llm_serve.log" | sed -n '2,$p'
    return "${PIPESTATUS[0]}"
}

# requests a second of the last line of serve.json
last_rate() { tail -n 1 "$out/serve.json" | sed 's/.*"request_throughput":\([0-9.]*\).*/\1/'; }

serve() {
    local name whole engine share rate
    say "                               req/s out tok/s all tok/s    TTFT p50/p99  TPOT p50/p99   ITL p50/p99 tok/ev failed"
    for name in ${MODELS:-Qwen3-0.6B Llama-3.2-1B Llama-3.1-8B}; do
        make_shape "$name"
        start_server "$name" "load_format: dummy" || { bad "serve $name"; stop_server; continue; }
        load "$name" warm 60 -n 64 >/dev/null
        sleep 3 # programs are recorded when there is nothing to do
        load "$name" "$name, http" 90 || bad "serve $name"
        whole=$(last_rate)
        for share in 0.25 0.5 0.9; do
            rate=$(awk "BEGIN { printf \"%.1f\", $whole * $share }")
            load "$name" "$name, http, $rate/s" 60 -r "$rate" -n "$(awk "BEGIN { print int($rate * $RATE_SECONDS) + 1 }")" ||
                bad "serve $name at $rate/s"
        done
        stop_server
        in_process "$name" 90 -w $lengths -o "$out/serve.json" | sed -n '2,$p'
        engine=$(last_rate)
        say "$name: http has $(awk "BEGIN { printf \"%.1f\", 100 * $whole / $engine }") % of the engine's requests/s"
    done
}

start() {
    local name
    for name in Qwen3-0.6B Llama-3.1-8B; do
        make_weights "$name"
        cat "$work/$name"/*.safetensors >/dev/null # into the page cache
        within 100 python3 bench/cuda/first_token.py "$build" "$work/$name" "$out/first_token-$name.log" || bad "start $name"
    done
}

soak() {
    local name=${SOAK_MODEL:-Llama-3.2-1B} rate n seconds
    seconds=$(($(left) - 25 < SOAK_SECONDS ? $(left) - 25 : SOAK_SECONDS))
    make_shape "$name"
    start_server "$name" "load_format: dummy" || { bad soak; stop_server; return; }
    load "$name" warm 60 -n 64 >/dev/null
    sleep 3
    load "$name" "$name, all at once" 60 || bad soak
    rate=$(awk "BEGIN { printf \"%.1f\", 0.9 * $(last_rate) }")
    seconds=$((seconds < $(left) - 15 ? seconds : $(left) - 15))
    n=$(awk "BEGIN { print int($rate * $seconds) }")
    python3 bench/cuda/watch.py $server 5 >"$out/watch.log" 2>&1 &
    local watch=$!
    load "$name" "$name, $rate/s, cancels" $((seconds + 40)) -r "$rate" -n "$n" -x 0.1 -S 30 >"$out/soak.log" || bad soak
    kill $watch
    wait $watch 2>/dev/null
    stop_server
    cat "$out/soak.log"
    head -n 1 "$out/watch.log"
    awk 'NR > 1 && (NR - 2) % 12 == 0' "$out/watch.log"
    tail -n 1 "$out/watch.log"
}

# ---- main ----

# A section's table goes to stdout and, to look for FAILED, into a file.
finish() { # section, begin
    grep -q FAILED "$out/$1.txt" && failed="$failed $1"
    say "-- $1 took $((SECONDS - $2)) s"
    tar -C "$work" -czf "$OUT/logs.tar.gz" logs
}

find_cublas
measure_limits
failed=
sanitizing=
for section in "$@"; do
    case $section in
    limits | check | parity | crowd | e2e | sanitize | kernels | torch | step | timeline | serve | start | soak) ;;
    *) say "no section '$section'"; exit 2 ;;
    esac
    if [ "$(left)" -lt 20 ]; then
        say "== $section: left out, $(left) s are left"
        continue
    fi
    begun=$SECONDS
    if [ "$section" = sanitize ]; then
        sanitize >"$out/sanitize.txt" 2>&1 &
        sanitizing=$!
        sanitize_begun=$begun
        continue
    fi
    say "== $section"
    $section 2>&1 | tee "$out/$section.txt"
    finish "$section" $begun
done
if [ -n "$sanitizing" ]; then
    wait $sanitizing
    say "== sanitize"
    cat "$out/sanitize.txt"
    finish sanitize "$sanitize_begun"
fi
if [ -n "$failed" ]; then say "FAILED:$failed, $SECONDS s"; else say "all good, $SECONDS s"; fi
[ -z "$failed" ]
