-- Requests and responses of transcoded gRPC calls. Envoy's transcoder stands after this script: the script sees JSON.
-- FRAMING are headers that belong to a connection, ID is the response header with the request's id.

local find, sub, byte, format, gsub = string.find, string.sub, string.byte, string.format, string.gsub
local OBJECT, ARRAY = 1, 2
local DEEPEST = 64 -- levels of nesting, fewer than protobuf's parsers accept
local TITLES = {
  "The call was cancelled", "The upstream failed", "The request is invalid",
  "The upstream did not respond in time", "The resource was not found", "The resource already exists",
  "Access is denied", "Too many requests", "The resource is in the wrong state",
  "The request conflicts with another one", "The request is out of range", "The method is not implemented",
  "The upstream failed", "The upstream is unavailable", "Data was lost", "Authentication is required",
}
local NAMES = {
  "cancelled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists", "permission_denied",
  "resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented", "internal", "unavailable",
  "data_loss", "unauthenticated",
}
local STATUSES = {
  499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401, -- google/rpc/code.proto
}

-- JSON (RFC 8259)

local function escaped(char)
  return (char == '"' or char == "\\") and "\\" .. char or format("\\u%04x", byte(char))
end

-- The forms of characters of several bytes (RFC 3629, section 4).
local CHARACTERS = {
  "^[\194-\223][\128-\191]", "^\224[\160-\191][\128-\191]", "^[\225-\236\238\239][\128-\191][\128-\191]",
  "^\237[\128-\159][\128-\191]", "^\240[\144-\191][\128-\191][\128-\191]",
  "^[\241-\243][\128-\191][\128-\191][\128-\191]", "^\244[\128-\143][\128-\191][\128-\191]",
}

-- The end of the character that begins at `at` with a byte from 128, or nil if it is no UTF-8.
local function character_end(text, at)
  for _, form in ipairs(CHARACTERS) do
    local _, stop = find(text, form, at)
    if stop ~= nil then
      return stop
    end
  end
  return nil
end

