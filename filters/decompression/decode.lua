-- Bodies without their content codings, and the problems of those that are rejected. grpc_call.lua and request_values.lua come
-- before this code. UNAVAILABLE is the reason if no policy server decodes.

local DIGESTS = { "content-digest", "repr-digest", "digest", "content-md5" }
local SHORT = { ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quoted(value)
  return '"' .. value:gsub('[%c"\\]', function(letter)
    return SHORT[letter] or (letter == '"' or letter == "\\") and "\\" .. letter
      or ("\\u%04x"):format(letter:byte())
  end) .. '"'
end

-- The problem (RFC 9457) of a failure. `own` are the overrides of `errors:`.
local function problem(reason, detail, request_id, own)
  local known = FAILURES[reason]
  own = own or {}
  if own.body ~= nil then
    return own.body
  end
  return '{"type":' .. quoted(own.type or "about:blank") .. ',"title":' .. quoted(own.title or known.title)
    .. ',"status":' .. (own.status or known.status) .. ',"reason":' .. quoted(reason)
    .. ',"request_id":' .. quoted(request_id or "") .. ',"detail":' .. quoted(own.detail or detail) .. "}"
end

-- Answers a request with the problem of a failure.
local function reject(handle, reason, detail)
  handle:streamInfo():dynamicMetadata():set(NAMESPACE, "failure", reason)
  local answer = { [":status"] = tostring(FAILURES[reason].status), ["content-type"] = "application/problem+json" }
  if reason == "unsupported_content_coding" then
    answer["accept-encoding"] = CODINGS
  end
  handle:respond(answer, problem(reason, detail, handle:headers():get("x-request-id")))
end

-- The content codings of a message in lower case; "" if there is none.
local function encoding(headers)
  local coded = (whole_header(headers, "content-encoding") or ""):lower():match("^[%s,]*(.-)[%s,]*$")
  return coded ~= "identity" and coded or ""
end

local function length(headers)
  return tonumber(headers:get("content-length") or "") or 0
end

-- The body without its content codings, or nil, a reason and a detail.
local function decoded(handle, bytes, coding, limit)
  local question = field(1, bytes) .. field(2, coding) .. char(24) .. varint(limit)
  local answer = call(handle, CLUSTER, DECODE, question, TIMEOUT)
  if answer == nil then
    return nil, UNAVAILABLE, "the policy server did not decode the body"
  end
  local result, status, message = "", nil, nil
  each_field(answer, function(number, value)
    if number == 1 then
      result = value
    elseif number == 2 then
      status = value
    elseif number == 3 then
      message = value
    end
  end)
  if status == nil then
    return result
  end
  return nil, status == 413 and "body_too_large" or status == 415 and "unsupported_content_coding"
    or "malformed_content_coding", message
end

-- Replaces the body of a message by one without content codings.
local function replace_body(handle, bytes)
  handle:body():setBytes(bytes)
  local headers = handle:headers()
  headers:remove("content-encoding")
  for _, name in ipairs(DIGESTS) do
    headers:remove(name)
  end
end
