-- A cache of responses in each worker (RFC 9111), before the router: every other policy of the route runs for hits as well.
-- The filter context of a route contains its rule. grpc_call.lua and request_values.lua come before
-- this code.
--
-- The policy server is the second level: it knows the responses that other workers have stored, lets concurrent misses wait
-- for one another, and tells what was purged. Without it the cache of a worker goes on by itself.

-- Responses of a worker -------------------------------------------------------------------------------------------------

-- Two generations: if the young one is full, it becomes the old one, and the old one is forgotten. A hit makes an entry
-- young again. So the entries used last stay, and both together have at most LIMIT bytes.
local young, old, young_bytes = {}, {}, 0
-- The keys of the entries of each URL, by generation.
local young_urls, old_urls = {}, {}
-- The names of the request headers that select among the responses to a request, by its key. `names_known` are bytes.
local young_names, old_names, names_known = {}, {}, 0

local function put(key, entry)
  if young[key] ~= nil then
    young_bytes = young_bytes - young[key].size - #key
  end
  if young_bytes + entry.size + #key > LIMIT / 2 then
    young, old, young_bytes = {}, young, 0
    young_urls, old_urls = {}, young_urls
  end
  young_urls[entry.url] = young_urls[entry.url] or {}
  young_urls[entry.url][key] = true
  young[key], young_bytes = entry, young_bytes + entry.size + #key
end

local function find(key)
  local entry = young[key]
  if entry == nil and old[key] ~= nil then
    entry, old[key] = old[key], nil
    put(key, entry)
  end
  return entry
end

local function names_of(key)
  local names = young_names[key]
  if names == nil then
    names = old_names[key]
    if names ~= nil then
      young_names[key] = names
    end
  end
  return names
end

local function learn(key, names)
  if names_known >= LIMIT / 16 then
    young_names, old_names, names_known = {}, young_names, 0
  end
  if young_names[key] == nil then
    names_known = names_known + #key + 128
  end
  young_names[key] = names
end

local function clear()
  young, old, young_bytes = {}, {}, 0
  young_urls, old_urls = {}, {}
  young_names, old_names, names_known = {}, {}, 0
end

-- Purges ------------------------------------------------------------------------------------------------------------------

