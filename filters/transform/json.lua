-- Changes of JSON texts (RFC 8259) that leave every byte alone which no change names: numbers keep their digits, objects
-- their order, texts their escapes.
--
-- A text is read once, from front to back. The reader verifies it and collects edits: ranges of the text with what
-- replaces them. A plan says what to change. It is a tree of nodes, and each node belongs to an object:
--   members   what to do with members, by name: remove, rename (the new name as JSON), node (for the value inside),
--             capture (numbers under which the value is remembered), set (a value, see below)
--   only      true if members that are not in `members` are removed
--   elements  the node for the elements of an array; without it, the node itself is for them too
--   renames   the `old` and the `new` names of members with `rename`
--   sets      the names of members with `set`, in their order: an object gets those that it does not have
-- The value of `set` has `name`, the member's name as JSON, and one of: text (JSON), source (the number of a value from
-- outside), captured (the number of a capture), members (values of an object). `default` is JSON for a missing value. A
-- member whose value from outside is missing is removed.

local ffi = require("ffi")
local sub, char, concat = string.sub, string.char, table.concat

local DEEPEST = 256
local MOST_NAMES = 1024 -- names that are remembered between two texts

local QUOTE, BACKSLASH, COMMA, COLON = 34, 92, 44, 58
local OBJECT, END_OF_OBJECT, ARRAY, END_OF_ARRAY = 123, 125, 91, 93
local LETTER_U, MINUS, PLUS, DOT, ZERO, NINE = 117, 45, 43, 46, 48, 57

local ESCAPES, HEX = ffi.new("uint8_t[256]"), ffi.new("uint8_t[256]")
for letter in ('"\\/bfnrtu'):gmatch(".") do
  ESCAPES[letter:byte()] = 1
end
for digit in ("0123456789abcdefABCDEF"):gmatch(".") do
  HEX[digit:byte()] = 1
end

-- The text, and its bytes from 0 on. A byte 0 follows the last one, and no rule of JSON accepts it.
local text, bytes
-- The edits in the order of their places.
local from, to, replacement, edits = {}, {}, {}, 0
-- Values that members had, by the number of their capture.
local captured
-- Values from outside as JSON, by their numbers.
local outside
-- The names of members of the objects around the current place, one table for each depth. An entry is the number of
-- the object that has it, so that no table must be emptied for the next object.
local names, objects, remembered = {}, 0, 0

local function fail(at, what)
  error({ at = at, what = what }, 0)
end

local function edit(first, past, with)
  edits = edits + 1
  from[edits], to[edits], replacement[edits] = first, past, with
end

local function space(at)
  local c = bytes[at]
  while c == 32 or c == 10 or c == 13 or c == 9 do
    at = at + 1
    c = bytes[at]
  end
  return at
end

local function continued(at, past)
  while at < past do
    if bytes[at] < 0x80 or bytes[at] > 0xbf then
      fail(at, "the text is not UTF-8")
    end
    at = at + 1
  end
  return past
end

-- The place after a character of several bytes (RFC 3629 section 4).
local function character(at)
  local first, second = bytes[at], bytes[at + 1]
  if first >= 0xc2 and first <= 0xdf then
    return continued(at + 1, at + 2)
  elseif first >= 0xe0 and first <= 0xef then
    if (first == 0xe0 and second < 0xa0) or (first == 0xed and second > 0x9f) then
      fail(at, "the text is not UTF-8")
    end
    return continued(at + 1, at + 3)
  elseif first >= 0xf0 and first <= 0xf4 then
    if (first == 0xf0 and second < 0x90) or (first == 0xf4 and second > 0x8f) then
      fail(at, "the text is not UTF-8")
    end
    return continued(at + 1, at + 4)
  end
  fail(at, "the text is not UTF-8")
end

local function escape(at)
  local c = bytes[at + 1]
  if ESCAPES[c] == 0 then
    fail(at, "no such escape")
  elseif c ~= LETTER_U then
    return at + 2
  end
  for digit = at + 2, at + 5 do
    if HEX[bytes[digit]] == 0 then
      fail(at, "no such escape")
    end
  end
  return at + 6
end

-- The place after a string that begins at `at`, and true if it has escapes.
local function string_at(at)
  local escaped = false
  at = at + 1
  while true do
    local c = bytes[at]
    if c == QUOTE then
      return at + 1, escaped
    elseif c == BACKSLASH then
      escaped = true
      at = escape(at)
    elseif c >= 0x80 then
      at = character(at)
    elseif c >= 32 then
      at = at + 1
    elseif at >= #text then
      fail(at, "the text ends within a string")
    else
      fail(at, "a control character in a string")
    end
  end
