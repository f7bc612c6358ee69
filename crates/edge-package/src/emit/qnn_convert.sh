#!/bin/sh
# Makes context binaries with the tools of Qualcomm's QAIRT SDK: build/CONTEXT.bin.
#
#     QAIRT_SDK_ROOT=... sh qnn/convert.sh
#
# Set up the SDK first (bin/envsetup.sh). A context is bound to the SDK's version and to the device.
set -eu
cd "$(dirname "$0")/.."
tools="${QAIRT_SDK_ROOT:?set it to the folder of the SDK}/bin/x86_64-linux-clang"
libraries="$QAIRT_SDK_ROOT/lib/x86_64-linux-clang"
mkdir -p build

# quantized NAME FILE: to a DLC with the integers that the file says; what has none is float.
quantized() {
    "$tools/qairt-converter" --input_network "$2" --output_path "build/$1.float.dlc"
    "$tools/qairt-quantizer" --input_dlc "build/$1.float.dlc" --output_dlc "build/$1.dlc" \
        --float_fallback --float_bitwidth 16
}

# encoded NAME FILE FLOAT: a float graph to a DLC with the integers of its encodings, which are those of FILE. The examples
# are for tensors that the converter makes itself.
encoded() {
    if [ -n "${QDQ:-}" ]; then
        quantized "$1" "$2"
        return
    fi
    "$tools/qairt-converter" --input_network "$3" --output_path "build/$1.float.dlc" \
        --quantization_overrides "qnn/encodings-${ENCODINGS:-1.0.0}/$1.json"
    calibrated "$1"
}

# float NAME FILE: to a DLC in float16 or, with CALIBRATE=1, in integers with ranges from the examples.
float() {
    if [ -z "${CALIBRATE:-}" ]; then
        "$tools/qairt-converter" --input_network "$2" --output_path "build/$1.dlc" --float_bitwidth 16
        return
    fi
    "$tools/qairt-converter" --input_network "$2" --output_path "build/$1.float.dlc"
    calibrated "$1"
}

# calibrated NAME: what has no encoding yet gets one from the examples in qnn/inputs.
calibrated() {
    "$tools/qairt-quantizer" --input_dlc "build/$1.float.dlc" --output_dlc "build/$1.dlc" \
        --input_list "qnn/inputs/$1.txt" --use_native_input_files \
        --weights_bitwidth 8 --act_bitwidth 16 --bias_bitwidth 32 --float_bitwidth 16 --use_per_channel_quantization
}

# context NAME GRAPH...: graphs to one binary, which holds equal weights once.
context() {
    name="$1"
    shift
    files=
    for graph in "$@"; do
        files="${files:+$files,}build/$graph.dlc"
    done
    "$tools/qnn-context-binary-generator" --backend "$libraries/libQnnHtp.so" \
        --model "$libraries/libQnnModelDlc.so" --dlc_path "$files" \
        --config_file qnn/htp/config.json --output_dir build --binary_file "$name"
}

# GRAPHS
ls -l build/*.bin
