-- Leases: admits requests that the counters of the policy server have already been debited for. A request without a
-- lease gets the metadata ASK, and the rate limit filter after this one asks the policy server about it.

-- The script asks for a lease for a caller that had so many requests in this second or in the one before.
local MANY = 16
-- A lease has the requests of a quarter of a second, and the next one is taken when a fifth is left.
local PARTS, RENEWED = 4, 5
-- The most requests of a lease.
local LARGEST = 100000
-- A lease and what it has left are one number in the metadata, because each value costs time.
local UNIT = 131072
-- Callers in one table. Those of the table before are still known, so twice as many may be known.
local CALLERS = 8192
-- Rules of routes that are kept parsed.
local RULES = 16384
-- The longest value of a header or a claim, in bytes. Callers with longer ones have no leases, so they fill no memory.
local LONGEST = 128
-- Milliseconds: the time limit of a call, the pause after a refusal, and the pause after a failed call.
local TIMEOUT, REFUSED, FAILED = 300, 500, 1000
-- The most leases that are kept so that their rest can be returned, and the most that one call returns.
local WAITING, RETURNED = 16384, 16
-- Leases that are kept for responses. A response that takes longer than so many new leases has no headers.
local ANSWERING = 4096

-- Headers for the client --------------------------------------------------------------------------------------------

