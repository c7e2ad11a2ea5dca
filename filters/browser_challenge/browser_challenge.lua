-- A proof of work before a route serves a client. The constants NAMESPACE, REQUIRED, FOUND, PAGE and CONTENT_POLICY,
-- request_values.lua and sha.lua come before this code. The filter context of a route contains its rule.
--
-- The cookie is TIME.NUMBER. SHA-256 of SEED.NUMBER has to begin with as many zero bits as the rule says, and SEED is
-- SHA-256 of the host, the client's network and TIME, in hexadecimal digits. So a proof counts for one host, one
-- network and some time, and nothing has to be stored.

local COOKIE = "gateway_challenge"
local LONGEST_COOKIES = 16384 -- bytes of the header that are searched
local AHEAD = 60 -- seconds that the clock of another Envoy may be ahead

-- The part of an address that stays the same for one client: IPv4 whole, of IPv6 the /64 (RFC 4291 section 2.5.1).
local function network(address)
  local v6 = address:match("^%[(.*)%]:%d+$")
  if v6 == nil then
    return address:match("^(.*):%d+$") or address, "4"
  end
  v6 = v6:gsub("%%.*$", "")
  local v4 = v6:match("^::ffff:(%d+%.%d+%.%d+%.%d+)$")
  if v4 ~= nil then
    return v4, "4"
  end
  local before, after = v6:match("^(.-)::(.*)$")
  if before == nil then
    return v6:match("^%x+:%x+:%x+:%x+") or v6, "6"
  end
  local groups, behind = {}, {}
  for group in before:gmatch("[^:]+") do
    groups[#groups + 1] = group
  end
  for group in after:gmatch("[^:]+") do
    behind[#behind + 1] = group
  end
  for _ = 1, 8 - #groups - #behind do
    groups[#groups + 1] = "0"
  end
  for _, group in ipairs(behind) do
    groups[#groups + 1] = group
  end
  return table.concat(groups, ":", 1, 4), "6"
end

local function seed_of(host, client, time)
  return sha256(host .. "\n" .. client .. "\n" .. time)
end

-- True if a hash in hexadecimal digits begins with this many zero bits.
local function has_zeros(hash, bits)
  local digits, rest = math.floor(bits / 4), bits % 4
  if hash:sub(1, digits) ~= rep("0", digits) then
    return false
  end
  return rest == 0 or tonumber(hash:sub(digits + 1, digits + 1), 16) < 2 ^ (4 - rest)
end

local function is_proof(time, number, host, client, rule, now)
  local made = tonumber(time)
  if made > now + AHEAD or made + rule.seconds <= now then
    return false
  end
  return has_zeros(sha256(seed_of(host, client, time) .. "." .. number), rule.bits)
end

-- True if the first cookie of this name is a proof.
local function has_proof(headers, name, host, client, rule, now)
  local cookies = whole_header(headers, "cookie")
  if cookies == nil or #cookies > LONGEST_COOKIES then
    return false
  end
  local time, number = ("; " .. cookies .. ";"):match("[;,] *" .. name .. "=(%d+)%.(%d+);")
  if time == nil or #time > 12 or #number > 15 then
    return false
  end
  return is_proof(time, number, host, client, rule, now)
end

-- True for a request that a browser makes for a page.
local function wants_page(headers)
  local method = headers:get(":method")
  return (method == "GET" or method == "HEAD")
    and headers:get("upgrade") == nil
    and (whole_header(headers, "accept") or ""):find("text/html", 1, true) ~= nil
end

local function filled(values)
  return (PAGE:gsub("{(%u+)}", values))
end

function envoy_on_request(handle)
  local rule = rule_of(handle)
  local metadata = handle:streamInfo():dynamicMetadata()
  if rule.some and (metadata:get("envoy.filters.http.rbac") or {})[FOUND] == "denied" then
    return
  end
  local headers, now = handle:headers(), os.time()
  local host = (headers:get(":authority") or ""):lower()
  local client, family = network(handle:streamInfo():downstreamRemoteAddress())
  local name = COOKIE .. family
  if has_proof(headers, name, host, client, rule, now) then
    return
  end
  if not wants_page(headers) then
    metadata:set(NAMESPACE, "required", "true")
    handle:respond({ [":status"] = "403", ["cache-control"] = "no-store" }, "")
    return
  end
  metadata:set(NAMESPACE, "page", "true")
  local time = tostring(now)
  handle:respond({
    [":status"] = "403",
    ["content-type"] = "text/html; charset=utf-8",
    ["content-security-policy"] = CONTENT_POLICY,
    ["cache-control"] = "no-store",
    ["x-gateway-reason"] = REQUIRED,
    ["x-robots-tag"] = "noindex",
  }, filled({
    SEED = seed_of(host, client, time),
    TIME = time,
    BITS = tostring(rule.bits),
    COOKIE = name,
    SECONDS = tostring(rule.seconds),
  }))
end
