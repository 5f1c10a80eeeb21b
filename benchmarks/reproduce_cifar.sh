#!/usr/bin/env bash
# The rows of GCL's CIFAR tables and the best rows of the class-balanced paper, at imbalance 100 and
# 50: ResNet-32, 200 (+30) epochs, bfloat16, three seeds side by side. One table for each data set
# and imbalance, with reported numbers beside measured ones.
#
#   DATA_DIR=~/tensorflow_datasets OUT=runs/cifar benchmarks/reproduce_cifar.sh
#
# What follows the command is handed to every sweep, such as --set=model.fused=true for kernels that
# are faster on an NVIDIA GPU. SWEEP=gcl_table leaves out the rows of the class-balanced paper.
# Stops by itself after MINUTES and goes on when it is started again; what has finished is skipped.
# QUICK=1 goes through all of it with a few steps of each run, on any machine.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python}
DATA_DIR=${DATA_DIR:-$HOME/tensorflow_datasets}
OUT=${OUT:-runs/reproduce_cifar}
MINUTES=${MINUTES:-25}
DATA_SETS=${DATA_SETS:-cifar10 cifar100}
IMBALANCES=${IMBALANCES:-100 50}
SWEEP=${SWEEP:-both_tables}
settings=(--seeds="${SEEDS:-3}" --set=data.data_dir="$DATA_DIR" --set=train.tensorboard=false
    --set=model.dtype="${DTYPE:-bfloat16}")
if [ -n "${QUICK:-}" ]; then
    settings+=(--set=train.epochs=1 --set=retrain.epochs=1 --set=data.max_count=100)
fi
# Small networks leave most of a GPU idle: the tables are made at the same time, and share memory.
export XLA_PYTHON_CLIENT_PREALLOCATE=false
mkdir -p "$OUT"
pids=()
for data_set in $DATA_SETS; do
    for imbalance in $IMBALANCES; do
        table=${data_set}_lt$imbalance
        timeout --signal=TERM "${MINUTES}m" "$PYTHON" launch/sweep.py \
            --config=configs/cifar_lt.py --sweep="$SWEEP,$data_set,$imbalance" \
            --reported=results/reported.csv --workdir="$OUT/$table" "${settings[@]}" "$@" \
            >"$OUT/$table.log" 2>&1 &
        pids+=($!)
    done
done
status=0
for pid in "${pids[@]}"; do
    wait "$pid" || status=$?
done
for table in "$OUT"/*/table.md; do
    [ -e "$table" ] && echo "$table" && head -n 20 "$table"
done
# 124: the time was over, and what was running has been saved.
[ "$status" = 124 ] && echo "stopped after $MINUTES minutes; start again to go on" && exit 0
[ "$status" = 0 ] || echo "a table failed; see $OUT/*.log" >&2
exit "$status"