-- Bytes from 128 with question marks for those that are no UTF-8.
local function characters(bytes)
  local parts, at = {}, 1
  while at <= #bytes do
    local stop = character_end(bytes, at)
    parts[#parts + 1] = stop ~= nil and sub(bytes, at, stop) or "?"
    at = (stop or at) + 1
  end
  return table.concat(parts)
end

-- The place of the first byte that is no UTF-8, or nil.
local function no_character(text)
  local at = find(text, "[\128-\255]")
  while at ~= nil do
    local stop = character_end(text, at)
    if stop == nil then
      return at
    end
    at = find(text, "[\128-\255]", stop + 1)
  end
  return nil
end

-- Text of the upstream as a JSON string.
local function quoted(text)
  text = gsub(text, "[\128-\255]+", characters)
  return '"' .. gsub(text, '[%z\1-\31\\"\127]', escaped) .. '"'
end

-- The end of the string that begins at `at`, or nil.
local function string_end(text, at)
  local from = at + 1
  while true do
    local stop = find(text, '["\\%z\1-\31]', from)
    if stop == nil then
      return nil
    end
    local char = byte(text, stop)
    if char == 34 then
      return stop
    elseif char ~= 92 then
      return nil
    end
    local _, escape = find(text, '^["\\/bfnrt]', stop + 1)
    if escape == nil then
      _, escape = find(text, "^u%x%x%x%x", stop + 1)
    end
    if escape == nil then
      return nil
    end
    from = escape + 1
  end
end

local function number_end(text, at)
  local _, stop = find(text, "^%-?0", at)
  if stop == nil or find(text, "^%d", stop + 1) then
    _, stop = find(text, "^%-?[1-9]%d*", at)
  end
  if stop == nil then
    return nil
  end
  local _, fraction = find(text, "^%.%d+", stop + 1)
  stop = fraction or stop
  local _, exponent = find(text, "^[eE][+-]?%d+", stop + 1)
  return exponent or stop
end

local function literal_end(text, at)
  for _, word in ipairs({ "true", "false", "null" }) do
    if sub(text, at, at + #word - 1) == word then
      return at + #word - 1
    end
  end
  return nil
end

local function decoded(char)
  local number = tonumber(char, 16)
  return number < 128 and string.char(number) or nil
end

-- A name without escapes, under which the transcoder knows the field.
local function key_of(text)
  if find(text, "\\", 1, true) then
    text = gsub(gsub(text, "\\u(%x%x%x%x)", decoded), "\\/", "/")
  end
  return text
end

-- Why a text is no JSON of a message, or nil. Envoy's transcoder accepts more than JSON, ignores unknown names, and takes the
-- last value of a repeated name, with which a body could replace a value of the path. `messages` are the fields of messages
-- by their full names, and `root` is the message of the text; without it, names are not checked.
local function fault_of(text, aliases, messages, root)
  -- Of each level: the message of an object, or false; that of the values of a map or an array.
  local objects, values, value, in_map = {}, {}, root, false
  local bad = no_character(text)
  if bad ~= nil then
    return "the JSON is not UTF-8", bad
  end
  local at, depth, kinds, names = 1, 0, {}, {}
  local want = "value" -- or "first" (a name or the end), "name", "item" (a value or the end), "after"
  while true do
    at = find(text, "[^ \t\r\n]", at)
    if at == nil then
      break
    end
    local char = byte(text, at)
    local stop = at
    if want == "done" then
      return "more follows after the JSON value", at
    elseif want == "after" then
      if char == 44 then -- ,
        want = kinds[depth] == OBJECT and "name" or "value"
        value, in_map = values[depth], false
      elseif char == (kinds[depth] == OBJECT and 125 or 93) then -- } ]
        depth = depth - 1
      else
        return "a comma or the end is missing", at
      end
    elseif (want == "first" and char == 125) or (want == "item" and char == 93) then
      depth, want = depth - 1, "after"
    elseif want == "first" or want == "name" then
      stop = char == 34 and string_end(text, at)
      if not stop then
        return "a name in double quotes is missing", at
      end
      local written = key_of(sub(text, at + 1, stop - 1))
      local name = aliases[written] or written
      if objects[depth] then
        local known = messages[objects[depth]][written]
        if known == nil then
          return "the message " .. objects[depth] .. " has no field " .. quoted(written), at
        end
        name, value, in_map = known.number, known.message, known.map
      else
        value, in_map = values[depth], false
      end
      if names[depth][name] then
        return "the name " .. quoted(written) .. " is repeated", at
      end
      names[depth][name] = true
      stop = find(text, "[^ \t\r\n]", stop + 1)
      if stop == nil or byte(text, stop) ~= 58 then
        return "a colon is missing", at
      end
      want = "value"
    elseif char == 123 or char == 91 then -- { [
      depth = depth + 1
      if depth > DEEPEST then
        return "the JSON is nested too deeply", at
      end
      kinds[depth], names[depth] = char == 123 and OBJECT or ARRAY, {}
      objects[depth] = char == 123 and not in_map and value or false
      values[depth], in_map = value, false
      want = char == 123 and "first" or "item"
    else
      stop = (char == 34 and string_end or find(text, "^[-%d]", at) and number_end or literal_end)(text, at)
      if not stop then
        return "not a JSON value", at
      end
      want = "after"
    end
    if want == "after" and depth == 0 then
      want = "done"
    end
    at = stop + 1
  end
  if want ~= "done" then
    return "the JSON ends too early", #text + 1
  end
  return nil
end

-- Requests

local cached = {}

local function known_of(handle)
  local written = handle:filterContext():get("messages")
  local known = cached[written]
  if known == nil then
    known = assert(loadstring("return " .. written))()
    cached[written] = known
  end
  return known
end

-- True if a path without a query fits a template of google.api.http.
local function fits(path, template, verbs)
  if template.verb ~= "" then
    local verb = ":" .. template.verb
    if sub(path, -#verb) ~= verb then
      return false
    end
    path = sub(path, 1, -#verb - 1)
  elseif verbs and find(path, ":[^/]*$") then
    return false
  end
  local number = 0
  for segment in string.gmatch(path, "/([^/]*)") do
    number = number + 1
    local wanted = template.segments[number]
    if wanted == "**" then
      return true
    elseif wanted == nil or (wanted ~= "*" and wanted ~= segment) then
      return false
    end
  end
  local rest = #template.segments - number
  return rest == 0 or (rest == 1 and template.segments[number + 1] == "**")
end

-- Why a body is none of the messages that requests with its path have, or nil.
local function fault_for(handle, text)
  local known = known_of(handle)
  local path = string.match(handle:headers():get(":path"), "^[^?]*")
  local fault, at, tried = nil, nil, {}
  for _, request in ipairs(known.requests) do
    if tried[request.message] == nil and fits(path, request, known.verbs) then
      tried[request.message] = true
      fault, at = fault_of(text, known.aliases, known.messages, request.message)
      if fault == nil then
        return nil
      end
    end
  end
  if fault == nil then
    return fault_of(text, known.aliases, {}, false)
  end
  return fault, at
end

local function percent(hex)
  return string.char(tonumber(hex, 16))
end

local function unescaped(text)
  return (gsub(text, "%%(%x%x)", percent))
end

-- The numbers of the fields that the name of a query parameter leads through, or nil if the parameter is for no field or for
-- one with several values.
local function numbers_of(name, messages, message)
  local numbers = ""
  for part in string.gmatch(name, "[^.]+") do
    local field = message and messages[message][part]
    if message and field == nil or field and (field.many or field.map) then
      return nil
    end
    numbers = numbers .. (field and field.number or part) .. "."
    message = field and field.message
  end
  return numbers
end

-- Why the parameters of a query cannot be the fields of a message, or nil. Envoy takes the last of several values, but what
-- decides on a query reads the first.
local function fault_of_query(query, messages, message)
  local seen = {}
  for pair in string.gmatch(query, "[^&]+") do
    local written, value = string.match(pair, "^([^=]*)=?(.*)$")
    local name = unescaped(written)
    local numbers = numbers_of(name, messages, message)
    if numbers ~= nil then
      for other in pairs(seen) do -- a message and a part of it, such as a StringValue and its value, are one parameter too
        if sub(other, 1, #numbers) == numbers or sub(numbers, 1, #other) == other then
          return "the query parameter " .. quoted(name) .. " is repeated"
        end
      end
      seen[numbers] = true
      if no_character(unescaped(value)) then
        return "the query parameter " .. quoted(name) .. " is not UTF-8"
      end
    end
  end
  return nil
end

-- Why the path, the query or the time limit of a request cannot be transcoded, or nil. Upstreams report an internal error for
-- text that is not UTF-8, and for a time limit that is none.
local function fault_of_head(handle)
  local headers = handle:headers()
  local limit = headers:get("grpc-timeout")
  if limit ~= nil and not (find(limit, "^%d+[HMSmun]$") and #limit <= 9) then
    return "the header grpc-timeout is no time limit of gRPC, such as 500m"
  end
  local path, query = string.match(headers:get(":path"), "^([^?]*)%??(.*)$")
  if no_character(unescaped(path)) then
    return "the path is not UTF-8"
  end
  if query ~= "" then
    local known = known_of(handle)
    for _, request in ipairs(known.requests) do
      if fits(path, request, known.verbs) then
        local fault = fault_of_query(query, known.messages, request.input)
        if fault ~= nil then
          return fault
        end
      end
    end
  end
  return nil
end

local function fault_of_body(handle)
  local body = handle:body()
  if body == nil or body:length() == 0 then
    return nil
  end
  -- The transcoder ignores the coding: a policy that obeys it would have read another body.
  local coding = handle:headers():get("content-encoding")
  if coding ~= nil and string.lower(coding) ~= "identity" then
    return "the body has a content coding, and this route has no decompression"
  end
  local fault, at = fault_for(handle, body:getBytes(0, body:length()))
  return fault and fault .. format(" (byte %d of the body)", at)
end

-- Why a request has a body that its method does not read, or nil. Envoy would take its fields into the message, unknown names
-- and all. An empty object has no fields, and some clients always send one.
local function fault_of_unread_body(handle)
  local known = known_of(handle)
  if known.bodiless == "some" then
    local path = string.match(handle:headers():get(":path"), "^[^?]*")
    for _, request in ipairs(known.requests) do
      if not request.bodiless and fits(path, request, known.verbs) then
        return nil
      end
    end
  end
  local body = known.bodiless ~= "none" and handle:body()
  if not body or body:length() == 0 or find(body:getBytes(0, body:length()), "^%s*{%s*}%s*$") then
    return nil
  end
  return "the method reads no body; write the fields as query parameters"
end

-- Rejects a request that is no message of its method. Returns true if it did.
local function rejected(handle, has_body)
  local fault = fault_of_head(handle)
  if not fault then
    fault = (has_body and fault_of_body or fault_of_unread_body)(handle)
  end
  if not fault then
    return false
  end
  handle:streamInfo():dynamicMetadata():set("xds.grpc_transcoding", "fault", true)
  handle:respond({ [":status"] = "400" }, fault)
  return true
end

local function unchecked(handle)
  rejected(handle, false)
end

local function checked(handle)
  rejected(handle, true)
end

-- The filter after this script appends the trailers to responses of gRPC-Web requests only. A response of this script does not
-- pass that filter.
local function stream(handle, has_body)
  if not rejected(handle, has_body) then
    handle:headers():replace("content-type", "application/grpc-web+proto")
  end
end

local function unchecked_stream(handle)
  stream(handle, false)
end

local function checked_stream(handle)
  stream(handle, true)
end

-- Responses

-- A gRPC message (PROTOCOL-HTTP2.md) as text.
local function message_of(text)
  return unescaped(text or "")
end

-- A problem (RFC 9457). `detail` is a JSON string or nil, `more` are further members with a comma before them.
local function problem(code, status, id, detail, more)
  local members = {
    '{"type":"about:blank","title":"', TITLES[code] or TITLES[2], '","status":', status, ',"reason":"grpc_',
    NAMES[code] or NAMES[2], '","request_id":', id and quoted(id) or "null",
  }
  if detail ~= nil and detail ~= '""' then
    members[#members + 1] = ',"detail":' .. detail
  end
  members[#members + 1] = format(',"code":%d', code) .. more .. "}"
  return table.concat(members)
end

-- A google.rpc.Status as the transcoder writes it, as a problem; nil if the text is none.
local function of_status(text, status, id)
  local _, stop, code = find(text, '^{"code":(%d+)')
  if stop == nil then
    return nil
  end
  local detail
  local _, start = find(text, '^,"message":"', stop + 1)
  if start ~= nil then
    stop = string_end(text, start)
    if stop == nil then
      return nil
    end
    detail = sub(text, start, stop)
  end
  return problem(tonumber(code), status, id, detail, sub(text, stop + 1, -2)), tonumber(code)
end

local function details(value)
  return value and ',"grpc_status_details":' .. quoted(value) or ""
end

-- Copies trailing metadata to the headers, and returns them: Envoy's objects do not outlive a wait. Headers can be
-- changed while the script waits for the body, but not while it waits for trailers.
local function with_trailers(handle)
  handle:body()
  local trailers = handle:trailers()
  local headers = handle:headers()
  if trailers == nil then
    return headers
  end
  local found, known = {}, {}
  for name, value in pairs(trailers) do
    found[#found + 1] = { name, value }
  end
  for _, pair in ipairs(found) do
    local name = pair[1]
    if sub(name, 1, 5) == "grpc-" then
      trailers:remove(name)
    elseif not FRAMING[name] then
      if known[name] == nil then
        known[name] = headers:get(name) ~= nil
      end
      if not known[name] then
        headers:add(name, pair[2])
      end
    end
  end
  return headers
end

local function send(handle, text, code)
  local body = handle:body(true)
  local headers = handle:headers()
  headers:replace("content-type", "application/problem+json")
  headers:replace("x-gateway-reason", "grpc_" .. (NAMES[code] or NAMES[2]))
  body:setBytes(text)
end

-- Writes the error of an upstream as a problem.
local function failed(handle, headers, status, id)
  if headers:get("x-gateway-reason") ~= nil then
    return
  end
  local message, own = headers:get("grpc-message"), tonumber(headers:get("grpc-status") or "")
  local bin = headers:get("grpc-status-details-bin")
  for _, name in ipairs({ "grpc-status", "grpc-message", "grpc-status-details-bin" }) do
    headers:remove(name)
  end
  local body = handle:body()
  local text = body ~= nil and body:getBytes(0, body:length()) or ""
  local found, code = of_status(text, status, id)
  if found ~= nil then
    send(handle, found, code)
  elseif own ~= nil and own > 0 then -- a message came before the status, or a detail has an unknown type
    local trailers = handle:trailers()
    bin = bin or trailers and trailers:get("grpc-status-details-bin")
    send(handle, problem(own, status, id, quoted(message_of(message)), details(bin)), own)
  end
end

local function begin(handle)
  local headers = handle:headers()
  local id = headers:get(ID)
  if id ~= nil then
    headers:remove(ID)
  end
  return headers, headers:get(":status"), id
end

local function unary(handle)
  local headers, status, id = begin(handle)
  if status ~= "200" then
    failed(handle, headers, status, id)
  end
  headers = with_trailers(handle)
  if status == "200" then
    headers:remove("grpc-status")
    headers:remove("grpc-message")
  end
end

-- A stream of HttpBody: its bytes are those of the upstream, and nothing is added to them.
local function raw(handle)
  local headers, status, id = begin(handle)
  if status ~= "200" then
    failed(handle, headers, status, id)
  end
end

-- The filter after this script has put the body of an error into the header grpc-message.
local function restore(handle, headers, status, id)
  if find(headers:get("content-type") or "", "application/grpc-web", 1, true) == nil then
    failed(handle, headers, status, id)
    return
  end
  local text = message_of(headers:get("grpc-message"))
  headers:remove("grpc-status")
  headers:remove("grpc-message")
  local own = headers:get("x-gateway-reason")
  local found, code = of_status(text, status, id)
  if own == nil and found ~= nil then
    send(handle, found, code)
  else
    headers:replace("content-type", "application/problem+json")
    handle:body(true):setBytes(text)
  end
end

-- The line or event with the error at the end of a stream; empty if there is none.
local function last(trailers, id, write)
  local code = tonumber(string.match(trailers, "grpc%-status:(%d+)")) or 2
  if code == 0 then
    return ""
  end
  local message = message_of(string.match(trailers, "grpc%-message:([^\r\n]*)"))
  local bin = string.match(trailers, "grpc%-status%-details%-bin:([^\r\n]*)")
  return write(problem(code, STATUSES[code] or 500, id, quoted(message), details(bin)))
end

local function streamed(handle, content_type, write)
  local headers, status, id = begin(handle)
  if status ~= "200" then
    restore(handle, headers, status, id)
    return
  end
  headers:replace("content-type", content_type)
  for chunk in handle:bodyChunks() do
    local length = chunk:length()
    if length > 5 and byte(chunk:getBytes(0, 1)) == 128 then -- the trailers, as gRPC-Web frames them
      chunk:setBytes(last(chunk:getBytes(5, length - 5), id, write))
    end
  end
end

local function line(text)
  return '{"error":' .. text .. "}\n"
end

local function event(text)
  return "event: error\ndata: " .. text .. "\n\n"
end

local function ndjson(handle)
  streamed(handle, "application/x-ndjson", line)
end

local function sse(handle)
  streamed(handle, "text/event-stream", event)
end
