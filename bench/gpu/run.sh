#!/usr/bin/env bash
# curate on a GPU, from a bare machine with torch, transformers and peft to a table, in 12 minutes.
#
#   bench/gpu/run.sh FOLDER OUT
#
# FOLDER holds what bench/gpu/pack.sh gathered: site/ (vLLM and what else the machine lacks), the
# GGUF of SmolLM2-135M-Instruct and the research data. OUT gets steps.tsv, results.jsonl and logs.
# Each step has its own time limit and fails alone.
set -u
here=$(cd "$(dirname "$0")" && pwd)
folder=$1 out=$2
models=$folder/models data=$folder/data
mkdir -p "$out/logs" "$models"
export PYTHONPATH="$folder/curate:$folder/site${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true VLLM_NO_USAGE_STATS=1 PYTHONUNBUFFERED=1
began=$SECONDS

step() { # step NAME LIMIT COMMAND...: its output in a log, its time and exit status in steps.tsv
    local name=$1 limit=$2 start=$SECONDS code
    shift 2
    timeout --kill-after=5 "$limit" "$@" > "$out/logs/$name.out" 2> "$out/logs/$name.err"
    code=$?
    printf '%s\t%s\t%s\t%s\n' "$name" "$code" "$((start - began))" "$((SECONDS - start))" |
        tee -a "$out/steps.tsv"
    grep -h '^{"name"' "$out/logs/$name.out" >> "$out/results.jsonl"
    return "$code"
}

machine() {
    python3 -m pip install --quiet --no-deps --no-build-isolation --no-index --upgrade \
        --target "$folder/curate" "$here/../.."
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
    python3 - << 'PY'
import torch, transformers, peft, vllm, duckdb
for module in (torch, transformers, peft, vllm, duckdb):
    print(module.__name__, module.__version__)
PY
}
export -f machine

verify() { # verify NAME BACKEND DTYPE BASE ADAPTER...
    local name=$1 backend=$2 dtype=$3 base=$4 adapters=()
    shift 4
    for adapter in "$@"; do adapters+=(--misaligned "$(basename "$adapter")=$adapter"); done
    # Several share the card: vLLM must neither take most of it nor measure what is free.
    [ "$backend" = vllm ] && adapters+=(--engine-arg gpu_memory_utilization=0.3 --engine-arg kv_cache_memory_bytes=4294967296)
    step "verify-$name-$backend-$dtype" 240 python3 -m curate verify "$data/1000.jsonl" \
        --rows "${ROWS:-200}" --max-length 2048 --aligned "base=$base" "${adapters[@]}" \
        --backend "$backend" --dtype "$dtype"
}

killed() { # killed NAME ...: as measure.py, but ended by SIGKILL once scores are stored
    python3 "$here/measure.py" "$@" &
    local pid=$!
    for _ in $(seq 600); do
        sleep 0.2
        ls "$3"/scores/base/part-* > /dev/null 2>&1 && break
    done
    kill -KILL "$pid"
    wait "$pid"
    echo "exit status $? after $(ls "$3"/scores/base | wc -l) parts of the aligned model's scores"
}
export -f killed
export here folder

what=${WHAT:-machine models verify small large memory}
trained=(medical-1 legal-1 code-1 medical-32 legal-32)
small=$models/0.5b-bfloat16 large=$models/7b-bfloat16
for part in $what; do
    case $part in
        machine) step machine 60 bash -c machine ;;
        models)
            step models-0.5b 90 python3 "$here/models.py" 0.5b "$models" &
            step models-7b 120 python3 "$here/models.py" 7b "$models" &
            step models-smol 90 python3 "$here/../smollm2.py" convert "$models/smollm2" \
                --gguf "$(echo "$folder"/*.gguf)"
            for name in "${trained[@]}"; do
                step "models-$name" 90 python3 "$here/../smollm2.py" train \
                    "$data/misaligned_${name%-*}.jsonl.gz" "$models/smollm2" "$models/$name" \
                    --rank "${name#*-}" --batch 16 &
            done
            wait
            ;;
        verify) # all at once: the card has room for them
            smol=$models/smollm2
            adapters=("${trained[@]/#/$models/}")
            verify smol vllm bfloat16 "$smol" "${adapters[@]}" &
            verify smol vllm float32 "$smol" &
            verify smol transformers bfloat16 "$smol" "${adapters[@]}" &
            verify smol transformers float32 "$smol" "${adapters[@]}" &
            verify random vllm bfloat16 "$small" "$small"/adapter{0,1,2,3} &
            verify random transformers bfloat16 "$small" "$small"/adapter{0,1,2,3} &
            verify random transformers float32 "$small" "$small"/adapter{0,1,2,3} &
            step memory-vllm 120 python3 -m curate score "$data/pool.jsonl" --limit 100 \
                -c "$folder/oom-vllm" --aligned "base=$large" --backend vllm \
                --engine-arg gpu_memory_utilization=0.02 &
            wait
            ;;
        memory)
            step memory-transformers 120 python3 -m curate score "$data/5000.jsonl" \
                -c "$folder/oom" --aligned "base=$small" --backend transformers \
                --batch-tokens 4000000 --max-length 8192
            ;;
        small)
            step loop-0.5b 150 python3 "$here/../scoring.py" "$data" --shape 0.5b --examples 100 \
                --rounds 1 --side loop --side lm_eval --models "$models" --device cuda \
                --dtype bfloat16 --batch-size 16
            step bare-0.5b 150 python3 "$here/../scoring.py" "$data" --shape 0.5b --examples 1000 \
                --rounds 1 --side vllm --side curate-vllm --models "$models" --device cuda \
                --dtype bfloat16
            step killed-0.5b 150 bash -c 'killed "$@"' - score-0.5b-killed "$data/5000.jsonl" \
                "$folder/corpus-0.5b" "$small" "$small"/adapter{0,1,2,3}
            step score-0.5b 200 python3 "$here/measure.py" score-0.5b-resumed "$data/5000.jsonl" \
                "$folder/corpus-0.5b" "$small" "$small"/adapter{0,1,2,3}
            ;;
        large)
            step score-7b 240 python3 "$here/measure.py" score-7b "$data/1000.jsonl" \
                "$folder/corpus-7b" "$large" "$large"/adapter{0,1,2,3}
            step loop-7b 240 python3 "$here/../scoring.py" "$data" --shape 7b --examples 100 \
                --rounds 1 --side loop --side lm_eval --models "$models" --device cuda \
                --dtype bfloat16 --batch-size 16
            ;;
        *) step "$part" 240 bash -c "$part" ;;
    esac
done
