-- Changes of headers and JSON bodies in Envoy. The filter context of a route contains its rule; json.lua and
-- decompression/decode.lua come before this code. A body that is not JSON passes as it is. A JSON body that cannot be changed is rejected.

-- Values --------------------------------------------------------------------------------------------------------

-- JSON of a value of metadata or of a header, or nil. Numbers from 2^53 on have no exact value there, and a text that is
-- not UTF-8 has none in JSON.
local function json(value)
  local kind = type(value)
  if kind == "string" then
    local written = quoted(value)
    return (not value:find("[\128-\255]") or transformed(written, {}, {}) ~= nil) and written or nil
  elseif kind == "boolean" then
    return tostring(value)
  elseif kind == "number" then
    if value ~= value or math.abs(value) >= 2 ^ 53 then
      return nil
    end
    for digits = value == math.floor(value) and 16 or 14, 17 do
      local written = ("%." .. digits .. "g"):format(value)
      if tonumber(written) == value then
        return written
      end
    end
  elseif kind ~= "table" then
    return nil
  end
  local parts = {}
  if #value > 0 then
    for number, one in ipairs(value) do
      parts[number] = json(one) or "null"
    end
    return "[" .. table.concat(parts, ",") .. "]"
  end
  for name, one in pairs(value) do
    parts[#parts + 1] = quoted(tostring(name)) .. ":" .. (json(one) or "null")
  end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

local function unescaped_path(value)
  return (value:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

local function parameter(path, name)
  local query = path:match("%?(.*)$") or ""
  for pair in query:gmatch("[^&]+") do
    local key, value = pair:match("^([^=]*)=?(.*)$")
    if unescaped_path((key:gsub("+", " "))) == name then
      return unescaped_path((value:gsub("+", " ")))
    end
  end
end

local function segment(path, number)
  local at = 0
  for one in path:gsub("%?.*$", ""):gmatch("/([^/]*)") do
    at = at + 1
    if at == number then
      return unescaped_path(one)
    end
  end
end

-- Sources of values that are known with the headers of a request.
local READ = {
  request_id = function(handle) return handle:headers():get("x-request-id") end,
  method = function(handle) return handle:headers():get(":method") end,
  host = function(handle) return handle:headers():get(":authority") end,
  route = function(_, source) return source.name end,
  consumer = function(handle) return identity_of(handle).consumer end,
  plan = function(handle) return identity_of(handle).plan end,
  claim = function(handle, source) return claim_of(identity_of(handle), source.paths) end,
  path = function(handle, source) return segment(handle:headers():get(":path"), source.segment) end,
  query = function(handle, source) return parameter(handle:headers():get(":path"), source.name) end,
  header = function(handle, source) return whole_header(handle:headers(), source.name) end,
  ip = function(handle)
    local address = handle:streamInfo():downstreamRemoteAddress()
    return address:match("^%[(.*)%]:%d+$") or address:match("^(.*):%d+$") or address
  end,
}

-- The values of all sources as JSON, but those of the response.
local function values_of(handle, sources)
  local values = {}
  for number, source in ipairs(sources) do
    local value = READ[source.kind] and READ[source.kind](handle, source)
    if value ~= nil then
      values[number] = json(value)
    end
  end
  return values
end

-- A value as a header's value, or nil.
local function plain(written)
  if written == nil then
    return nil
  elseif written:sub(1, 1) ~= '"' then
    return written
  end
  local value = unescaped(written:sub(2, -2))
  return not value:find("%c") and value or nil
end

-- Headers -------------------------------------------------------------------------------------------------------

local function change_headers(headers, rule, values)
  for _, name in ipairs(rule.remove or {}) do
    headers:remove(name)
  end
  for _, one in ipairs(rule.rename or {}) do
    local value = whole_header(headers, one[1])
    if value ~= nil then
      headers:remove(one[1])
      headers:replace(one[2], value)
    end
  end
  for _, one in ipairs(rule.set or {}) do
    local value = one.text or plain(values[one.source]) or one.default
    headers:remove(one.name)
    if value ~= nil then
      headers:add(one.name, value)
    end
  end
end

-- Bodies --------------------------------------------------------------------------------------------------------

-- True for JSON (RFC 8259), every type with the suffix +json (RFC 6839), and the older text/json.
local function is_json(headers)
  local written = headers:get("content-type")
  local kind = written ~= nil and written:lower():match("^%s*([^;,%s]+)%s*;?") or nil
  return kind ~= nil and (kind == "application/json" or kind == "text/json" or kind:match("^[^/]+/[^/]+%+json$") ~= nil)
end

local UTF8 = { ["utf-8"] = true, ["us-ascii"] = true, utf8 = true }

-- A charset of the body that is not UTF-8, or nil.
local function foreign_charset(headers)
  for set in headers:get("content-type"):lower():gmatch('charset%s*=%s*"?([^";,%s]*)') do
    if not UTF8[set] then
      return set
    end
  end
end

-- Applies the plans to a body of JSON. Returns a reason and a detail if it cannot be changed, else nil and true if the
-- body is another one now.
local function change_body(handle, plans, values, limit)
  local set = foreign_charset(handle:headers())
  if set ~= nil then
    return "unsupported_charset", "JSON has the charset utf-8, not " .. set
  end
  local body = handle:body()
  if body == nil or body:length() == 0 then
    return nil, false
  elseif body:length() > limit then
    return "body_too_large", "a body of this route has at most " .. limit .. " bytes"
  end
  -- Objects of Envoy cannot be used any more after the script has waited, so they are asked for again.
  local bytes, coding = body:getBytes(0, body:length()), encoding(handle:headers())
  local plain_bytes = bytes
  if coding ~= "" then
    local reason, detail
    plain_bytes, reason, detail = decoded(handle, bytes, coding, limit)
    if plain_bytes == nil then
      return reason, detail
    end
  end
  local result = plain_bytes
  for _, plan in ipairs(plans) do
    local wrong
    result, wrong = transformed(result, plan, values)
    if result == nil then
      return "malformed_body", "byte " .. wrong.at .. " of the JSON: " .. wrong.what
    end
  end
  if result == plain_bytes then
    return nil, false
  end
  replace_body(handle, result)
  return nil, true
end

-- Requests ------------------------------------------------------------------------------------------------------

-- Everything that the response needs to know of the request. Without it a response is no upstream's.
local function remember(handle, rule, values)
  local metadata, named = handle:streamInfo():dynamicMetadata(), {}
  for number, value in pairs(values) do
    named[tostring(number)] = value
  end
  metadata:set(NAMESPACE, "values", named)
  metadata:set(NAMESPACE, "method", handle:headers():get(":method"))
  metadata:set(NAMESPACE, "request_id", handle:headers():get("x-request-id") or "")
  if rule.by ~= nil then
    metadata:set(NAMESPACE, "view", plain(values[rule.by]) or "")
  end
end

-- The response's body must be whole and readable here.
local function ask_for_whole_body(headers)
  headers:replace("accept-encoding", "identity")
  headers:remove("range")
  headers:remove("if-range")
end

local function request(handle)
  local rule, headers = rule_of(handle), handle:headers()
  local values = values_of(handle, rule.sources)
  if rule.response ~= nil then
    remember(handle, rule, values)
    if rule.response.plan ~= nil or rule.views ~= nil then
      ask_for_whole_body(headers)
    end
  end
  local own = rule.request
  if own == nil then
    return nil
  end
  if own.headers ~= nil then
    change_headers(headers, own.headers, values)
  end
  if own.plan == nil or not is_json(headers) then
    return nil
  elseif length(headers) > own.limit then
    if own.pass then
      return nil
    end
    return "body_too_large", "a body of this route has at most " .. own.limit .. " bytes"
  end
  return change_body(handle, { own.plan }, values, own.limit)
end

local reported = {}

local function report(handle, found)
  if not reported[found] then
    reported[found] = true
    handle:logErr("script of transform failed; the message is rejected error=" .. tostring(found))
  end
end

function envoy_on_request(handle)
  local done, reason, detail = pcall(request, handle)
  -- Envoy lets a request pass if a script fails, so an error must not leave this function.
  if not done then
    report(handle, reason)
    handle:streamInfo():dynamicMetadata():set(NAMESPACE, "failure", "transform_failed")
    handle:respond({ [":status"] = "500" }, "")
  elseif reason ~= nil then
    reject(handle, reason, detail)
  end
end

-- Responses -----------------------------------------------------------------------------------------------------

local function applies(statuses, status)
  if statuses == nil then
    return true
  end
  for _, one in ipairs(statuses) do
    if one == status or (one < 10 and one == math.floor(status / 100)) then
      return true
    end
  end
  return false
end

local function add_vary(headers, name)
  for at = 0, headers:getNumValues("vary") - 1 do
    for one in headers:getAtIndex("vary", at):gmatch("[^,%s]+") do
      if one == "*" or one:lower() == name then
        return
      end
    end
  end
  headers:add("vary", name)
end

-- No shared cache may give this response to another caller (RFC 9111, section 5.2.2.7). The headers for caches of one kind
-- (RFC 9213) would count more than Cache-Control.
local function make_private(headers)
  local parts, is_private = {}, false
  for part in (whole_header(headers, "cache-control") or ""):gmatch("[^,]+") do
    part = part:match("^%s*(.-)%s*$")
    local name = part:lower()
    is_private = is_private or name == "private" or name == "no-store"
    if part ~= "" and name ~= "public" and not name:find("^s%-maxage") then
      parts[#parts + 1] = part
    end
  end
  if not is_private then
    table.insert(parts, 1, "private")
  end
  headers:replace("cache-control", table.concat(parts, ", "))
  headers:remove("cdn-cache-control")
  headers:remove("surrogate-control")
end

-- The body that the client gets is made here, so only a weak validator fits it, and no part of it can be asked for.
local function weaken(headers)
  local tag = headers:get("etag")
  if tag ~= nil and tag:sub(1, 2) ~= "W/" then
    headers:replace("etag", "W/" .. tag)
  end
  headers:remove("accept-ranges")
end

-- The plans for this response, in their order.
local function plans_of(rule, known, status)
  local plans, own = {}, rule.response
  if own.plan ~= nil and applies(own.statuses, status) then
    plans[1] = own.plan
  end
  if rule.views ~= nil and status >= 200 and status < 300 then
    local view = rule.views[known.view or ""]
    if view == nil then
      view = rule.default
    end
    if view then
      plans[#plans + 1] = view
    end
  end
  return plans
end

local function response(handle, known)
  local rule, headers = rule_of(handle), handle:headers()
  local status, own = tonumber(headers:get(":status")), rule.response
  local values = {}
  for number, value in pairs(known.values or {}) do
    values[tonumber(number)] = value
  end
  for number, source in ipairs(rule.sources) do
    if source.kind == "response_header" then
      local value = whole_header(headers, source.name)
      values[number] = value ~= nil and json(value) or nil
    end
  end
  if own.headers ~= nil and applies(own.statuses, status) then
    change_headers(headers, own.headers, values)
  end
  if rule.vary ~= nil then
    add_vary(headers, rule.vary)
  end
  if rule.private then
    make_private(headers)
  end
  if status == 304 and (own.plan ~= nil or rule.views ~= nil) then
    weaken(headers)
    return nil
  end
  local plans = plans_of(rule, known, status)
  if #plans == 0 then
    return nil
  elseif not is_json(headers) then
    return nil
  end
  weaken(headers)
  if known.method == "HEAD" then
    headers:remove("content-length")
    return nil
  elseif status == 206 then
    return "response_not_transformable", "the upstream sent a part of a body that nobody asked for"
  elseif length(headers) > own.limit then
    if own.pass then
      return nil
    end
    return "response_too_large", "a body of this route has at most " .. own.limit .. " bytes"
  end
  local reason, detail = change_body(handle, plans, values, own.limit)
  if reason == "body_too_large" then
    return "response_too_large", detail
  end
  return reason ~= nil and "response_not_transformable" or nil, detail
end

-- Replaces a response by a problem. The headers that are not about its body stay.
local function replace_response(handle, reason, detail, request_id)
  local headers, own = handle:headers(), (rule_of(handle).errors or {})[reason] or {}
  for _, name in ipairs(OF_BODY) do
    headers:remove(name)
  end
  headers:replace(":status", tostring(own.status or FAILURES[reason].status))
  headers:replace("content-type", own.body ~= nil and "application/json" or "application/problem+json")
  headers:replace("x-gateway-reason", reason)
  for name, value in pairs(own.headers or {}) do
    headers:replace(name, value)
  end
  handle:body(true):setBytes(problem(reason, detail, request_id, own))
end

function envoy_on_response(handle)
  local known = handle:streamInfo():dynamicMetadata():get(NAMESPACE)
  -- The gateway's own responses have a reason. It removes those of upstreams.
  if known == nil or known.method == nil or handle:headers():get("x-gateway-reason") ~= nil then
    return
  end
  local done, reason, detail = pcall(response, handle, known)
  if not done then
    report(handle, reason)
    reason, detail = "transform_failed", "the gateway's script failed"
  end
  if reason ~= nil and not pcall(replace_response, handle, reason, detail, known.request_id) then
    handle:headers():replace(":status", "500")
    handle:body(true):setBytes("")
  end
end
