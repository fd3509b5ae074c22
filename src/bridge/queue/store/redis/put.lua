-- Keeps new jobs. A full Redis refuses the first write, and with it all of them.
-- ARGV: number of the put, bytes that may wait, dead letters, bytes of them, then target and text of each job.
local jobs, ready, lanes, later, failed, state, sizes, dead, dead_order, last =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local number = tonumber(ARGV[1])
local known = tonumber(redis.call('GET', last) or '0')
if number <= known then return {0, 0} end
redis.call('SET', last, ARGV[1], 'EX', 3600)
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSETNX', state, 'born', now)
local bytes = 0
for i = 5, #ARGV, 2 do
  local target, text = ARGV[i], ARGV[i + 1]
  local member = target .. '/' .. string.format('%016.0f', redis.call('HINCRBY', state, 'seq', 1))
  redis.call('HSET', jobs, member, text)
  redis.call('ZADD', ready, 0, member)
  redis.call('ZADD', lanes, 'NX', now, target)
  redis.call('ZINCRBY', sizes, #text, target)
  bytes = redis.call('HINCRBY', state, 'bytes', #text)
end

-- Beyond the bound the target that has the most loses its oldest job.
local overflown, dropped = 0, 0
local function first_of(target)
  local low, high = '[' .. target .. '/', '(' .. target .. '0'
  return redis.call('ZRANGEBYLEX', ready, low, high, 'LIMIT', 0, 1)[1]
end
local function bury(member, text)
  local id = redis.call('HINCRBY', state, 'dead_seq', 1)
  local attempts = redis.call('HGET', failed, member) or '0'
  local letter = '{"died":' .. now .. ',"reason":"overflow","attempts":' .. attempts .. ',"job":' .. text .. '}'
  redis.call('HSET', dead, id, letter)
  redis.call('ZADD', dead_order, id, id)
  local dead_bytes = redis.call('HINCRBY', state, 'dead_bytes', #letter)
  while redis.call('ZCARD', dead_order) > tonumber(ARGV[3]) or dead_bytes > tonumber(ARGV[4]) do
    local oldest = redis.call('ZRANGE', dead_order, 0, 0)[1]
    if not oldest then break end
    dead_bytes = redis.call('HINCRBY', state, 'dead_bytes', -redis.call('HSTRLEN', dead, oldest))
    redis.call('HDEL', dead, oldest)
    redis.call('ZREM', dead_order, oldest)
    dropped = dropped + 1
  end
end
-- A put adds a bounded number; what is above the bound for another reason goes with later puts.
for _ = 1, #ARGV do
  if bytes <= tonumber(ARGV[2]) then break end
  local member
  for _, target in ipairs(redis.call('ZREVRANGE', sizes, 0, 9)) do
    member = first_of(target)
    if member then break end
  end
  if not member then break end
  local text = redis.call('HGET', jobs, member)
  redis.call('ZREM', ready, member)
  if text then
    bury(member, text)
    redis.call('HDEL', jobs, member)
    redis.call('HDEL', failed, member)
    local target = string.sub(member, 1, 32)
    if tonumber(redis.call('ZINCRBY', sizes, -#text, target)) <= 0 then redis.call('ZREM', sizes, target) end
    bytes = redis.call('HINCRBY', state, 'bytes', -#text)
    overflown = overflown + 1
  end
end
return {overflown, dropped}
