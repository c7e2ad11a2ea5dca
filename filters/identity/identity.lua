-- Authentication: maps credentials to one consumer and plan. The generated tables CONSUMERS, KEYS, USERS, CERTIFICATES,
-- CLAIMS and HEADERS, and sha.lua, come before this code. SERIES_UNTIL is the last consumer with metrics of its own; nil
-- without such metrics. The filter context of a route contains its rule.

-- Tables -----------------------------------------------------------------------------------------------------

local function plain(text)
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- The places of a claim in the order of the lookup, each a list of names.
local function places(text)
  local all = {}
  for written in text:gmatch("[^;]+") do
    local path = {}
    for name in (written .. "|"):gmatch("([^|]*)|") do
      path[#path + 1] = plain(name)
    end
    all[#all + 1] = path
  end
  return all
end

local function rows(text)
  return text:gmatch("([^\n\t]*)\t([^\n\t]*)\t([^\n\t]*)\t([^\n\t]*)\n")
end

local consumers, by_name = {}, {}
local keys, last_seconds, users, certificates, claims, claim_headers = {}, {}, {}, {}, {}, {}
for name, plan in rows(CONSUMERS) do
  by_name[name] = { name = name, plan = plan ~= "" and plan or nil }
  consumers[#consumers + 1] = by_name[name]
end
for hash, consumer, not_after in rows(KEYS) do
  keys[hash], last_seconds[hash] = consumers[tonumber(consumer)], tonumber(not_after)
end
for list, name, hash, consumer in rows(USERS) do
  users[list] = users[list] or {}
  users[list][plain(name)] = { hash = hash, consumer = consumers[tonumber(consumer)] }
end
for name, consumer in rows(CERTIFICATES) do
  certificates[plain(name)] = consumers[tonumber(consumer)]
end
for provider, claim, value, consumer in rows(CLAIMS) do
  claims[provider] = claims[provider] or {}
  claims[provider][claim] = claims[provider][claim] or { places = places(claim), consumers = {} }
  claims[provider][claim].consumers[plain(value)] = consumers[tonumber(consumer)]
end
for provider, claim, header in rows(HEADERS) do
  claim_headers[provider] = claim_headers[provider] or {}
  table.insert(claim_headers[provider], { places = places(claim), header = header })
end
CONSUMERS, KEYS, USERS, CERTIFICATES, CLAIMS, HEADERS = nil, nil, nil, nil, nil, nil
collectgarbage() -- frees the texts of the tables now, and not during a request

-- Reading requests -------------------------------------------------------------------------------------------

local function unescaped(text)
  return plain((text:gsub("+", " ")))
end

-- The value of a parameter, and the path without it.
local function from_query(path, name)
  local before, query = path:match("^([^?]*)%?(.*)$")
  local value, kept = nil, {}
  for pair in (query or ""):gmatch("[^&]+") do
    local key, text = pair:match("^([^=]*)=?(.*)$")
    if unescaped(key) ~= name then
      kept[#kept + 1] = pair
    elseif value == nil then
      value = unescaped(text)
    else
      return false
    end
  end
  return value, before and before .. (#kept > 0 and "?" .. table.concat(kept, "&") or "")
end

-- The name of a cookie as a lenient service may read it: without spaces and quotes.
local function lenient(name)
  return (name:gsub('[%s"]', ""))
end

-- The value of a cookie, and the header without it; false if a service could read another cookie of that name.
local function from_cookie(header, name)
  local value, kept, others = nil, {}, false
  for pair in (header or ""):gmatch("[^;]+") do
    local key, text = pair:match("^%s*([^=]*)=?(.*)$")
    if key ~= name then
      others = others or lenient(key) == name
      kept[#kept + 1] = pair:match("^%s*(.*)$")
    elseif value == nil then
      -- A longer value is no credential, and trimming it could take long.
      value = #text <= LONGEST and (text:match('^"(.*)"%s*$') or text:match("^(.-)%s*$")) or text
    else
      return false
    end
  end
  if value ~= nil and others then
    return false
  end
  return value, table.concat(kept, "; ")
end

-- The words of an Authorization header in lower case, with any separators: Envoy joins several lines by commas.
local function words(value)
  local all = {}
  for word in value:gmatch('[^%s,;"]+') do
    all[#all + 1] = word:lower()
  end
  return all
end

local function base64(text, longest)
  if #text > (longest or LONGEST) or #text % 4 == 1 or not text:match("^[%w+/]*=?=?$") then
    return nil
  end
  local out, bits, count = {}, 0, 0
  for letter in text:gmatch("[%w+/]") do
    local code = letter:byte()
    local value = code >= 97 and code - 71 or code >= 65 and code - 65 or code >= 48 and code + 4
      or code == 43 and 62 or 63
    bits, count = bor(shl(band(bits, 0xffff), 6), value), count + 6
    if count >= 8 then
      count = count - 8
      out[#out + 1] = char(band(shr(bits, count), 255))
    end
  end
  return table.concat(out)
end

-- The claim at the first place that contains one.
local function claim(all, paths)
  for _, path in ipairs(paths) do
    local at = all
    for _, name in ipairs(path) do
      if type(at) == "table" then at = at[name] else at = nil end
    end
    if at ~= nil then
      return at
    end
  end
end

-- A claim as text; nil for a number that Envoy may have rounded, because two callers could have the same text then.
local function text(value)
  if type(value) ~= "number" then
    return tostring(value)
  elseif math.abs(value) >= 2 ^ 53 then
    return nil
  end
  for digits = value == math.floor(value) and 17 or 14, 17 do
    local written = string.format("%." .. digits .. "g", value)
    if tonumber(written) == value then
      return written
    end
  end
end

-- A claim as a header's value, with lists joined by commas; nil if the value would not be one line, or another list.
local function header_value(value)
  local parts = {}
  for _, one in ipairs(type(value) == "table" and value or { value }) do
    local written = type(one) ~= "table" and text(one) or nil
    if written == nil or (type(value) == "table" and written:find(",", 1, true)) then
      return nil
    end
    parts[#parts + 1] = written
  end
  if type(value) == "table" and table.maxn(value) > #parts then
    return nil -- the list contains a null
  end
  local joined = table.concat(parts, ",")
  return #parts > 0 and not joined:find("%c") and joined or nil
end

-- Methods: each returns an identity, or nil and a reason. Reasons that end in _missing found no credential. ----

local TOKEN_FAILURES = {
  { "Jwt is missing", "jwt_missing" },
  { "Jwt is expired", "jwt_expired" },
  { "Jwt not yet valid", "jwt_not_yet_valid" },
  { "Jwt issuer is not configured", "jwt_wrong_issuer" },
  { "Audiences in Jwt are not allowed", "jwt_wrong_audience" },
  { "Jwt verification fails", "jwt_invalid_signature" },
  { "Jwks doesn", "jwt_unknown_key" },
  { "Jwt header [alg] is not supported", "jwt_unsupported_algorithm" },
  { "Jwks", "jwks_unavailable" },
}

-- For an issuer without keys Envoy reports these reasons, although the token may be valid.
local KEY_FAILURES = { jwt_unknown_key = true, jwt_invalid_signature = true }

local function listed(list, name)
  for _, one in ipairs(list or {}) do
    if one == name then
      return true
    end
  end
  return false
end

local function failure_reason(status)
  local message = type(status) == "table" and status.message or nil
  if message == nil then
    return "jwt_missing"
  end
  for _, row in ipairs(TOKEN_FAILURES) do
    if message:sub(1, #row[1]) == row[1] then
      return row[2]
    end
  end
  return "jwt_malformed"
end

local function token_failure(tokens, key, keyless)
  local reason = failure_reason(tokens["failure/" .. key])
  return keyless and KEY_FAILURES[reason] and "jwt_keys_unavailable" or reason
end

local function consumer_of(provider, all)
  for _, named in pairs(claims[provider] or {}) do
    local found = claim(all, named.places)
    for _, one in ipairs(type(found) == "table" and found or { found }) do
      local written = text(one)
      if written ~= nil and named.consumers[written] ~= nil then
        return named.consumers[written]
      end
    end
  end
end

local METHODS = {}

-- True if a place contains two tokens, because an upstream might read another one than Envoy has verified.
local function doubled(rule, headers)
  for _, name in ipairs(rule.query or {}) do
    if from_query(headers:get(":path"), name) == false then
      return true
    end
  end
  for _, name in ipairs(rule.cookies or {}) do
    if headers:getNumValues("cookie") > 1 or from_cookie(headers:get("cookie"), name) == false then
      return true
    end
  end
  return false
end

-- `crit` and the beginning of an escaped letter in base64, by their distance from a multiple of three.
local MARKS = { "Y3Jpd", "NyaX", "jcml0", "XHUwM", "x1MD", "cdTAw" }

-- True if the header of a token in a text has the member `crit`.
local function critical(value)
  for word in (value or ""):gmatch("[%w_.-]+") do
    local encoded, suspect = word:match("^([%w_-]+)%.") or "", false
    for _, mark in ipairs(MARKS) do
      suspect = suspect or encoded:find(mark, 1, true) ~= nil
    end
    local header = suspect and base64(encoded:gsub("-", "+"):gsub("_", "/"), #encoded) or ""
    header = header:gsub("\\u00(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end)
    if header:find('"crit"%s*:') then
      return true
    end
  end
  return false
end

-- Envoy hides null members from scripts, so the script reads the tokens themselves at all places of an issuer.
local function any_critical(headers, names)
  for _, name in ipairs(names.schemes and { "authorization" } or {}) do
    if critical(headers:get(name)) then
      return true
    end
  end
  for _, name in ipairs(names.headers or {}) do
    if critical(headers:get(name)) then
      return true
    end
  end
  for _, name in ipairs(names.query or {}) do
    if critical(from_query(headers:get(":path"), name) or nil) then
      return true
    end
  end
  for _, name in ipairs(names.cookies or {}) do
    if critical(from_cookie(headers:get("cookie"), name) or nil) then
      return true
    end
  end
  return false
end

-- The reason why a token that Envoy has verified is rejected, or nil.
-- Its header may name an extension that must be understood (RFC 7515 section 4.1.11), and Envoy supports none. `skew` is
-- set if Envoy got a larger tolerance, because it has only whole seconds and at least one.
local function unacceptable(handle, tokens, key, skew, names)
  local header, all = tokens["header/" .. key], tokens[key]
  if (header ~= nil and header.crit ~= nil) or any_critical(handle:headers(), names) then
    return "jwt_unsupported_extension"
  elseif skew ~= nil then
    local now = tonumber(handle:timestamp(EnvoyTimestampResolution.MILLISECOND)) / 1000
    if type(all.exp) == "number" and now >= all.exp + skew then
      return "jwt_expired"
    elseif type(all.nbf) == "number" and now + skew < all.nbf then
      return "jwt_not_yet_valid"
    end
  end
end

function METHODS.jwt(rule, handle)
  if doubled(rule, handle:headers()) then
    return nil, "jwt_malformed"
  end
  local tokens = handle:streamInfo():dynamicMetadata():get(TOKENS) or {}
  local reason, found = "jwt_missing", nil
  local names = {}
  for _, one in ipairs(rule.places) do
    names[one.provider] = one.names
  end
  for _, provider in ipairs(rule.providers) do
    local all = tokens[provider]
    local why_not = all ~= nil
      and unacceptable(handle, tokens, provider, tonumber(rule.skews[provider]), names[provider]) or nil
    if why_not ~= nil then
      return nil, why_not
    elseif all ~= nil then
      found = found or {
        consumer = consumer_of(provider, all), claims = all, provider = provider,
      }
      if not rule.every then
        return found
      end
    else
      local why = token_failure(tokens, provider, listed(rule.keyless, provider))
      if why ~= "jwt_missing" or rule.every then
        reason = why
        if rule.every then
          return nil, reason
        end
      end
    end
  end
  if found ~= nil then
    return found
  end
  return nil, reason
end

-- The identity token of a browser's session, which Envoy keeps in cookies. Upstreams do not need these cookies.
function METHODS.oidc(rule, handle)
  for _, name in ipairs(rule.unless) do
    if (handle:headers():get(name) or "") ~= "" then
      return nil, "oidc_missing" -- the oauth2 filter did not process the request, so its cookies prove no session
    end
  end
  local tokens = handle:streamInfo():dynamicMetadata():get(TOKENS) or {}
  local all = tokens[rule.key]
  if all == nil then
    local reason = token_failure(tokens, rule.key, listed(rule.keyless, rule.provider))
    return nil, (reason == "jwt_missing" or reason == "jwt_expired") and "oidc_expired" or reason
  end
  local why_not = unacceptable(handle, tokens, rule.key, tonumber(rule.skews[rule.provider]), rule)
  if why_not ~= nil then
    return nil, why_not == "jwt_expired" and "oidc_expired" or why_not
  end
  return { consumer = consumer_of(rule.provider, all), claims = all, provider = rule.provider }
end

-- The key, the kind of its place and the place's name; false for the key if the place contains two.
local function api_key(rule, headers)
  for _, name in ipairs(rule.headers) do
    local value = headers:get(name)
    if value ~= nil and value ~= "" then
      return value, "headers", name
    end
  end
  for _, name in ipairs(rule.query) do
    local value = from_query(headers:get(":path"), name)
    if value ~= nil then
      return value, "query", name
    end
  end
  for _, name in ipairs(rule.cookies) do
    local value = from_cookie(headers:get("cookie"), name)
    if value ~= nil then
      return value, "cookies", name
    end
  end
end

function METHODS.api_key(rule, handle)
  local headers = handle:headers()
  local value, place, name = api_key(rule, headers)
  if value == nil or value == "" then
    return nil, "api_key_missing"
  elseif value == false or (place == "headers" and value:find(",", 1, true) and headers:getNumValues(name) > 1) then
    return nil, "api_key_malformed"
  elseif #value > LONGEST then
    return nil, "api_key_unknown"
  end
  local consumer, last_second, answer
  if rule.elsewhere then
    -- Envoy called the policy server before this script. The metadata is missing if the policy server did not answer.
    answer = (handle:streamInfo():dynamicMetadata():get(POLICY_SERVER) or {}).api_key
    if answer == nil then
      return nil, "identity_unavailable"
    elseif answer.consumer ~= nil then
      if answer.subscriber then
        consumer = { name = answer.consumer, plan = answer.plan, subscriber = true }
      else
        consumer = by_name[answer.consumer] or { name = answer.consumer, plan = answer.plan }
      end
      last_second = answer.not_after
    end
  else
    -- The time of a lookup by hash reveals nothing, because a client that does not know the key cannot choose the hash.
    local hash = sha256(value)
    consumer, last_second = keys[hash], last_seconds[hash]
  end
  if consumer == nil then
    return nil, "api_key_unknown"
  elseif last_second ~= nil and os.time() > last_second then
    return nil, "api_key_expired"
  elseif consumer.subscriber and not answer.covered then
    return nil, "api_not_subscribed"
  end
  return { consumer = consumer, place = place, name = name }
end

local function matches(hash, password)
  local kind, digest = hash:match("^(%w+):(.*)$")
  return (kind == "sha256" and sha256(password) == digest) or (kind == "sha1" and sha1(password) == digest)
end

function METHODS.basic_auth(rule, handle)
  local headers = handle:headers()
  local header = headers:get("authorization") or ""
  local scheme, encoded = header:match("^(%a+) +(.*)$")
  if not listed(words(header), "basic") then
    return nil, "basic_auth_missing"
  elseif scheme == nil or scheme:lower() ~= "basic" or headers:getNumValues("authorization") > 1 then
    return nil, "basic_auth_malformed"
  end
  local name, password = (base64(encoded) or ""):match("^([^:]*):(.*)$")
  if name == nil then
    return nil, "basic_auth_malformed"
  end
  local found
  for _, list in ipairs(rule.lists) do
    found = found or (users[list] or {})[name]
  end
  local right
  if rule.elsewhere and (found == nil or found.hash == SLOW) then
    -- Unknown names need the answer too. Else a client could detect known names while the policy server is down.
    local answer = (handle:streamInfo():dynamicMetadata():get(POLICY_SERVER) or {}).password
    if answer == nil then
      return nil, "identity_unavailable"
    end
    right = answer.user == name
  else
    right = matches(found and found.hash or "sha256:", password)
  end
  if not right or found == nil then
    return nil, "basic_auth_wrong"
  end
  return { consumer = found.consumer, user = name }
end

function METHODS.mtls(rule, handle)
  local connection = handle:streamInfo():downstreamSslConnection()
  if connection == nil or not connection:peerCertificatePresented() then
    return nil, "certificate_missing"
  elseif not connection:peerCertificateValidated() then
    return nil, "certificate_unknown"
  end
  -- An authority may be allowed names of one kind only, so a URI never matches a DNS name, nor the other way round.
  for at, names in ipairs({ connection:uriSanPeerCertificate(), connection:dnsSansPeerCertificate() }) do
    for _, name in ipairs(names) do
      if certificates[name] ~= nil and (name:find(":", 1, true) ~= nil) == (at == 1) then
        return { consumer = certificates[name] }
      end
    end
  end
  if rule.consumers_only then
    return nil, "certificate_unknown"
  end
  return {}
end

-- Decisions --------------------------------------------------------------------------------------------------

local function missing(reason)
  return reason:sub(-8) == "_missing"
end

-- One identity with its method; or nil and the reason, which is nil if no credential is required.
local function any_of(rule, handle)
  local rejection
  for _, method in ipairs(rule.methods) do
    local found, reason = METHODS[method](rule[method], handle)
    if found ~= nil then
      found.method = method
      return found
    end
    if not missing(reason) then
      rejection = rejection or reason
    elseif #rule.methods == 1 and not rule.optional then
      rejection = reason
    end
  end
  if rejection == nil and not rule.optional then
    rejection = "credentials_missing"
  end
  return nil, rejection
end

local function all_of(rule, handle)
  local all = { parts = {}, method = table.concat(rule.methods, "+") }
  for _, method in ipairs(rule.methods) do
    local found, reason = METHODS[method](rule[method], handle)
    if found == nil then
      return nil, reason
    end
    if all.consumer ~= nil and found.consumer ~= nil and all.consumer ~= found.consumer then
      return nil, "consumers_differ"
    end
    all.consumer, all.claims = all.consumer or found.consumer, all.claims or found.claims
    all.provider, all.user = all.provider or found.provider, all.user or found.user
    found.method = method
    all.parts[#all.parts + 1] = found
  end
  return all
end

local UNUSABLE = "\tunusable"
local reported = {}

-- The claims that limits count by, as texts like those of claim headers. A claim without such a text differs from an
-- absent one, and is logged once for each claim.
local function counted(handle, all, names)
  local values = {}
  for name, where in pairs(names) do
    local value = claim(all, where)
    if value ~= nil then
      values[name] = header_value(value) or UNUSABLE
      if values[name] == UNUSABLE and not reported[name] then
        reported[name] = true
        handle:logErr("claim is not a text, number, flag or list of them; callers with such values share a counter claim=" .. name)
      end
    end
  end
  return values
end

local function write_identity(handle, found, names)
  local metadata, headers = handle:streamInfo():dynamicMetadata(), handle:headers()
  metadata:set(NAMESPACE, "method", found.method)
  if found.consumer ~= nil then
    metadata:set(NAMESPACE, "consumer", found.consumer.name)
    if SERIES_UNTIL ~= nil then
      metadata:set(NAMESPACE, "series", not found.consumer.subscriber and found.consumer.name <= SERIES_UNTIL and found.consumer.name or "other")
    end
    headers:replace(CONSUMER_HEADER, found.consumer.name)
    if found.consumer.plan ~= nil then
      metadata:set(NAMESPACE, "plan", found.consumer.plan)
      headers:replace(PLAN_HEADER, found.consumer.plan)
    end
  end
  if found.claims ~= nil then
    metadata:set(NAMESPACE, "claims", found.claims)
    metadata:set(NAMESPACE, "provider", found.provider)
    if names ~= nil then
      metadata:set(NAMESPACE, "counted", counted(handle, found.claims, names))
    end
    for _, row in ipairs(claim_headers[found.provider] or {}) do
      local value = header_value(claim(found.claims, row.places))
      if value ~= nil then
        headers:replace(row.header, value)
      end
    end
  end
  if found.user ~= nil then
    metadata:set(NAMESPACE, "user", found.user)
  end
end

-- Removal of credentials --------------------------------------------------------------------------------------

-- A set of places: headers, parameters, cookies, and schemes of authorization, each by name.
local function no_places()
  return { headers = {}, query = {}, cookies = {}, schemes = {} }
end

local function put(set, names)
  for _, name in ipairs(names or {}) do
    set[name] = true
  end
end

-- Each method adds its places to those that are `gone`, or to those that are `kept`: only verified credentials are
-- forwarded. `part` is the identity that the method found; nil if it failed or was not tried.
local PLACES = {
  oidc = function(rule, part, gone, kept)
    put(gone.cookies, rule.cookies)
    kept.schemes.bearer = part ~= nil and rule.forward or nil
  end,
  mtls = function() end,
  jwt = function(rule, _, gone, kept, tokens, handle)
    for _, one in ipairs(rule.places) do
      local verified = tokens[one.provider] ~= nil
        and unacceptable(handle, tokens, one.provider, tonumber(rule.skews[one.provider]), one.names) == nil
      local set = one.forward and verified and kept or gone
      for kind, names in pairs(one.names) do
        put(set[kind], names)
      end
    end
  end,
  api_key = function(rule, part, gone, kept)
    for _, kind in ipairs({ "headers", "query", "cookies" }) do
      put(gone[kind], rule[kind])
    end
    if part ~= nil and rule.forward then
      kept[part.place][part.name] = true
    end
  end,
  basic_auth = function(rule, part, gone, kept)
    (part ~= nil and rule.forward and kept or gone).schemes.basic = true
  end,
}

local function without_query(path, gone)
  local before, query = path:match("^([^?]*)%?(.*)$")
  local kept, all = {}, true
  for pair in (query or ""):gmatch("[^&]+") do
    if gone[unescaped(pair:match("^[^=]*"))] then
      all = false
    else
      kept[#kept + 1] = pair
    end
  end
  return all and path or before .. (#kept > 0 and "?" .. table.concat(kept, "&") or "")
end

-- The values of a header, one for each line.
local function lines(headers, name)
  local all = {}
  for at = 0, headers:getNumValues(name) - 1 do
    all[#all + 1] = headers:getAtIndex(name, at)
  end
  return all
end

local function set_lines(headers, name, values)
  headers:remove(name)
  for _, value in ipairs(values) do
    headers:add(name, value)
  end
end

-- Envoy and this script have verified only cookies in the usual spelling, so others go even if their name is `kept`.
local function remove_cookies(headers, gone, kept)
  local left, all = {}, true
  for _, line in ipairs(lines(headers, "cookie")) do
    for pair in line:gmatch("[^;]+") do
      local cookie = pair:match("^%s*(.*)$")
      local name = cookie:match("^([^=]*)")
      local read = lenient(name)
      if gone[read] or (kept[read] and read ~= name) then
        all = false
      else
        left[#left + 1] = cookie
      end
    end
  end
  if not all then
    set_lines(headers, "cookie", #left > 0 and { table.concat(left, "; ") } or {})
  end
end

-- `whole` is true if the header contains a credential without a scheme. The header stays if none of its words is a
-- scheme of the route, or if it is one verified credential and nothing else.
local function remove_authorization(headers, gone, kept, whole)
  local value, schemes = table.concat(lines(headers, "authorization"), ","), 0
  local all = words(value)
  for _, word in ipairs(all) do
    if gone[word] or kept[word] then
      schemes = schemes + 1
    end
  end
  local verified = #all == 2 and schemes == 1 and kept[all[1]] and not value:find("[,;\"\t]")
  if not verified and (whole or schemes > 0) then
    headers:remove("authorization")
  end
end

-- The removal of a route's credentials, except verified ones that are forwarded.
local function removal(rule, found, tokens, handle)
  local gone, kept, parts = no_places(), no_places(), {}
  for _, part in ipairs(found ~= nil and (found.parts or { found }) or {}) do
    parts[part.method] = part
  end
  for _, method in ipairs(rule.methods) do
    PLACES[method](rule[method], parts[method], gone, kept, tokens, handle)
  end
  local headers = {}
  for kind, names in pairs(gone) do
    for name in pairs(names) do
      if kept[kind][name] then
        names[name] = nil
      elseif kind == "headers" and name ~= "authorization" then
        headers[#headers + 1] = name
      end
    end
  end
  return {
    headers = headers,
    authorization = gone.headers.authorization or next(gone.schemes) ~= nil or next(kept.schemes) ~= nil,
    query = next(gone.query) ~= nil,
    cookies = next(gone.cookies) ~= nil or next(kept.cookies) ~= nil,
    gone = gone,
    kept = kept,
  }
end

-- True if the route forwards no credential, so that the removal is the same for all of its requests.
local function forwards_nothing(rule)
  for _, method in ipairs(rule.methods) do
    if rule[method].forward then
      return false
    end
  end
  for _, one in ipairs(rule.jwt ~= nil and rule.jwt.places or {}) do
    if one.forward then
      return false
    end
  end
  return true
end

local removals = {} -- by rule, if it forwards nothing

local function remove_credentials(rule, found, handle)
  local headers, all = handle:headers(), removals[rule]
  if all == nil then
    local tokens = handle:streamInfo():dynamicMetadata():get(TOKENS) or {}
    all = removal(rule, found, tokens, handle)
  end
  for _, name in ipairs(all.headers) do
    headers:remove(name)
  end
  if all.authorization then
    remove_authorization(headers, all.gone.schemes, all.kept.schemes, all.gone.headers.authorization)
  end
  if all.query then
    local path = headers:get(":path")
    local rest = without_query(path, all.gone.query)
    if rest ~= path then
      headers:replace(":path", rest)
    end
  end
  if all.cookies then
    remove_cookies(headers, all.gone.cookies, all.kept.cookies)
  end
end

local cached = {}

local function rule_of(handle)
  local written = handle:filterContext():get("rule")
  local rule = cached[written]
  if rule == nil then
    rule = assert(loadstring("return " .. written))()
    for name, where in pairs(rule.counted or {}) do
      rule.counted[name] = places(where)
    end
    if forwards_nothing(rule) then
      removals[rule] = removal(rule, nil, {})
    end
    cached[written] = rule
  end
  return rule
end

local SCRIPTS = { cors = true, ["same-origin"] = true, websocket = true }

-- The renewal of a browser's session whose identity token has expired: the cookies to set, or nil to reject.
-- The session is refreshed first, then begun again. A cookie records the attempts.
local function renewal(rule, headers)
  local method = headers:get(":method")
  if (method ~= "GET" and method ~= "HEAD") or SCRIPTS[headers:get("sec-fetch-mode") or ""]
    or (headers:get("x-requested-with") or ""):lower() == "xmlhttprequest" then
    return nil
  end
  local tried = from_cookie(headers:get("cookie"), rule.again)
  if tried ~= nil and tried ~= "refresh" then
    return nil
  end
  local attributes = "; Path=/; Secure; HttpOnly; SameSite=Lax" .. (rule.domain and "; Domain=" .. rule.domain or "")
  local set = { rule.again .. "=" .. (tried == nil and "refresh" or "login") .. "; Max-Age=60" .. attributes }
  for _, name in ipairs(rule.cookies) do
    if name ~= rule.again and (tried ~= nil or name ~= rule.refresh) then
      set[#set + 1] = name .. "=; Max-Age=0" .. attributes
    end
  end
  return set
end

-- A rejected token has another challenge than a missing one (RFC 6750 section 3).
local function challenges(rule, reason)
  if reason:sub(1, 4) ~= "jwt_" or missing(reason) then
    return rule.challenges
  end
  local all = {}
  for number, challenge in ipairs(rule.challenges) do
    all[number] = challenge:sub(1, 7) == "Bearer " and challenge .. ', error="invalid_token"' or challenge
  end
  return all
end

-- The reason of a rejection, or nil; the limits that the policy server decided with the key, if they reject; and the
-- cookies with which a browser tries again instead.
local function decide(handle)
  local rule = rule_of(handle)
  local found, reason = (rule.every and all_of or any_of)(rule, handle)
  local cookies = reason == "oidc_expired" and renewal(rule.oidc, handle:headers()) or nil
  if cookies ~= nil then
    return reason, nil, cookies
  end
  remove_credentials(rule, found, handle) -- also for a rejected request, because the access log contains it
  if found ~= nil then
    write_identity(handle, found, rule.counted)
    if rule.limits then
      local limits = (handle:streamInfo():dynamicMetadata():get(POLICY_SERVER) or {}).limits
      return limits and limits.reason, limits
    end
  end
  return reason
end

function envoy_on_request(handle)
  local decided, reason, limits, cookies = pcall(decide, handle)
  -- Envoy lets a request pass if a script fails, so an error must not leave this function.
  if not decided then
    pcall(function() remove_credentials(rule_of(handle), nil, handle) end)
    handle:logErr("identity script failed; the request is rejected error=" .. tostring(reason))
    handle:streamInfo():dynamicMetadata():set(NAMESPACE, "failure", "identity_failed")
    handle:respond({ [":status"] = "500" }, "")
    return
  end
  if cookies ~= nil then
    local headers = handle:headers()
    local here = headers:get("x-forwarded-proto") .. "://" .. headers:get(":authority") .. headers:get(":path")
    handle:respond({ [":status"] = "302", location = here, ["set-cookie"] = cookies, ["cache-control"] = "no-store" }, "")
  elseif limits ~= nil then
    handle:streamInfo():dynamicMetadata():set(NAMESPACE, "failure", reason)
    local status = reason:sub(-12) == "_unavailable" and "503" or "429"
    handle:respond({ [":status"] = status, ["content-type"] = "application/problem+json" }, limits.body)
  elseif reason ~= nil then
    handle:streamInfo():dynamicMetadata():set(NAMESPACE, "failure", reason)
    local status = reason:sub(-12) == "_unavailable" and "503" or "401"
    local response = { [":status"] = status, ["www-authenticate"] = challenges(rule_of(handle), reason) }
    if reason:sub(-11) == "_subscribed" then -- the key is right, so another one would not help
      response = { [":status"] = "403" }
    end
    handle:respond(response, "")
  end
end
