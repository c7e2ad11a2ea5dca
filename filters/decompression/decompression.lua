-- Request bodies without their content codings. The filter context of a route contains its rule; decode.lua comes before this
-- code.

local function too_large(limit)
  return "body_too_large", "a body of this route has at most " .. limit .. " bytes"
end

-- Returns a reason and a detail if the request is rejected.
local function request(handle)
  local rule, headers = rule_of(handle), handle:headers()
  local coding = encoding(headers)
  -- gRPC compresses its messages itself, and upgrades have no body.
  if coding == "" or headers:get("upgrade") ~= nil or (headers:get("content-type") or ""):find("^application/grpc") then
    return nil
  elseif length(headers) > rule.limit then
    return too_large(rule.limit)
  end
  local body = handle:body()
  if body == nil or body:length() == 0 then
    handle:headers():remove("content-encoding")
    return nil
  elseif body:length() > rule.limit then
    return too_large(rule.limit)
  end
  local plain, reason, detail = decoded(handle, body:getBytes(0, body:length()), coding, rule.limit)
  if plain == nil then
    return reason, detail
  end
  replace_body(handle, plain)
end

local reported = {}

function envoy_on_request(handle)
  local done, reason, detail = pcall(request, handle)
  -- Envoy lets a request pass if a script fails, so an error must not leave this function.
  if not done then
    if not reported[reason] then
      reported[reason] = true
      handle:logErr("script of decompression failed; the request is rejected error=" .. tostring(reason))
    end
    reason, detail = "decompression_failed", "the gateway's script failed"
  end
  if reason ~= nil then
    reject(handle, reason, detail)
  end
end
