"""The Lua scripts: each moves messages between a queue's lists and a holder's hash, all or nothing.

    presend:holders         sorted set: who holds messages, with the second it was last heard of
    presend:held:<holder>   hash: number -> the list it came from, a line break, the element as it was;
                            besides `last`, the highest number given so far
    presend:deaths          hash: SHA-1 of an element -> how many of its holders died

No script reads an element, so one that is no message at all comes back byte for byte. Elements are taken
from the right end, as kombu does, and put back there, the oldest outermost.
"""

from __future__ import annotations

from worker.queues import DEAD_QUEUE, DELIVERY_LIMIT

HOLDERS = "presend:holders"
HELD = "presend:held:"
DEATHS = "presend:deaths"

_DEATHS_KEPT_SECONDS = 7 * 24 * 3600
"""Since the last death: a count whose message went some other way must not stay for ever."""

# On a full server a script is refused at its first write if that one needs memory; later ones are not. So
# each begins with one that needs none: a worker must be able to empty a full server.
_COMMON = f"""
redis.call('DEL', '{HELD}')

local function split(value)
  local line_break = string.find(value, '\\n', 1, true)
  return string.sub(value, 1, line_break - 1), string.sub(value, line_break + 1)
end

local function now()
  return tonumber(redis.call('TIME')[1])
end

local function give_back(held, numbers, died)
  table.sort(numbers, function(one, other) return one > other end)
  local given = 0
  for _, number in ipairs(numbers) do
    local value = redis.call('HGET', held, number)
    if value then
      local list, element = split(value)
      if died then
        if redis.call('HINCRBY', '{DEATHS}', redis.sha1hex(element), 1) > {DELIVERY_LIMIT} then
          list = '{DEAD_QUEUE}'
        end
        redis.call('EXPIRE', '{DEATHS}', {_DEATHS_KEPT_SECONDS})
      end
      redis.call('RPUSH', list, element)
      redis.call('HDEL', held, number)
      given = given + 1
    end
  end
  return given
end

local function give_all_back(holder, died)
  local numbers = {{}}
  for _, field in ipairs(redis.call('HKEYS', '{HELD}' .. holder)) do
    numbers[#numbers + 1] = tonumber(field)
  end
  local given = give_back('{HELD}' .. holder, numbers, died)
  redis.call('DEL', '{HELD}' .. holder)
  redis.call('ZREM', '{HOLDERS}', holder)
  return given
end
"""

TAKE = (
    _COMMON
    + f"""
-- KEYS: what this holder holds, then the lists in the order they are asked
-- ARGV: the holder, whether it may register, the last number it knows, the most it takes, the most of each
-- Returns false if the holder is not registered: it was let go, or taken for dead, or Redis was emptied.
local held, known = KEYS[1], tonumber(ARGV[3])
if not redis.call('ZSCORE', '{HOLDERS}', ARGV[1]) then
  if ARGV[2] ~= '1' then
    return false
  end
  redis.call('ZADD', '{HOLDERS}', now(), ARGV[1])
end
local counted = redis.call('EXISTS', '{DEATHS}') == 1
local taken = {{}}
local function add(number, list, element)
  local deaths = counted and redis.call('HGET', '{DEATHS}', redis.sha1hex(element))
  taken[#taken + 1] = {{number, list, element, tonumber(deaths or 0)}}
end
-- what was taken before, but the answer was lost on its way
local last = tonumber(redis.call('HGET', held, 'last') or known)
for number = known + 1, last do
  local value = redis.call('HGET', held, number)
  if value then
    add(number, split(value))
  end
end
for index = 2, #KEYS do
  local most = math.min(tonumber(ARGV[4]) - #taken, tonumber(ARGV[index + 3]))
  if most > 0 then
    for _, element in ipairs(redis.call('RPOP', KEYS[index], most) or {{}}) do
      last = last + 1
      redis.call('HSET', held, last, KEYS[index] .. '\\n' .. element, 'last', last)
      add(last, KEYS[index], element)
    end
  end
end
return taken
"""
)

KEEP = (
    _COMMON
    + f"""
-- ARGV: the holder that is heard of, after how many seconds of silence one is dead
-- Returns how many messages of the dead were given back.
redis.call('ZADD', '{HOLDERS}', 'XX', now(), ARGV[1])
local given = 0
for _, holder in ipairs(redis.call('ZRANGEBYSCORE', '{HOLDERS}', '-inf', now() - tonumber(ARGV[2]))) do
  given = given + give_all_back(holder, true)
end
return given
"""
)

GIVE_BACK = (
    _COMMON
    + """
-- KEYS: what the holder holds; ARGV: the numbers of what it gives back
local numbers = {}
for _, number in ipairs(ARGV) do
  numbers[#numbers + 1] = tonumber(number)
end
return give_back(KEYS[1], numbers, false)
"""
)

LET_GO = (
    _COMMON
    + """
-- ARGV: the holder that gives everything back and is none any more
return give_all_back(ARGV[1], false)
"""
)
