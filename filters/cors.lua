-- CORS (Fetch standard, section 3.2) for all responses of a route, including the gateway's own. The route's filter
-- context contains its rule.

local NAMESPACE = "xds.cors"
local cached = {}

local function rule_of(handle)
  local written = handle:filterContext():get("rule")
  local rule = cached[written]
  if rule == nil then
    rule = assert(loadstring("return " .. written))()
    cached[written] = rule
  end
  return rule
end

local function allowed(rule, origin)
  if rule.all or rule.origins[origin] then
    return true
  end
  for _, one in ipairs(rule.subdomains) do
    local from, to = #one.before + 1, #origin - #one.after
    if to >= from and origin:sub(1, #one.before) == one.before and origin:sub(to + 1) == one.after then
      local label = origin:sub(from, to)
      if not label:find("[^%w_.-]") and not ("." .. label .. "."):find("..", 1, true) then
        return true
      end
    end
  end
  return false
end

-- The headers of every response to an allowed origin.
local function shared(rule, origin)
  return {
    ["access-control-allow-origin"] = rule.any or origin,
    ["access-control-allow-credentials"] = rule.credentials and "true" or nil,
  }
end

local function preflight(rule, origin, headers)
  local answer = shared(rule, origin)
  answer[":status"] = "200"
  answer["access-control-allow-methods"] = rule.methods == "*" and headers:get("access-control-request-method")
    or rule.methods
  answer["access-control-allow-headers"] = rule.headers == "*" and headers:get("access-control-request-headers")
    or rule.headers
  if rule.headers == "*" and headers:get("access-control-request-headers") == nil then
    answer["access-control-allow-headers"] = nil
  end
  answer["access-control-max-age"] = rule.max_age
  return answer
end

function envoy_on_request(handle)
  local headers = handle:headers()
  local origin = headers:get("origin")
  if origin == nil or origin == "" then
    return
  end
  local rule = rule_of(handle)
  local known = allowed(rule, origin)
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set(NAMESPACE, known and "origin" or "foreign", origin)
  if headers:get(":method") == "OPTIONS" and (headers:get("access-control-request-method") or "") ~= "" then
    if known then
      handle:respond(preflight(rule, origin, headers), "")
    else
      handle:respond({ [":status"] = "403" }, "")
    end
  end
end

-- Caches must not return the response for one origin to another (Fetch standard, section 3.2.5).
local function vary(headers)
  for at = 0, headers:getNumValues("vary") - 1 do
    for name in headers:getAtIndex("vary", at):gmatch("[^,%s]+") do
      if name == "*" or name:lower() == "origin" then
        return
      end
    end
  end
  headers:add("vary", "Origin")
end

function envoy_on_response(handle)
  local rule, headers = rule_of(handle), handle:headers()
  local known = handle:streamInfo():dynamicMetadata():get(NAMESPACE) or {}
  if not rule.any then
    vary(headers)
  end
  if known.origin ~= nil then
    for name, value in pairs(shared(rule, known.origin)) do
      headers:remove(name)
      headers:add(name, value)
    end
    if rule.expose ~= nil then
      headers:remove("access-control-expose-headers")
      headers:add("access-control-expose-headers", rule.expose)
    end
  elseif known.foreign ~= nil then
    headers:remove("access-control-allow-origin")
    headers:remove("access-control-allow-credentials")
  end
end
