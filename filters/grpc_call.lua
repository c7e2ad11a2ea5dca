-- Unary gRPC calls from scripts, with messages of fields that are whole numbers, texts or messages
-- (protobuf.dev/programming-guides/encoding).

local char, byte, sub = string.char, string.byte, string.sub
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

local function varint(number)
  local out = ""
  while number >= 128 do
    out, number = out .. char(number % 128 + 128), floor(number / 128)
  end
  return out .. char(number)
end

-- A field with a length: text or a message.
local function field(number, text)
  return char(number * 8 + 2) .. varint(#text) .. text
end

local function read_varint(text, at)
  local value, unit = 0, 1
  while true do
    local digit = byte(text, at)
    value, unit, at = value + digit % 128 * unit, unit * 128, at + 1
    if digit < 128 then
      return value, at
    end
  end
end

-- Calls `take` with the number and the value of each field. The messages of the policy server have only these two kinds.
local function each_field(text, take)
  local at = 1
  while at <= #text do
    local tag, value
    tag, at = read_varint(text, at)
    value, at = read_varint(text, at)
    if tag % 8 == 2 then
      local length = value
      value, at = sub(text, at, at + length - 1), at + length
    end
    take(floor(tag / 8), value)
  end
end

-- A gRPC message: not compressed, and its length (grpc/doc/PROTOCOL-HTTP2.md).
local function framed(text)
  local size = #text
  return char(0, floor(size / 16777216), floor(size / 65536) % 256, floor(size / 256) % 256, size % 256) .. text
end

-- Calls a method, which waits for the response. Returns its message, or nil if there is none. `timeout` is in milliseconds.
local function call(handle, cluster, method, message, timeout)
  local headers, body = handle:httpCall(cluster, {
    [":method"] = "POST", [":path"] = method, [":authority"] = cluster, ["content-type"] = "application/grpc",
    te = "trailers",
  }, framed(message), timeout)
  if headers[":status"] == "200" and body ~= nil and #body >= 5 then
    return sub(body, 6)
  end
end
