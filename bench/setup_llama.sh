#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds llama.cpp for this processor, as llama-cpp-python, into .cache/bench-venv. Takes long (20 minutes on two
# cores); done once. Needs a C++ compiler, cmake and Python's venv.
set -eu

cd "$(dirname "$0")/.."
venv=.cache/bench-venv
[ ! -e $venv/ready ] || exit 0
${PYTHON:-python3} -m venv $venv
$venv/bin/python -m pip install --quiet --disable-pip-version-check numpy==2.2.6 gguf==0.17.1
CMAKE_ARGS="-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release" $venv/bin/python -m pip install --disable-pip-version-check \
    --no-binary llama-cpp-python llama-cpp-python==0.3.36
touch $venv/ready
