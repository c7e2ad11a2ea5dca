-- Any number of decisions in their order, by the clock of Redis. Each decision counts all its limits, or none.
-- KEYS are the counters, one for each hit. ARGV[1] is the number of limits, and the next values describe one limit each.
-- Then each operation is one value: a byte (1 decide, 2 charge, 3 release, 4 give back), and for each hit the number of
-- its limit and its cost; to give back also the moments `since` and `until` of the decision that took. After the
-- operation stand the requests' ids, one for each hit on a limit of concurrency. All numbers are doubles.
-- Returns the moment, then for each operation 1 (done or admitted), 0 (rejected) or the text of an error. After 1 or 0
-- each hit of a decision has three values: room, reset, and wait, which is -1 if the limit was not short.
-- Times are microseconds.
local call, floor, ceil, max, min = redis.call, math.floor, math.ceil, math.max, math.min
local pack, unpack = struct.pack, struct.unpack
local time = call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local KEYS, ARGV = KEYS, ARGV

-- The counters of the hits of one operation, by the number of the hit.
local key, id, used, last, born, since, before = {}, {}, {}, {}, {}, {}, {}

local function read(hit)
  local state = call('GET', key[hit])
  if state then
    used[hit], last[hit], born[hit], since[hit], before[hit] = unpack('<ddddd', state)
    if last[hit] > now then return end
  end
  used[hit], last[hit], born[hit], since[hit], before[hit] = 0, 0, now, now, 0
end

local function state(hit)
  return pack('<ddddd', used[hit], last[hit], born[hit], since[hit], before[hit])
end

local function keep(hit)
  -- A large bucket with a slow refill is full again after more time than Redis can represent.
  call('SET', key[hit], state(hit), 'PXAT', min(ceil(last[hit] / 1000), 2^52))
end

local function window_end(limit)
  if limit.first == -1 then return now + limit.length end
  if limit.first == 0 then return now - now % limit.length + limit.length end
  if limit.first > now then return limit.first end
  if limit.second > now then return limit.second end
  if limit.third > now then return limit.third end
  return now + limit.length
end

local fixed_window = {
  read = read,
  room = function(limit, hit, cost) return limit.amount - used[hit] - cost end,
  take = function(limit, hit, cost)
    used[hit] = max(0, used[hit] + cost)
    if last[hit] > 0 then return call('SET', key[hit], state(hit), 'KEEPTTL') end
    last[hit] = window_end(limit)
    keep(hit)
  end,
  reset = function(limit, hit) return last[hit] > 0 and last[hit] or window_end(limit) end,
  wait = function(limit, hit) return (last[hit] > 0 and last[hit] or window_end(limit)) - now end,
  give_back = function(limit, hit, cost, _, till)
    if last[hit] ~= till then return end
    used[hit] = max(0, used[hit] - cost)
    call('SET', key[hit], state(hit), 'KEEPTTL')
  end,
}

local function slide(limit, hit)
  local elapsed = now % limit.length
  if last[hit] == 0 then return 0, 0, elapsed end
  if now < since[hit] then return before[hit], used[hit], 0 end
  if now - elapsed == since[hit] then return before[hit], used[hit], elapsed end
  return used[hit], 0, elapsed
end

local function enough(limit, earlier, room)
  room = max(0, room)
  return earlier > room and limit.length - floor(room * limit.length / earlier) or 0
end

local sliding_window = {
  read = read,
  room = function(limit, hit, cost)
    local earlier, present, elapsed = slide(limit, hit)
    return limit.amount - ceil(earlier * (limit.length - elapsed) / limit.length) - present - cost
  end,
  take = function(limit, hit, cost)
    local earlier, present, elapsed = slide(limit, hit)
    since[hit] = max(now, since[hit]) - elapsed
    before[hit], used[hit], last[hit] = earlier, max(0, present + cost), since[hit] + 2 * limit.length
    keep(hit)
  end,
  reset = function(_, hit) return max(now, last[hit]) end,
  wait = function(limit, hit, cost)
    local earlier, present, elapsed = slide(limit, hit)
    if present + cost <= limit.amount then
      return max(0, enough(limit, earlier, limit.amount - present - cost) - elapsed)
    end
    return limit.length - elapsed + enough(limit, present, limit.amount - cost)
  end,
  give_back = function(limit, hit, cost, _, till)
    if last[hit] == till then
      used[hit] = max(0, used[hit] - cost)
    elseif last[hit] == till + limit.length then
      before[hit] = max(0, before[hit] - cost)
    else
      return
    end
    call('SET', key[hit], state(hit), 'KEEPTTL')
  end,
}