local MATCHES = {
  [1] = function(entry, value) return entry.url == value end,
  [2] = function(entry, value) return sub(entry.url, 1, #value) == value end,
  [3] = function(entry, value) return entry.tags[value] ~= nil end,
}

local function remove(generation, urls, key)
  local entry = generation[key]
  if entry ~= nil then
    generation[key] = nil
    young_bytes = generation == young and young_bytes - entry.size - #key or young_bytes
    local keys = urls[entry.url]
    if keys ~= nil then
      keys[key] = nil
      urls[entry.url] = next(keys) ~= nil and keys or nil
    end
  end
end

local function purge(kind, value)
  if MATCHES[kind] == nil then
    return clear()
  end
  for generation, urls in pairs({ [young] = young_urls, [old] = old_urls }) do
    if kind == 1 then
      for key in pairs(urls[value] or {}) do
        remove(generation, urls, key)
      end
    else
      for key, entry in pairs(generation) do
        if MATCHES[kind](entry, value) then
          remove(generation, urls, key)
        end
      end
    end
  end
end

local asked, epoch, version = 0, "", 0
-- The last purges that this worker has learned of, by their number. A response that was asked for before is not stored.
local recent, last_recent = {}, 0

local function remember_purge(kind, value)
  last_recent = last_recent + 1
  recent[last_recent], recent[last_recent - MOST_PURGES] = { kind = kind, value = value }, nil
end

-- True if an entry was purged after the purge with this number, or nobody knows any more.
local function purged_since(entry, number)
  for at = number + 1, last_recent do
    local one = recent[at]
    if one == nil or MATCHES[one.kind] == nil or MATCHES[one.kind](entry, one.value) then
      return true
    end
  end
  return false
end

-- Applies the purges since the last call. One request in each interval waits for it. Returns true if it waited.
local function synchronize(handle, now)
  if now - asked < INTERVAL then
    return false
  end
  asked = now
  local answer = call(handle, CLUSTER, CHANGES, field(1, epoch) .. char(16) .. varint(version), TIMEOUT)
  if answer == nil then
    return true
  end
  local known, purges = epoch, {}
  each_field(answer, function(number, value)
    if number == 1 then
      epoch = value
    elseif number == 2 then
      version = value
    elseif number == 3 then
      local one = { kind = 0, value = "" }
      each_field(value, function(inner, content)
        if inner == 1 then one.kind = content else one.value = content end
      end)
      purges[#purges + 1] = one
    end
  end)
  if epoch ~= known then
    clear()
  end
  for _, one in ipairs(purges) do
    purge(one.kind, one.value)
    remember_purge(one.kind, one.value)
  end
  return true
end

-- Headers -----------------------------------------------------------------------------------------------------------------

-- The directives of Cache-Control (RFC 9111 section 5.2), in lower case. A directive without a value is true. One that is
-- written twice with different values has the smaller one.
local function directives(written)
  local found = {}
  for one in (written or ""):gmatch("[^,]+") do
    local name, value = one:match("^%s*([%w_-]+)%s*=%s*\"?([^\"]*)\"?%s*$")
    if name == nil then
      name = one:match("^%s*([%w_-]+)%s*$")
      value = true
    end
    if name == nil then
      found.malformed = found.malformed or one:find("%S") ~= nil or nil
    else
      name = name:lower()
      local number = value ~= true and tonumber(value:match("^%d+$")) or nil
      if found[name] ~= nil and number ~= nil and type(found[name]) == "number" then
        number = min(number, found[name])
      end
      found[name] = number or value
    end
  end
  return found
end

local MONTHS = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12 }

-- Seconds since 1970 of a date (RFC 9110 section 5.6.7), nil for another text.
local function seconds_of(date)
  local day, name, year, hour, minute, second = (date or ""):match("^%a+, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$")
  local month = MONTHS[name]
  if month == nil then
    return nil
  end
  year, day = tonumber(year), tonumber(day)
  local shifted = month <= 2 and year - 1 or year
  local era = floor(shifted / 400)
  local of_era = shifted - era * 400
  local of_year = floor((153 * (month + (month > 2 and -3 or 9)) + 2) / 5) + day - 1
  local days = era * 146097 + of_era * 365 + floor(of_era / 4) - floor(of_era / 100) + of_year - 719468
  return days * 86400 + hour * 3600 + minute * 60 + second
end

local function weak(tag)
  return (tag:gsub("^W/", ""))
end

local function any_tag(written, tag)
  if written:match("^%s*%*%s*$") then
    return true
  end
  for one in written:gmatch('W?/?"[^"]*"') do
    if weak(one) == weak(tag) then
      return true
    end
  end
  return false
end

-- What the client has already.
local function conditions(headers)
  local since = headers:get("if-modified-since")
  return { tags = whole_header(headers, "if-none-match"), since = since ~= nil and seconds_of(since) or nil }
end

-- True if the client has this response already (RFC 9110 sections 13.2.1 and 13.2.2).
local function unchanged(known, entry)
  if entry.status < 200 or entry.status > 299 then
    return false
  elseif known.tags ~= nil then
    return entry.etag ~= nil and any_tag(known.tags, entry.etag)
  end
  return known.since ~= nil and entry.modified ~= nil and entry.modified <= known.since
end

-- Requests ----------------------------------------------------------------------------------------------------------------

-- The caller as all parts of its identity tell it: two users of one consumer are two callers. nil if nobody is identified,
-- or a token does not say whose it is.
local function caller(identity)
  local parts = {}
  for _, name in ipairs({ "consumer", "user", "provider" }) do
    local value = identity[name]
    parts[#parts + 1] = type(value) == "string" and #value .. ":" .. value or "-"
  end
  if identity.claims ~= nil then
    local subject = identity.claims.sub
    if type(subject) ~= "string" then
      return nil
    end
    parts[#parts + 1] = subject
  elseif identity.consumer == nil and identity.user == nil then
    return nil
  end
  return table.concat(parts, ",")
end

-- A value of an identity as text. Two values that differ have texts that differ.
local function written(value)
  if type(value) ~= "table" then
    local text = tostring(value)
    return type(value):sub(1, 1) .. #text .. ":" .. text
  end
  local parts = {}
  for key, one in pairs(value) do
    parts[#parts + 1] = written(key) .. written(one)
  end
  table.sort(parts)
  return "{" .. table.concat(parts) .. "}"
end

-- All that is known of the caller, without some claims.
local function whole_caller(identity, but)
  local claims = {}
  for name, value in pairs(identity.claims or {}) do
    if not but[name] then
      claims[name] = value
    end
  end
  return sha256(written(identity.plan) .. written(claims))
end

-- What the response belongs to: a caller, a claim and so on. nil if the request has no such value, so that nothing is shared.
local function owner(handle, rule)
  if #rule.by == 0 then
    return ""
  end
  local values = {}
  for number, by in ipairs(rule.by) do
    local value
    if by.kind == "header" then
      value = whole_header(handle:headers(), by.name)
    else
      local identity = identity_of(handle)
      if by.kind == "caller" then
        value = caller(identity)
        if value ~= nil and by.but ~= nil then
          value = value .. "," .. whole_caller(identity, by.but)
        end
      elseif by.kind == "claim" then
        value = claim_of(identity, by.paths)
      else
        value = identity[by.kind]
      end
    end
    if type(value) ~= "string" then
      return nil
    end
    values[number] = #value .. ":" .. value
  end
  return table.concat(values, ",")
end

local function secondary(headers, names)
  local values = {}
  for number, name in ipairs(names) do
    local value = whole_header(headers, name)
    values[number] = name .. "=" .. (value ~= nil and #value .. ":" .. value or "-")
  end
  return table.concat(values, ",")
end

local function age_of(entry, now)
  return floor((now - entry.born) / 1000)
end

local function status_of(parts)
  return "gateway; " .. parts
end

-- The headers of an answer as Envoy takes them. `age` and `cache-status` are set for each request.
local function answer_of(entry, same)
  local answer = { [":status"] = same and "304" or tostring(entry.status) }
  for name, values in pairs(entry.headers) do
    if not (same and NOT_IN_304[name]) then
      answer[name] = #values == 1 and values[1] or values
    end
  end
  return answer
end

local function serve(handle, entry, now)
  local headers = handle:headers()
  local asks = headers:get("if-none-match") ~= nil or headers:get("if-modified-since") ~= nil
  local same = asks and unchanged(conditions(headers), entry)
  local answer = same and answer_of(entry, true) or entry.answer
  if answer == nil then
    answer = answer_of(entry, false)
    entry.answer = answer
  end
  answer["age"] = tostring(max(0, age_of(entry, now)))
  answer["cache-status"] = "gateway; hit; ttl=" .. floor((entry.fresh - (now - entry.born)) / 1000)
  handle:streamInfo():dynamicMetadata():set(NAMESPACE, "hit", "true")
  handle:respond(answer, same and "" or entry.body)
end

-- Entries between workers -------------------------------------------------------------------------------------------------

local function packed(entry)
  local out = { char(8), varint(entry.status), char(16), varint(entry.born), char(24), varint(entry.fresh),
    char(32), varint(entry.stale), char(40), varint(entry.stale_if_error), field(6, entry.url), field(7, entry.body) }
  for name, values in pairs(entry.headers) do
    for _, value in ipairs(values) do
      out[#out + 1] = field(8, field(1, name) .. field(2, value))
    end
  end
  for tag in pairs(entry.tags) do
    out[#out + 1] = field(9, tag)
  end
  return table.concat(out)
end

local function complete(entry)
  entry.etag = entry.headers.etag ~= nil and entry.headers.etag[1] or nil
  entry.modified = seconds_of(entry.headers["last-modified"] ~= nil and entry.headers["last-modified"][1] or nil)
  entry.size = #entry.body + #entry.url + 512
  for name, values in pairs(entry.headers) do
    for _, value in ipairs(values) do
      entry.size = entry.size + #name + #value + 64
    end
  end
  return entry
end

local function unpacked(text)
  local entry = { headers = {}, tags = {}, body = "", url = "", status = 200, born = 0, fresh = 0, stale = 0, stale_if_error = 0 }
  local fields = { "status", "born", "fresh", "stale", "stale_if_error", "url", "body" }
  each_field(text, function(number, value)
    if fields[number] ~= nil then
      entry[fields[number]] = value
    elseif number == 8 then
      local name, content = "", ""
      each_field(value, function(inner, one)
        if inner == 1 then name = one else content = one end
      end)
      entry.headers[name] = entry.headers[name] or {}
      table.insert(entry.headers[name], content)
    elseif number == 9 then
      entry.tags[value] = true
    end
  end)
  return complete(entry)
end

-- What a response needs to know of its request ----------------------------------------------------------------------------

-- Requests that were forwarded, by a number in their metadata that is never used twice. Envoy does not tell the script about
-- requests that end without a response, so the oldest are forgotten. `held` are the bytes of the entries that they revalidate.
local forwarded, first_number, last_number, held = {}, 1, 0, 0

local function taken(number)
  local known = forwarded[number]
  forwarded[number] = nil
  if known ~= nil and known.entry ~= nil then
    held = held - known.entry.size
  end
  return known
end

local function remember(handle, known, now)
  known.at = now
  last_number = last_number + 1
  forwarded[last_number] = known
  while first_number < last_number do
    local oldest = forwarded[first_number]
    if oldest ~= nil and last_number - first_number < WAITING and now - oldest.at < FORGOTTEN then
      break
    end
    taken(first_number)
    first_number = first_number + 1
  end
  handle:streamInfo():dynamicMetadata():set(NAMESPACE, "number", last_number)
end

-- Request headers whose values are kept, because the response may vary by them.
local function candidates(headers, rule, names)
  local values = {}
  for _, list in ipairs({ rule.vary, names or {}, USUAL }) do
    for _, name in ipairs(list) do
      values[name] = whole_header(headers, name) or false
    end
  end
  return values
end

local function question(key, values, only)
  local out = { field(1, key), only and char(24) .. char(1) or "" }
  for name, value in pairs(values) do
    out[#out + 1] = field(2, field(1, name) .. (value and field(2, value) or ""))
  end
  return table.concat(out)
end

local FOUND, FETCH, WAIT = 1, 2, 3

-- Asks the second level. Returns FOUND with an entry and its names, or FETCH.
local function look_up(handle, key, values, only)
  local asked_again = false
  while true do
    local method, timeout = LOOKUP, TIMEOUT
    if asked_again then
      method, timeout = AWAIT, LONGEST
    end
    local answer = call(handle, CLUSTER, method, question(key, values, only), timeout)
    if answer == nil then
      return FETCH
    end
    local state, text, names = FETCH, "", {}
    each_field(answer, function(number, value)
      if number == 1 then
        state = value
      elseif number == 2 then
        text = value
      elseif number == 3 then
        names[#names + 1] = value
      end
    end)
    if state == FOUND then
      return FOUND, unpacked(text), names
    elseif state ~= WAIT or asked_again or only then
      return FETCH, nil, nil, asked_again
    end
    asked_again = true
  end
end

local function forward(handle, known, reason, entry)
  local headers = handle:headers()
  for _, name in ipairs({ "if-none-match", "if-modified-since", "if-match", "if-unmodified-since" }) do
    headers:remove(name)
  end
  known.status = "fwd=" .. reason
  if entry ~= nil and held + entry.size <= LIMIT / 4 then
    known.entry, held = entry, held + entry.size
    if entry.etag ~= nil then
      headers:replace("if-none-match", entry.etag)
    elseif entry.headers["last-modified"] ~= nil then
      headers:replace("if-modified-since", entry.headers["last-modified"][1])
    end
  end
  remember(handle, known, known.asked)
end

local function not_cached(handle)
  handle:streamInfo():dynamicMetadata():set(NAMESPACE, "failure", "not_cached")
  handle:respond({ [":status"] = "504" }, "")
end

local function bypass(handle, asked_for)
  if asked_for["only-if-cached"] ~= nil then
    return not_cached(handle)
  end
  remember(handle, { status = "fwd=bypass" }, tonumber(handle:timestamp()))
end

-- How a stored response may be used now: "fresh", "stale" while another request revalidates it, or nil.
local function usable(entry, now, asked_for)
  local age = now - entry.born
  local left = entry.fresh - age
  if type(asked_for["max-age"]) == "number" and age > asked_for["max-age"] * 1000 then
    return nil
  elseif type(asked_for["min-fresh"]) == "number" and left < asked_for["min-fresh"] * 1000 then
    return nil
  elseif left > 0 then
    return "fresh"
  elseif left + entry.stale > 0 then
    if entry.renewed == nil or now - entry.renewed > LONGEST then
      entry.renewed = now
      return nil -- this request revalidates it
    end
    return "stale"
  end
end

local DEFAULT_PORTS = { http = ":80", https = ":443" }

-- The hosts of some requests, as they are in keys.
local hosts, hosts_known = {}, 0

-- The host in lower case, without the port of its scheme and without a dot at its end: all these names mean the same.
local function host_of(headers, scheme)
  local written = headers:get(":authority")
  local place = scheme .. ":" .. written
  local host = hosts[place]
  if host == nil then
    local port = DEFAULT_PORTS[scheme]
    host = written:lower()
    if port ~= nil and sub(host, -#port) == port then
      host = sub(host, 1, -#port - 1)
    end
    host = host:gsub("%.$", ""):gsub("%.:", ":")
    if hosts_known >= MOST_HOSTS then
      hosts, hosts_known = {}, 0
    end
    hosts[place], hosts_known = host, hosts_known + 1
  end
  return host
end

local NOTHING_ASKED = {}

local function request(handle)
  local rule, headers = rule_of(handle), handle:headers()
  local method, scheme = headers:get(":method"), headers:get("x-forwarded-proto") or headers:get(":scheme") or "http"
  local url = host_of(headers, scheme) .. headers:get(":path")
  if not rule.methods[method] then
    return remember(handle, { status = "fwd=method", changes = UNSAFE[method] and url or nil }, tonumber(handle:timestamp()))
  end
  local asked_for = NOTHING_ASKED
  if rule.obey and headers:get("cache-control") ~= nil then
    asked_for = directives(whole_header(headers, "cache-control"))
  elseif rule.obey and headers:get("pragma") == "no-cache" then
    asked_for = { ["no-cache"] = true }
  end
  local length = headers:get("content-length")
  if length == nil then
    local body = handle:body() -- nil if the request has none
    if body ~= nil then
      length, headers = tostring(body:length()), handle:headers()
    end
  end
  if (length ~= nil and tonumber(length) ~= 0) or headers:get("transfer-encoding") ~= nil
    or headers:get("if-match") ~= nil or headers:get("if-unmodified-since") ~= nil then
    return bypass(handle, asked_for)
  end
  local by = owner(handle, rule)
  if by == nil or headers:get("range") ~= nil or headers:get("upgrade") ~= nil or asked_for["no-store"] ~= nil
    or (not rule.own and (headers:get("authorization") ~= nil or headers:get("cookie") ~= nil)) or #url > LONGEST_URL then
    return bypass(handle, asked_for)
  end
  local now = tonumber(handle:timestamp())
  if synchronize(handle, now) then
    headers = handle:headers()
  end
  local key = rule.route .. "\0" .. rule.version .. "\0" .. scheme .. "\0" .. by .. "\0" .. url
  local names = names_of(key)
  local entry = names ~= nil and find(key .. "\0" .. secondary(headers, names)) or nil
  local how = entry ~= nil and asked_for["no-cache"] == nil and usable(entry, now, asked_for) or nil
  if how ~= nil then
    return serve(handle, entry, now)
  end
  local values = candidates(headers, rule, names)
  if asked_for["only-if-cached"] ~= nil then
    local state, other, other_names = look_up(handle, key, values, true)
    if state == FOUND and usable(other, now, asked_for) == "fresh" then
      learn(key, other_names)
      put(key .. "\0" .. secondary(handle:headers(), other_names), other)
      return serve(handle, other, now)
    end
    return not_cached(handle)
  end
  local known = {
    rule = rule, key = key, url = url, values = values, head = method == "HEAD", asked = now, epoch = epoch, version = version,
    purges = last_recent,
  }
  local own_conditions = conditions(headers)
  known.tags, known.since = own_conditions.tags, own_conditions.since
  local reason = entry ~= nil and (asked_for["no-cache"] and "request" or "stale")
    or (names ~= nil and "vary-miss" or "uri-miss")
  if asked_for["no-cache"] == nil then
    local state, other, other_names, waited = look_up(handle, key, values)
    if state == FOUND and usable(other, now, asked_for) == "fresh" then
      learn(key, other_names)
      put(key .. "\0" .. secondary(handle:headers(), other_names), other)
      return serve(handle, other, now)
    end
    known.collapsed = waited
  end
  forward(handle, known, reason, entry)
end

-- Responses -----------------------------------------------------------------------------------------------------------------

local function add_status(headers, parts)
  headers:add("cache-status", status_of(parts))
end

-- Tells the second level that this request stores nothing, so that others need not wait.
local function release(handle, known)
  if known.key ~= nil then
    handle:httpCall(CLUSTER, {
      [":method"] = "POST", [":path"] = STORE, [":authority"] = CLUSTER, ["content-type"] = "application/grpc", te = "trailers",
    }, framed(field(1, question(known.key, {}))), TIMEOUT, true)
  end
end

-- The seconds for which a response is fresh, and its age; nil if it must not be stored (RFC 9111 sections 3 and 4.2).
local function lifetime(rule, headers, told, status)
  local written = headers:get("age")
  local age = written ~= nil and tonumber(written:match("^%d+$")) or 0
  if rule.override then
    return rule.statuses[status] and rule.ttl or nil, 0
  elseif told.malformed or told["no-store"] ~= nil or told["no-cache"] ~= nil or (not rule.own and told.private ~= nil)
    or (written ~= nil and not written:find("^%d+$")) then
    return nil
  end
  local explicit = told["s-maxage"] or told["max-age"]
  if explicit ~= nil and type(explicit) ~= "number" then
    explicit = 0 -- a lifetime that cannot be read is none (RFC 9111 section 4.2.1)
  end
  if explicit == nil and headers:get("expires") ~= nil then
    local expires, date = seconds_of(headers:get("expires")), seconds_of(headers:get("date"))
    explicit = expires ~= nil and date ~= nil and expires - date or 0
  end
  if explicit ~= nil then
    return CACHEABLE[status] and explicit or nil, age
  end
  return rule.statuses[status] and rule.ttl or nil, age
end

-- The names of Vary and of the route in their order, or nil if the response fits no other request.
local function varying(headers, rule, known)
  local seen, names = {}, {}
  local function add(name)
    if not seen[name] then
      seen[name], names[#names + 1] = true, name
    end
  end
  for _, name in ipairs(rule.vary) do
    add(name)
  end
  for name in (whole_header(headers, "vary") or ""):gmatch("[^,%s]+") do
    if name == "*" then
      return nil
    end
    add(name:lower())
  end
  if headers:get("content-encoding") ~= nil then
    add("accept-encoding")
  end
  table.sort(names)
  if #names > MOST_NAMES then
    return nil
  end
  return names
end

-- A new entry without its body, and the names by which it is selected; nil if the response must not be stored.
local function entry_of(headers, known, status, now)
  local rule = known.rule
  local told = directives(whole_header(headers, "cache-control"))
  local kind = headers:get("content-type") or ""
  if headers:get("set-cookie") ~= nil or headers:get("content-range") ~= nil or known.head
    or kind:find("^text/event%-stream") or kind:find("^application/grpc") then
    return nil
  end
  local fresh, age = lifetime(rule, headers, told, status)
  local names = varying(headers, rule, known)
  if fresh == nil or names == nil or fresh <= age then
    return nil
  end
  local strict = told["must-revalidate"] ~= nil or told["proxy-revalidate"] ~= nil or told["s-maxage"] ~= nil
  if rule.override then
    strict = false
  end
  local function allowed(name, own)
    local seconds = type(told[name]) == "number" and not rule.override and told[name] or own or 0
    return strict and 0 or min(seconds, 2 ^ 31) * 1000
  end
  local entry = {
    status = status, born = now - age * 1000, fresh = min(fresh, 2 ^ 31) * 1000, headers = {}, tags = {}, url = known.url,
    stale = allowed("stale-while-revalidate", rule.stale),
    stale_if_error = allowed("stale-if-error", rule.stale_if_error),
  }
  for tag in (whole_header(headers, "cache-tag") or ""):gmatch("[^,%s]+") do
    entry.tags[tag] = true
  end
  for name in pairs(headers.all or headers) do
    if entry.headers[name] == nil and not NOT_STORED[name] then
      local values = {}
      -- The route adds its own headers to a hit too.
      for at = 0, headers:getNumValues(name) - 1 - (rule.added[name] or 0) do
        values[at + 1] = headers:getAtIndex(name, at)
      end
      entry.headers[name] = #values > 0 and values or nil
    end
  end
  return entry, names
end

local function selected(values, names)
  local out = {}
  for number, name in ipairs(names) do
    local value = values[name]
    if value == nil then
      return nil
    end
    out[number] = name .. "=" .. (value and #value .. ":" .. value or "-")
  end
  return table.concat(out, ",")
end

local function store(handle, known, entry, names)
  complete(entry)
  learn(known.key, names)
  local second = selected(known.values, names)
  if second == nil or entry.size > LIMIT / 8 or purged_since(entry, known.purges) then
    return release(handle, known)
  end
  put(known.key .. "\0" .. second, entry)
  local message = { field(1, question(known.key, known.values)), field(2, packed(entry)) }
  for _, name in ipairs(names) do
    message[#message + 1] = field(3, name)
  end
  for tag in pairs(entry.tags) do
    message[#message + 1] = field(4, tag)
  end
  message[#message + 1] = field(5, entry.url)
  message[#message + 1] = char(48) .. varint(entry.born + entry.fresh)
  message[#message + 1] = field(7, known.epoch) .. char(64) .. varint(known.version)
  handle:httpCall(CLUSTER, {
    [":method"] = "POST", [":path"] = STORE, [":authority"] = CLUSTER, ["content-type"] = "application/grpc", te = "trailers",
  }, framed(table.concat(message)), TIMEOUT, true)
end

-- Replaces the response by a stored one.
local function replace(handle, entry, now, parts)
  local headers, names = handle:headers(), {}
  for name in pairs(headers) do
    names[#names + 1] = name
  end
  for _, name in ipairs(names) do
    if not KEPT[name] then
      headers:remove(name)
    end
  end
  headers:replace(":status", tostring(entry.status))
  for name, values in pairs(entry.headers) do
    headers:remove(name)
    for _, value in ipairs(values) do
      headers:add(name, value)
    end
  end
  headers:replace("age", tostring(max(0, age_of(entry, now))))
  add_status(headers, parts)
  handle:body(true):setBytes(entry.body)
end

-- The headers of a table as an object like Envoy's.
local function view(all)
  return {
    all = all,
    get = function(_, name) return all[name] ~= nil and all[name][1] or nil end,
    getNumValues = function(_, name) return all[name] ~= nil and #all[name] or 0 end,
    getAtIndex = function(_, name, at) return all[name] ~= nil and all[name][at + 1] or nil end,
  }
end

-- A response of 304 makes the stored response fresh again, as its headers and those of the 304 together say (RFC 9111
-- sections 3.2 and 4.3.4). Returns the entry, and the names that select it, nil if it must not be stored again.
local function renewed(headers, known, now)
  local before, all = known.entry, {}
  for name, values in pairs(before.headers) do
    all[name] = values
  end
  for name in pairs(headers) do
    if not NOT_IN_304[name] and name:sub(1, 1) ~= ":" then
      local values = {}
      for at = 0, headers:getNumValues(name) - 1 do
        values[at + 1] = headers:getAtIndex(name, at)
      end
      all[name] = values
    end
  end
  local entry, names = entry_of(view(all), known, before.status, now)
  if entry == nil then
    entry = { headers = before.headers, status = before.status, born = now, fresh = 0, stale = 0, stale_if_error = 0, url = before.url }
  end
  entry.tags, entry.body = next(entry.tags or {}) ~= nil and entry.tags or before.tags, before.body
  return complete(entry), names
end

local function response(handle, known)
  local headers, now = handle:headers(), tonumber(handle:timestamp())
  local status = tonumber(headers:get(":status"))
  if known.changes ~= nil and status < 400 and headers:get("x-gateway-reason") == nil then
    purge(1, known.changes)
    remember_purge(1, known.changes)
    handle:httpCall(CLUSTER, {
      [":method"] = "POST", [":path"] = PURGE, [":authority"] = CLUSTER, ["content-type"] = "application/grpc", te = "trailers",
    }, framed(char(8) .. char(1) .. field(2, known.changes)), TIMEOUT, true)
  end
  local entry = known.entry
  if known.key == nil then
    headers:remove("cache-tag")
    return add_status(headers, known.status)
  elseif status >= 500 and entry ~= nil and now - entry.born < entry.fresh + entry.stale_if_error then
    release(handle, known)
    return replace(handle, entry, now, known.status .. "; fwd-status=" .. status .. "; detail=stale-if-error")
  elseif headers:get("x-gateway-reason") ~= nil then
    return release(handle, known)
  elseif status == 304 and entry ~= nil then
    local again, names = renewed(headers, known, now)
    local stored = names ~= nil and selected(known.values, names) ~= nil
    local parts = known.status .. "; fwd-status=304" .. (stored and "; stored" or "")
    if unchanged(known, again) then
      headers:remove("cache-tag")
      add_status(headers, parts)
    else
      replace(handle, again, now, parts)
    end
    if known.head or names == nil then
      return release(handle, known)
    end
    return store(handle, known, again, names)
  end
  local new, names = entry_of(headers, known, status, now)
  headers:remove("cache-tag")
  local length = tonumber(headers:get("content-length") or "")
  local second = new ~= nil and selected(known.values, names) or nil
  if new ~= nil and second == nil then -- it varies by a header that was not kept; the next response can be stored
    learn(known.key, names)
  end
  if second == nil or (length ~= nil and length > known.rule.max_body) then
    add_status(headers, known.status .. (known.collapsed and "; collapsed" or ""))
    return release(handle, known)
  end
  add_status(headers, known.status .. "; stored" .. (known.collapsed and "; collapsed" or ""))
  local parts, size = {}, 0
  for chunk in handle:bodyChunks() do
    local bytes = chunk:length()
    size = size + bytes
    if size <= known.rule.max_body and bytes > 0 then
      parts[#parts + 1] = chunk:getBytes(0, bytes)
    end
  end
  if size > known.rule.max_body then
    return release(handle, known)
  end
  new.body = table.concat(parts)
  store(handle, known, new, names)
end

local reported = {}

local function report(handle, found)
  if not reported[found] then
    reported[found] = true
    handle:logErr("script of the cache failed; the request is forwarded error=" .. tostring(found))
  end
end

function envoy_on_request(handle)
  local done, found = pcall(request, handle)
  if not done then
    report(handle, found)
  end
end

function envoy_on_response(handle)
  local own = handle:streamInfo():dynamicMetadata():get(NAMESPACE)
  local known = own ~= nil and own.number ~= nil and taken(own.number) or nil
  if known == nil then
    return
  end
  local done, found = pcall(response, handle, known)
  if not done then
    report(handle, found)
  end
end

collectgarbage("setpause", 150)
