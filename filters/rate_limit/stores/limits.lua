-- One decision on any number of limits, by the clock of Redis: all are counted, or none.
-- KEYS are the counters. ARGV[1] is decide, charge, refund or release. Then each limit has ten values: algorithm,
-- amount, length of the window, cost, burst, shadow, lease, the request's id, ends of windows, and the rest that a
-- request of cost 0 needs.
-- Returns the moment, 1 if it is admitted, and for each limit: room, reset, wait, short. Times are microseconds.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local operation = ARGV[1]
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

local function read(number, key)
  local at = 2 + (number - 1) * 10
  local limit = {
    key = key, kind = ARGV[at], amount = tonumber(ARGV[at + 1]), length = tonumber(ARGV[at + 2]),
    cost = tonumber(ARGV[at + 3]), burst = tonumber(ARGV[at + 4]), shadow = ARGV[at + 5] == '1',
    lease = tonumber(ARGV[at + 6]), id = ARGV[at + 7], ends = ARGV[at + 8],
    least = tonumber(ARGV[at + 9]),
  }
  if limit.kind ~= 'concurrency' then
    local state = redis.call('HMGET', key, 'used', 'since', 'before', 'until')
    limit.used, limit.since = tonumber(state[1]) or 0, tonumber(state[2]) or now
    limit.before, limit.last = tonumber(state[3]) or 0, tonumber(state[4]) or 0
    if limit.last <= now then
      limit.used, limit.before, limit.since, limit.last = 0, 0, now, 0
    end
  end
  return limit
end

local function keep(limit)
  redis.call('HSET', limit.key, 'used', string.format('%.0f', limit.used), 'since', string.format('%.0f', limit.since),
    'before', string.format('%.0f', limit.before), 'until', string.format('%.0f', limit.last))
  -- A large bucket with a slow refill is full again after more time than Redis can represent.
  redis.call('PEXPIREAT', limit.key, string.format('%.0f', min(ceil(limit.last / 1000), 2^52)))
end

local function window_end(limit)
  if limit.ends == 'rolling' then return now + limit.length end
  if limit.ends == 'utc' then return now - now % limit.length + limit.length end
  for text in string.gmatch(limit.ends, '%d+') do
    if tonumber(text) > now then return tonumber(text) end
  end
  return now + limit.length
end

local algorithms = {}

algorithms.fixed_window = {
  room = function(limit, cost) return limit.amount - limit.used - cost end,
  take = function(limit)
    if limit.last == 0 then limit.last = window_end(limit) end
    limit.used = max(0, limit.used + limit.cost)
    keep(limit)
  end,
  reset = function(limit) return limit.last > 0 and limit.last or window_end(limit) end,
  wait = function(limit) return (limit.last > 0 and limit.last or window_end(limit)) - now end,
}

local function slide(limit)
  local elapsed = now % limit.length
  if limit.last == 0 then return 0, 0, elapsed end
  if now < limit.since then return limit.before, limit.used, 0 end
  if now - elapsed == limit.since then return limit.before, limit.used, elapsed end
  return limit.used, 0, elapsed
end

local function enough(limit, before, room)
  room = max(0, room)
  return before > room and limit.length - floor(room * limit.length / before) or 0
end

algorithms.sliding_window = {
  room = function(limit, cost)
    local before, used, elapsed = slide(limit)
    return limit.amount - ceil(before * (limit.length - elapsed) / limit.length) - used - cost
  end,
  take = function(limit)
    local before, used, elapsed = slide(limit)
    limit.since = max(now, limit.since) - elapsed
    limit.before, limit.used, limit.last = before, max(0, used + limit.cost), limit.since + 2 * limit.length
    keep(limit)
  end,
  reset = function(limit) return max(now, limit.last) end,
  wait = function(limit, cost)
    local before, used, elapsed = slide(limit)
    if used + cost <= limit.amount then
      return max(0, enough(limit, before, limit.amount - used - cost) - elapsed)
    end
    return limit.length - elapsed + enough(limit, used, limit.amount - cost)
  end,
}

local function missing(limit)
  if limit.last == 0 then return 0 end
  return max(0, limit.used - max(0, now - limit.since) * limit.amount)
end

algorithms.token_bucket = {
  room = function(limit, cost) return floor((limit.burst * limit.length - missing(limit)) / limit.length) - cost end,
  take = function(limit)
    limit.used = max(0, missing(limit) + limit.cost * limit.length)
    limit.since = max(now, limit.since)
    limit.last = limit.since + ceil(limit.used / limit.amount)
    keep(limit)
  end,
  reset = function(limit) return max(now, limit.last) end,
  wait = function(limit, cost)
    return max(0, ceil((missing(limit) + (min(cost, limit.burst) - limit.burst) * limit.length) / limit.amount))
  end,
}

algorithms.concurrency = {
  room = function(limit, cost)
    redis.call('ZREMRANGEBYSCORE', limit.key, '-inf', string.format('%.0f', now))
    return limit.amount - redis.call('ZCARD', limit.key) - cost
  end,
  take = function(limit)
    if operation == 'refund' then redis.call('ZREM', limit.key, limit.id) return end
    redis.call('ZADD', limit.key, string.format('%.0f', now + limit.lease), limit.id)
    redis.call('PEXPIRE', limit.key, string.format('%.0f', ceil(limit.lease / 1000)))
  end,
  reset = function() return now end,
  wait = function() return 1000000 end,
}

if operation == 'release' then
  for number, key in ipairs(KEYS) do
    redis.call('ZREM', key, ARGV[2 + (number - 1) * 10 + 7])
  end
  return {}
end

local limits, admitted = {}, 1
for number, key in ipairs(KEYS) do
  local limit = read(number, key)
  limit.algorithm = algorithms[limit.kind]
  limit.asked = max(limit.least, limit.cost)
  limit.room = limit.algorithm.room(limit, limit.asked)
  if limit.room < 0 and not limit.shadow then admitted = 0 end
  limits[number] = limit
end
local answer = {now, admitted}
for _, limit in ipairs(limits) do
  local short, wait, room = limit.room < 0, 0, limit.room
  if operation ~= 'decide' then
    limit.algorithm.take(limit)
  elseif short then
    wait, room = limit.algorithm.wait(limit, limit.asked), max(0, room + limit.asked)
  elseif admitted == 0 or limit.cost == 0 then
    room = room + limit.asked
  else
    limit.algorithm.take(limit)
  end
  answer[#answer + 1] = room
  answer[#answer + 1] = limit.algorithm.reset(limit)
  answer[#answer + 1] = wait
  answer[#answer + 1] = short and 1 or 0
end
return answer