-- The headers of a lease, each with the pieces of its value: a text, what was left, the cost of a request, a text and so on.
local function headers_of(text)
  local headers = {}
  for name, value in text:gmatch("([^\n]*)\n([^\n]*)\n") do
    local pieces, rest = {}, 1
    for before, left, cost, after in value:gmatch("([^\t]*)\t(%d+),(%d+)\t()") do
      pieces[#pieces + 1] = before
      pieces[#pieces + 1] = tonumber(left)
      pieces[#pieces + 1] = tonumber(cost)
      rest = after
    end
    pieces[#pieces + 1] = sub(value, rest)
    headers[#headers + 1] = { name = name, pieces = pieces }
  end
  return headers
end

-- The value of a header if the lease has so many requests left.
local function value_of(pieces, left)
  local value = pieces[1]
  for at = 2, #pieces, 3 do
    value = value .. pieces[at] + pieces[at + 1] * left .. pieces[at + 2]
  end
  return value
end

-- The heap is small, so with Lua's own setting (200) the collector would run a tenth of the time.
collectgarbage("setpause", 400)

-- Callers -----------------------------------------------------------------------------------------------------------

local young, old, known = {}, {}, 0

-- What is known of a caller: its requests in the second `second` and in the one before, and its leases.
local function caller_of(key)
  local caller = young[key]
  if caller == nil then
    caller = old[key] or { second = 0, count = 0, before = 0 }
    if known >= CALLERS then
      young, old, known = {}, young, 0
    end
    young[key], known = caller, known + 1
  end
  return caller
end

-- Counts a request. Returns the requests of a second.
local function count(caller, now)
  local second = floor(now / 1000)
  if caller.second ~= second then
    caller.before = caller.second == second - 1 and caller.count or 0
    caller.second, caller.count = second, 0
  end
  caller.count = caller.count + 1
  return max(caller.count, caller.before)
end

-- Leases ------------------------------------------------------------------------------------------------------------

-- Leases in the order in which they were granted, until they are used up or returned.
local leases, first, last = {}, 1, 0
-- The last leases, for the headers of responses.
local by_number = {}
local silent_until = 0

local function ended(lease, now)
  return now >= lease.ends or now < lease.begins -- the clock jumped back
end

local function usable(lease, now)
  return lease ~= nil and lease.left > 0 and not ended(lease, now)
end

-- The lease of a caller, or nil. The next lease is used if the present one has ended.
local function lease_of(caller, now)
  if not usable(caller.lease, now) then
    caller.lease, caller.next = caller.next, nil
    if not usable(caller.lease, now) then
      return nil
    end
  end
  return caller.lease
end

local function remove_first()
  leases[first], first = nil, first + 1
end

-- True if the first lease has ended and admitted less than it could.
local function has_returns(now)
  while first <= last and leases[first].left == 0 do
    remove_first()
  end
  return first <= last and ended(leases[first], now)
end

-- The rests of ended leases, as fields of the request. They cannot be used afterwards.
local function returns(now)
  local out = {}
  while #out < RETURNED and has_returns(now) do
    local lease = leases[first]
    out[#out + 1] = field(6, field(1, lease.receipt) .. char(16) .. varint(lease.left))
    lease.left = 0
    remove_first()
  end
  return table.concat(out)
end

local function granted(message, now)
  local lease = { left = 0, begins = now, ends = now, receipt = "" }
  each_field(message, function(number, value)
    if number == 1 then
      lease.left = value
    elseif number == 2 then
      lease.ends = now + value
    elseif number == 3 then
      lease.receipt = value
    elseif number == 4 then
      lease.headers = headers_of(value)
    end
  end)
  lease.renewed = floor(lease.left / RENEWED)
  return lease
end

-- Asks for a lease, which waits for the policy server. If there is none, returns nil, and when the window ends if it ends soon. `now` is the moment before the
-- call, so a lease ends here before it ends in the counters.
local function ask(handle, question, wanted, now)
  local message = question .. char(40) .. varint(wanted) .. returns(now)
  local answer = call(handle, CLUSTER, METHOD, message, TIMEOUT)
  if answer == nil then
    silent_until = now + FAILED
    return nil
  end
  local lease = granted(answer, now)
  if lease.left == 0 then
    return nil, lease.ends > now and lease.ends or nil
  end
  last = last + 1
  leases[last], lease.number = lease, last
  if last - first >= WAITING then
    remove_first()
  end
  if lease.headers ~= nil then
    by_number[last], by_number[last - ANSWERING] = lease, nil
  end
  return lease
end

-- Requests ----------------------------------------------------------------------------------------------------------

local cached, rules = {}, 0

local function rule_of(handle)
  local written = handle:filterContext():get("rule")
  local rule = cached[written]
  if rule == nil then
    if rules % RULES == 0 then
      cached = {}
    end
    rules = rules + 1
    rule = assert(loadstring("return " .. written))()
    rule.number, rule.identity = rules, rule.consumer or #rule.claims > 0
    cached[written] = rule
  end
  return rule
end

-- The IP address of "ADDRESS:PORT" or "[ADDRESS]:PORT"; nil for a socket in the file system.
local function ip_of(address)
  return address:match("^([%d.]+):%d+$") or address:match("^%[([%x:.]+)%]:%d+$")
end

-- The values by which the limits count this request, as a list of names and values; nil if they give no leases.
local function values_of(rule, handle)
  local out, identity = {}, nil
  if rule.identity then
    identity = handle:streamInfo():dynamicMetadata():get(IDENTITY)
  end
  local consumer = rule.consumer and identity ~= nil and identity[CONSUMER] or nil
  if consumer ~= nil then
    out[1], out[2] = CONSUMER, consumer
    if rule.plan and identity[PLAN] ~= nil then
      out[3], out[4] = PLAN, identity[PLAN]
    end
  end
  if rule.ip or (rule.consumer and consumer == nil) then
    local ip = ip_of(handle:streamInfo():downstreamRemoteAddress())
    if ip == nil then
      return nil
    end
    out[#out + 1] = ADDRESS
    out[#out + 1] = ip
  end
  for _, by in ipairs(rule.claims) do
    local value = identity ~= nil and identity[COUNTED] ~= nil and identity[COUNTED][by] or nil
    if value ~= nil then
      if #value > LONGEST then
        return nil
      end
      out[#out + 1] = by
      out[#out + 1] = value
    end
  end
  for _, by in ipairs(rule.headers) do
    local headers, name = handle:headers(), sub(by, 8)
    local value = headers:get(name)
    if value ~= nil then
      if #value > LONGEST or headers:getNumValues(name) > 1 then
        return nil -- `get` returns only the first of several lines
      end
      out[#out + 1] = by
      out[#out + 1] = value
    end
  end
  return out
end

-- True if the request is admitted by a lease.
local function admitted(handle)
  local rule = rule_of(handle)
  local values = values_of(rule, handle)
  if values == nil then
    return false
  end
  local key = rule.number .. "\0" .. table.concat(values, "\0")
  local now = tonumber(handle:timestamp())
  local caller = caller_of(key)
  local requests = count(caller, now)
  local many = requests >= MANY
  local lease = lease_of(caller, now)
  if lease ~= nil then
    lease.left = lease.left - 1
  end
  local few = lease == nil or (lease.left <= lease.renewed and caller.next == nil)
  local due = few and many or (lease == nil and has_returns(now))
  if due and now >= silent_until and now >= (caller.again or 0) then
    caller.again = now + REFUSED -- also, no other request asks at the same time
    local wanted = many and min(LARGEST, max(2, ceil(requests / PARTS))) or 1
    local entries = {}
    for at = 1, #values, 2 do
      entries[#entries + 1] = field(4, field(1, values[at]) .. field(2, values[at + 1]))
    end
    local new, again = ask(handle, rule.question .. table.concat(entries), wanted, now)
    if new == nil then
      caller.again = min(caller.again, again or caller.again)
    else
      -- A lease that ends at once belongs to a window that ends. The next window may have more.
      caller.again = new.left > 1 and 0 or min(caller.again, new.ends)
      if lease == nil then
        lease = new
        lease.left = lease.left - 1
        caller.lease = lease
      else
        caller.next = new
      end
    end
  end
  if lease == nil then
    return false
  end
  if lease.headers ~= nil then
    handle:streamInfo():dynamicMetadata():set(NAMESPACE, "lease", lease.number * UNIT + lease.left)
  end
  return true
end

local reported = {}

function envoy_on_request(handle)
  local decided, found = pcall(admitted, handle)
  if not (decided and found) then
    handle:streamInfo():dynamicMetadata():set(NAMESPACE, ASK, "true")
  end
  if not decided and not reported[found] then
    reported[found] = true
    handle:logErr("script of leases failed; the policy server decides error=" .. tostring(found))
  end
end

function envoy_on_response(handle)
  local own = handle:streamInfo():dynamicMetadata():get(NAMESPACE)
  local lease = own ~= nil and own.lease ~= nil and by_number[floor(own.lease / UNIT)]
  if lease then
    local headers, left = handle:headers(), own.lease % UNIT
    for _, header in ipairs(lease.headers) do
      headers:add(header.name, value_of(header.pieces, left))
    end
  end
end
