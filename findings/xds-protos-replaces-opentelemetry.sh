#!/bin/sh
# xds-protos brings its own, older opentelemetry/proto: beside it, the OTLP exporter of OpenTelemetry cannot be imported.
#
# Source: opentelemetry/proto/trace/v1/trace.proto of OTLP 1.0 and later calls field 2 of ResourceSpans `scope_spans`.
# One expects that two packages of PyPI whose requirements agree can be installed together.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
  opentelemetry-exporter-otlp-proto-grpc==1.38.0 'protobuf<7'
"$folder/venv/bin/python" -c 'import opentelemetry.exporter.otlp.proto.grpc.trace_exporter; print("alone: imported")'
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check xds-protos==1.76.0
"$folder/venv/bin/pip" check
"$folder/venv/bin/python" - <<'PYTHON'
import importlib.metadata as metadata
import sys

ours = {str(file) for file in metadata.files("xds-protos") if str(file).startswith("opentelemetry/")}
theirs = {str(file) for file in metadata.files("opentelemetry-proto")}
print("files that both packages install:", len(ours & theirs))
try:
    import opentelemetry.exporter.otlp.proto.grpc.trace_exporter
except (ImportError, AttributeError, TypeError) as error:
    print("beside xds-protos:", type(error).__name__, error)
    sys.exit(0)
print("beside xds-protos: imported, so this has changed")
sys.exit(1)
PYTHON
