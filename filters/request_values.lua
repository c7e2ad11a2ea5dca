-- What scripts read of a route and of a request: the rule of the route, a header as a whole, a claim of the verified token.

local MOST_RULES = 16384 -- rules of routes that are kept parsed

local parsed_rules, rules_known = {}, 0

-- The rule in the filter context of the route.
local function rule_of(handle)
  local written = handle:filterContext():get("rule")
  local rule = parsed_rules[written]
  if rule == nil then
    if rules_known >= MOST_RULES then
      parsed_rules, rules_known = {}, 0
    end
    rules_known = rules_known + 1
    rule = assert(loadstring("return " .. written))()
    parsed_rules[written] = rule
  end
  return rule
end

-- All lines of a header, joined as RFC 9110 section 5.3 says; nil if there is none.
local function whole_header(headers, name)
  local count = headers:getNumValues(name)
  if count <= 1 then
    return headers:get(name)
  end
  local lines = {}
  for at = 0, count - 1 do
    lines[at + 1] = headers:getAtIndex(name, at)
  end
  return table.concat(lines, ", ")
end

local function identity_of(handle)
  return handle:streamInfo():dynamicMetadata():get(IDENTITY) or {}
end

-- The claim at the first of some places that has one.
local function claim_of(identity, places)
  for _, path in ipairs(places) do
    local at = identity.claims
    for _, name in ipairs(path) do
      if type(at) == "table" then at = at[name] else at = nil end
    end
    if at ~= nil then
      return at
    end
  end
end
