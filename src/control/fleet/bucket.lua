-- One bucket of a limit that a fleet shares: takes tokens from it, by this server's own clock.
--
-- KEYS[1]  the bucket: a time in microseconds, and for each window which part of it is missing,
--          0: it is full, 1: it is empty, up to 2: it owes what it can hold. A bucket that is not
--          there is full. As parts, so that another rate or burst fills nothing.
-- ARGV     tokens that come back, tokens that are taken whether they are there or not, tokens that
--          requests wait for, what the first of them needs, what was used since the last time, and
--          into how many parts a full bucket is divided; then for each window what it holds, and
--          the microseconds in which it fills.
-- Answers  tokens, what is left, microseconds until that window is full, its number from 0, and
--          microseconds until there are enough, 0 when there are.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local given, charged = tonumber(ARGV[1]), tonumber(ARGV[2])
local want, least = tonumber(ARGV[3]), tonumber(ARGV[4])
local used, parts = tonumber(ARGV[5]), tonumber(ARGV[6])
local windows = (#ARGV - 6) / 2

local known, at, most = {}, now, 0
for word in string.gmatch(redis.call('GET', KEYS[1]) or '', '%S+') do
  known[#known + 1] = tonumber(word)
end
if #known > 0 then at = table.remove(known, 1) end
for _, missing in ipairs(known) do most = math.max(most, missing) end

-- Whole tokens; a little is added for what numbers lose on their way.
local function there(part, holds)
  return math.max(0, math.floor((1 - part) * holds + 0.000001))
end

-- What is missing now.
local passed = math.max(0, now - at)
local missing, have = {}, math.huge
for n = 1, windows do
  local holds, fills = tonumber(ARGV[5 + 2 * n]), tonumber(ARGV[6 + 2 * n])
  -- With other windows than before, each misses as much as the emptiest that was there.
  local part = #known == windows and known[n] or most
  part = math.max(0, part - passed / fills)
  part = math.max(0, part - given / holds)
  part = math.max(part, math.min(2, part + charged / holds))
  missing[n] = part
  have = math.min(have, there(part, holds))
end

local tokens = 0
if have >= least then
  tokens = math.min(have, math.max(want, math.min(math.floor(have / parts), 2 * used)))
end

local lasts, wait, text = 0, 0, { string.format('%.0f', now) }
local short = tokens < want or have < math.max(1, least)
-- Of the window that has least.
local rest, which, full = math.huge, 0, 0
for n = 1, windows do
  local holds, fills = tonumber(ARGV[5 + 2 * n]), tonumber(ARGV[6 + 2 * n])
  local part = missing[n] + tokens / holds
  local left = part * fills
  lasts = math.max(lasts, left)
  local tokens_left = there(part, holds)
  if tokens_left < rest then rest, which, full = tokens_left, n - 1, math.ceil(left) end
  if short then
    local needs = math.min(holds, math.max(1, least))
    wait = math.max(wait, math.ceil((part - 1 + needs / holds) * fills), 1)
  end
  text[n + 1] = string.format('%.17g', part)
end
if lasts > 0 then
  redis.call('SET', KEYS[1], table.concat(text, ' '), 'PX', math.ceil(lasts / 1000) + 1)
elseif #known > 0 then
  redis.call('DEL', KEYS[1])
end
return { tokens, rest, full, which, wait }
