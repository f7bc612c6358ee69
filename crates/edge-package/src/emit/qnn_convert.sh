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

# quantized NAME FILE: to a DLC with the integers that the file says.
quantized() {
    "$tools/qairt-converter" --input_network "$2" --output_path "build/$1.float.dlc"
    "$tools/qairt-quantizer" --input_dlc "build/$1.float.dlc" --output_dlc "build/$1.dlc" --float_fallback
}

# float NAME FILE: to a quantized DLC, with ranges from the examples in qnn/inputs.
float() {
    "$tools/qairt-converter" --input_network "$2" --output_path "build/$1.float.dlc"
    "$tools/qairt-quantizer" --input_dlc "build/$1.float.dlc" --output_dlc "build/$1.dlc" \
        --input_list "qnn/inputs/$1.txt" --use_native_input_files \
        --weights_bitwidth 8 --act_bitwidth 16 --bias_bitwidth 32 --use_per_channel_quantization
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
