#!/bin/sh
# h2 rejects the response to a request if a GOAWAY frame without error precedes it, although the server says by that
# frame that it goes on with this request.
#
# Source: RFC 9113 section 6.8: "GOAWAY allows an endpoint to gracefully stop accepting new streams while still finishing
# processing of previously established streams."
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check h2==4.4.1 hyperframe==6.1.0 hpack==4.2.0
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import h2
import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hpack import Encoder
from hyperframe.frame import GoAwayFrame, HeadersFrame, SettingsFrame

client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
client.initiate_connection()
request = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
client.send_headers(1, request, end_stream=True)

response = HeadersFrame(1, data=Encoder().encode([(":status", "200")]), flags=["END_HEADERS", "END_STREAM"])
frames = (SettingsFrame(0), GoAwayFrame(0, last_stream_id=1, error_code=0), response)
seen = []
try:
    for frame in frames:
        seen += client.receive_data(frame.serialize())
    answered = any(isinstance(event, h2.events.ResponseReceived) for event in seen)
    error = ""
except h2.exceptions.ProtocolError as caught:
    answered, error = False, f"ProtocolError: {caught}"
print("version: ", h2.__version__)
print("source:   RFC 9113 section 6.8")
print("expected: ResponseReceived for stream 1, which GOAWAY names as the last one that the server processes")
print("seen:    ", error or seen)
assert any(isinstance(event, h2.events.ConnectionTerminated) for event in seen), seen
sys.exit("h2 takes the response now" if answered else 0)
PYTHON