local function missing(limit, hit)
  if last[hit] == 0 then return 0 end
  return max(0, used[hit] - max(0, now - since[hit]) * limit.amount)
end

local function lack(limit, hit, tokens)
  used[hit] = max(0, tokens)
  since[hit] = max(now, since[hit])
  last[hit] = since[hit] + ceil(used[hit] / limit.amount)
  keep(hit)
end

local token_bucket = {
  read = read,
  room = function(limit, hit, cost)
    return floor((limit.burst * limit.length - missing(limit, hit)) / limit.length) - cost
  end,
  take = function(limit, hit, cost) lack(limit, hit, missing(limit, hit) + cost * limit.length) end,
  reset = function(_, hit) return max(now, last[hit]) end,
  wait = function(limit, hit, cost)
    return max(0, ceil((missing(limit, hit) + (min(cost, limit.burst) - limit.burst) * limit.length) / limit.amount))
  end,
  -- What the time has refilled since then is not given back again.
  give_back = function(limit, hit, cost, taken)
    local back = cost * limit.length - max(0, now - taken) * limit.amount
    if back > 0 and last[hit] > 0 then lack(limit, hit, missing(limit, hit) - back) end
  end,
}

local concurrency = {
  read = function() end,
  room = function(limit, hit, cost)
    call('ZREMRANGEBYSCORE', key[hit], '-inf', now)
    return limit.amount - call('ZCARD', key[hit]) - cost
  end,
  take = function(limit, hit)
    call('ZADD', key[hit], now + limit.lease, id[hit])
    call('PEXPIRE', key[hit], ceil(limit.lease / 1000))
  end,
  reset = function() return now end,
  wait = function() return 1000000 end,
}

local algorithms = {fixed_window, sliding_window, token_bucket, concurrency}
local limits, at = {}, 2 + tonumber(ARGV[1])
for number = 1, at - 2 do
  local kind, amount, length, shadow, least, first, second, third = unpack('<dddddddd', ARGV[1 + number])
  limits[number] = {
    algorithm = algorithms[kind], amount = amount, length = length, shadow = shadow == 1, least = least,
    first = first, second = second, third = third, burst = first, lease = first, names = kind == 4,
  }
end

local answer, size, keys = {now}, 1, 0
local limit, cost, asked, rooms = {}, {}, {}, {}

local function decide(hits)
  local admitted = 1
  for hit = 1, hits do
    local one = limit[hit]
    one.algorithm.read(hit)
    asked[hit] = cost[hit] == 0 and one.least or cost[hit]
    rooms[hit] = one.algorithm.room(one, hit, asked[hit])
    if rooms[hit] < 0 and not one.shadow then admitted = 0 end
  end
  answer[size] = admitted
  for hit = 1, hits do
    local one, room, wait = limit[hit], rooms[hit], -1
    if room < 0 then
      wait, room = one.algorithm.wait(one, hit, asked[hit]), max(0, room + asked[hit])
    elseif admitted == 0 or cost[hit] == 0 then
      room = room + asked[hit]
    else
      one.algorithm.take(one, hit, cost[hit])
    end
    answer[size + 1], answer[size + 2], answer[size + 3] = room, one.algorithm.reset(one, hit), wait
    size = size + 3
  end
end

local function charge(hits)
  for hit = 1, hits do
    limit[hit].algorithm.read(hit)
    limit[hit].algorithm.take(limit[hit], hit, cost[hit])
  end
end

local function release(hits)
  for hit = 1, hits do call('ZREM', key[hit], id[hit]) end
end

local function give_back(hits, text)
  for hit = 1, hits do
    local taken, till = unpack('<dd', text, 32 * hit - 14)
    limit[hit].algorithm.read(hit)
    -- A counter that began later has forgotten what was taken before.
    if born[hit] <= taken then limit[hit].algorithm.give_back(limit[hit], hit, cost[hit], taken, till) end
  end
end

local operations = {decide, charge, release, give_back}
while at <= #ARGV do
  local text = ARGV[at]
  local operation = text:byte()
  local width = operation == 4 and 32 or 16
  local hits = floor(#text / width)
  at = at + 1
  for hit = 1, hits do
    local number
    number, cost[hit] = unpack('<dd', text, width * (hit - 1) + 2)
    limit[hit], key[hit] = limits[number], KEYS[keys + hit]
    if limit[hit].names then id[hit], at = ARGV[at], at + 1 end
  end
  keys, size = keys + hits, size + 1
  answer[size] = 1
  local begin = size
  local done, problem = pcall(operations[operation], hits, text)
  if not done then
    answer[begin], size = type(problem) == 'table' and problem.err or problem, begin
  end
end
for number = #answer, size + 1, -1 do answer[number] = nil end
return answer