end

local function digits(at)
  local c = bytes[at]
  if c < ZERO or c > NINE then
    fail(at, "a digit is missing")
  end
  while c >= ZERO and c <= NINE do
    at = at + 1
    c = bytes[at]
  end
  return at
end

local function number_at(at)
  if bytes[at] == MINUS then
    at = at + 1
  end
  if bytes[at] == ZERO then
    at = at + 1
  else
    at = digits(at)
  end
  if bytes[at] == DOT then
    at = digits(at + 1)
  end
  if bytes[at] == 101 or bytes[at] == 69 then
    at = at + 1
    if bytes[at] == PLUS or bytes[at] == MINUS then
      at = at + 1
    end
    at = digits(at)
  end
  return at
end

local function word_at(at, word)
  if sub(text, at + 1, at + #word) ~= word then
    fail(at, at >= #text and "the text ends before a value" or "not a value")
  end
  return at + #word
end

local function scalar_at(at)
  local c = bytes[at]
  if c == QUOTE then
    return (string_at(at))
  elseif c == 116 then
    return word_at(at, "true")
  elseif c == 102 then
    return word_at(at, "false")
  elseif c == 110 then
    return word_at(at, "null")
  elseif c == MINUS or (c >= ZERO and c <= NINE) then
    return number_at(at)
  end
  fail(at, at >= #text and "the text ends before a value" or "not a value")
end

local function utf8(code)
  if code < 0x80 then
    return char(code)
  elseif code < 0x800 then
    return char(0xc0 + math.floor(code / 64), 0x80 + code % 64)
  elseif code < 0x10000 then
    return char(0xe0 + math.floor(code / 4096), 0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
  end
  return char(0xf0 + math.floor(code / 262144), 0x80 + math.floor(code / 4096) % 64,
    0x80 + math.floor(code / 64) % 64, 0x80 + code % 64)
end

local PLAIN = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

-- A string without its escapes. Half of a surrogate pair becomes the three bytes of its number.
local function unescaped(written)
  local parts, at = {}, 1
  local slash = written:find("\\", 1, true)
  while slash do
    parts[#parts + 1] = sub(written, at, slash - 1)
    local letter = sub(written, slash + 1, slash + 1)
    at = slash + 2
    if letter == "u" then
      local code = tonumber(sub(written, at, at + 3), 16)
      at = at + 4
      local low = tonumber(written:match("^\\u([dD][c-fC-F]%x%x)", at) or "0", 16)
      if code >= 0xd800 and code <= 0xdbff and low > 0 then
        code, at = 0x10000 + (code - 0xd800) * 1024 + low - 0xdc00, at + 6
      end
      parts[#parts + 1] = utf8(code)
    else
      parts[#parts + 1] = PLAIN[letter] or letter
    end
    slash = written:find("\\", at, true)
  end
  parts[#parts + 1] = sub(written, at)
  return concat(parts)
end

local function deeper(at, depth)
  if depth >= DEEPEST then
    fail(at, "more than " .. DEEPEST .. " levels")
  end
  return depth + 1
end

local function object_number()
  objects = objects + 1
  return objects
end

-- The name of the member that begins at `at`, the place after it, and the place of its value.
local function name_at(at, depth, object)
  if bytes[at] ~= QUOTE then
    fail(at, at >= #text and "the text ends within an object" or "a name in quotes is missing")
  end
  local past, escaped = string_at(at)
  local name = sub(text, at + 2, past - 1)
  if escaped then
    name = unescaped(name)
  end
  local known = names[depth]
  if known == nil then
    known = {}
    names[depth] = known
  end
  local last = known[name]
  if last == object then
    fail(at, "the name occurs twice in an object")
  elseif last == nil then
    remembered = remembered + 1
  end
  known[name] = object
  local colon = space(past)
  if bytes[colon] ~= COLON then
    fail(colon, "a colon is missing")
  end
  return name, past, space(colon + 1)
end

-- The place of the next member or element, or nil and the place after the end.
local function following(at, last)
  at = space(at)
  local c = bytes[at]
  if c == COMMA then
    return space(at + 1)
  elseif c == last then
    return nil, at + 1
  end
  fail(at, at >= #text and "the text ends within an object or a list" or "a comma is missing")
end

local skip

local function skip_object(at, depth)
  depth = deeper(at, depth)
  local object = object_number()
  local next_at, past = space(at + 1), nil
  if bytes[next_at] == END_OF_OBJECT then
    return next_at + 1
  end
  while next_at do
    local _, _, value = name_at(next_at, depth, object)
    next_at, past = following(skip(value, depth), END_OF_OBJECT)
  end
  return past
end

local function skip_array(at, depth)
  depth = deeper(at, depth)
  local next_at, past = space(at + 1), nil
  if bytes[next_at] == END_OF_ARRAY then
    return next_at + 1
  end
  while next_at do
    next_at, past = following(skip(next_at, depth), END_OF_ARRAY)
  end
  return past
end

-- The place after a value in which nothing changes.
function skip(at, depth)
  local c = bytes[at]
  if c == OBJECT then
    return skip_object(at, depth)
  elseif c == ARRAY then
    return skip_array(at, depth)
  end
  return scalar_at(at)
end

local change

-- The white space before a new member, and what is between its name and its value, as the object's author has them.
local function style(first, last, past_name, value)
  local between = sub(text, past_name + 1, value)
  local before = ""
  if last > first then
    local comma = last
    while bytes[comma - 1] ~= COMMA do
      comma = comma - 1
    end
    before = sub(text, comma + 1, last)
  elseif bytes[first - 1] ~= OBJECT then
    local brace = first
    while bytes[brace - 1] ~= OBJECT do
      brace = brace - 1
    end
    before = sub(text, brace + 1, first)
  elseif between ~= ":" then
    before = " "
  end
  return before, between
end

-- Changes the value of a member, and returns the place after it.
local function change_member(member, at, depth)
  local c, value = bytes[at], member.set
  local past
  if value ~= nil and (value.members == nil or (c ~= OBJECT and c ~= ARRAY)) then
    past = skip(at, depth)
    edit(at, past, { value = value })
  elseif member.node ~= nil then
    past = change(at, depth, member.node)
  else
    past = skip(at, depth)
  end
  if member.capture ~= nil then
    for _, number in ipairs(member.capture) do
      captured[number] = captured[number] or sub(text, at + 1, past)
    end
  end
  return past
end

local function unwanted(member, only)
  if member == nil then
    return only
  end
  local value = member.set
  return member.remove
    or (value ~= nil and value.source ~= nil and outside[value.source] == nil and value.default == nil)
end

-- Fails if a member that stays has the new name of another one. `begin` is the place of the object.
local function distinct(begin, node, known, object)
  local renames = node.renames
  for at = 1, #renames do
    local new = renames[at].new
    if known[renames[at].old] == object and known[new] == object then
      local member = node.members[new]
      if not unwanted(member, node.only) and (member == nil or member.rename == nil) then
        fail(begin, "the object has a member of the new name too")
      end
    end
  end
end

local function change_object(begin, depth, node)
  depth = deeper(begin, depth)
  local object = object_number()
  local members = node.members
  local first, past = space(begin + 1), nil
  local next_at, last, last_name, last_value = first, nil, nil, nil
  local kept, kept_past = false, begin + 1 -- the place after the last member that stays
  local removed -- the place of the first member, if it and all until now are removed
  local present = node.sets ~= nil and {} or nil
  if bytes[first] == END_OF_OBJECT then
    past, next_at = first + 1, nil
  end
  while next_at do
    local name, past_name, value = name_at(next_at, depth, object)
    local member = members[name]
    local past_value
    last, last_name, last_value = next_at, past_name, value
    if unwanted(member, node.only) then
      local before = edits
      past_value = member ~= nil and change_member(member, value, depth) or skip(value, depth)
      edits = before
      if kept then
        edit(kept_past, past_value, "")
        kept_past = past_value
      else
        removed = removed or next_at
      end
    else
      if removed then
        edit(removed, next_at, "")
        removed = nil
      end
      if member == nil then
        past_value = skip(value, depth)
      else
        if member.rename ~= nil then
          edit(next_at, past_name, member.rename)
        end
        past_value = change_member(member, value, depth)
        if present ~= nil then
          present[name] = true
        end
      end
      kept, kept_past = true, past_value
    end
    next_at, past = following(past_value, END_OF_OBJECT)
    if next_at == nil and removed then
      edit(removed, past_value, "")
      kept_past = past_value
    end
  end
  if node.renames ~= nil and last ~= nil then
    distinct(begin, node, names[depth], object)
  end
  if present ~= nil then
    local missing = {}
    for _, name in ipairs(node.sets) do
      if not present[name] then
        missing[#missing + 1] = members[name].set
      end
    end
    local before, between = "", ":"
    if last ~= nil then
      before, between = style(first, last, last_name, last_value)
    end
    edit(kept_past, kept_past, { append = missing, comma = kept, before = before, between = between })
  end
  return past
end

local function change_array(at, depth, node)
  depth = deeper(at, depth)
  local element = node.elements or node
  local next_at, past = space(at + 1), nil
  if bytes[next_at] == END_OF_ARRAY then
    return next_at + 1
  end
  while next_at do
    local value = next_at
    next_at, past = following(change(value, depth, element), END_OF_ARRAY)
  end
  return past
end

-- Changes a value by a node, and returns the place after it. A keep list has no use for a value that has no members.
function change(at, depth, node)
  local c = bytes[at]
  if c == OBJECT then
    return change_object(at, depth, node)
  elseif c == ARRAY then
    return change_array(at, depth, node)
  end
  local past = scalar_at(at)
  if node.only then
    edit(at, past, "null")
  end
  return past
end

-- The JSON of a value, or nil. `between` is what its author has between a name and a value.
local function json_of(value, between)
  if value.text ~= nil then
    return value.text
  elseif value.members == nil then
    return (value.source ~= nil and outside[value.source] or value.captured ~= nil and captured[value.captured])
      or value.default
  end
  local parts = {}
  for _, one in ipairs(value.members) do
    local inside = json_of(one, between)
    if inside ~= nil then
      parts[#parts + 1] = one.name .. between .. inside
    end
  end
  return #parts > 0 and "{" .. concat(parts, between == ":" and "," or ", ") .. "}" or nil
end

-- New members at the end of an object.
local function appended(addition)
  local parts, comma = {}, addition.comma
  for _, value in ipairs(addition.append) do
    local json = json_of(value, addition.between)
    if json ~= nil then
      parts[#parts + 1] = (comma and "," .. addition.before or "") .. value.name .. addition.between .. json
      comma = true
    end
  end
  return concat(parts)
end

-- The text of the range with all edits.
local function edited(first, past)
  local parts, at = {}, first
  for number = 1, edits do
    local with, begin, done = replacement[number], from[number], to[number]
    if type(with) == "table" then
      with = with.append ~= nil and appended(with) or with.value ~= nil and json_of(with.value, ":") or nil
    end
    if with ~= nil then
      parts[#parts + 1] = sub(text, at + 1, begin)
      parts[#parts + 1] = with
      at = done
    end
  end
  parts[#parts + 1] = sub(text, at + 1, past)
  return concat(parts)
end

-- The range of the value at a path of names, or nil.
local function inner(at, path)
  for _, wanted in ipairs(path) do
    if bytes[at] ~= OBJECT then
      return nil
    end
    local next_at, found = space(at + 1), nil
    while next_at and bytes[next_at] ~= END_OF_OBJECT do
      local name, _, value = name_at(next_at, 0, object_number())
      if name == wanted then
        found = value
        break
      end
      next_at = following(skip(value, 0), END_OF_OBJECT)
    end
    if found == nil then
      return nil
    end
    at = found
  end
  return at
end

local function read(plan)
  local begin = space(0)
  local at = begin
  if plan.unwrap ~= nil then
    local past = space(skip(begin, 0))
    if past ~= #text then
      fail(past, "more than one value")
    end
    at = inner(begin, plan.unwrap) or begin
  end
  local past = plan.node ~= nil and change(at, 0, plan.node) or skip(at, 0)
  if plan.unwrap == nil then
    local rest = space(past)
    if rest ~= #text then
      fail(rest, "more than one value")
    end
  end
  if at == begin and plan.wrap == nil then
    at, past = 0, #text
  end
  local result = edits > 0 and edited(at, past) or sub(text, at + 1, past)
  if plan.wrap ~= nil then
    for number = #plan.wrap, 1, -1 do
      result = "{" .. plan.wrap[number] .. ":" .. result .. "}"
    end
  end
  return result
end

-- The changed text, or nil and what is wrong with the text: `at` (bytes before the place) and `what`.
-- `values` are the values of sources as JSON, by their numbers; a source without a value sets nothing.
local function transformed(body, plan, values)
  text, bytes = body, ffi.cast("const uint8_t *", body)
  edits, captured, outside = 0, {}, values
  local done, result = pcall(read, plan)
  text, bytes, captured, outside = nil, nil, nil, nil
  if remembered > MOST_NAMES then
    names, remembered = {}, 0
  end
  if done then
    return result
  elseif type(result) == "table" then
    return nil, result
  end
  error(result, 0)
end
