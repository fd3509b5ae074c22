-- What became of a node's jobs, and the jobs that it gets.
-- ARGV: node, number of its turn, its lease in ms, whether it was there before, dead letters, bytes of them, then lists with
-- their lengths before them: done; again (job, ms); back; dead (job or '', letter); holds (-1: not said);
-- left targets (target, ms); then room, what of it is for new targets, room per new target, targets at most, wanted targets (target, jobs).
local jobs, ready, lanes, later, failed, state, sizes, dead, dead_order =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local held, owned, nodes, last = KEYS[10], KEYS[11], KEYS[12], KEYS[13]
-- After a write that needs no memory a full Redis lets a script do the rest: so the queue drains.
redis.call('ZREM', nodes, '')

local position = 0
local function next_word()
  position = position + 1
  return ARGV[position]
end
local function next_number() return tonumber(next_word()) end
local function text_of(number) return string.format('%.0f', number) end
local function target_of(member) return string.sub(member, 1, 32) end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local node, number, lease_ms, was_there = next_word(), next_number(), next_number(), next_word()
-- A turn that was given up and comes late, out of a connection that was closed meanwhile, would take jobs unheard.
if number <= tonumber(redis.call('GET', last) or '0') then return {} end
redis.call('SET', last, text_of(number), 'EX', 3600)
local letters_max, letter_bytes_max = next_number(), next_number()
local OWNED = '9007199254740991'

local function has_ready(target)
  local low, high = '[' .. target .. '/', '(' .. target .. '0'
  return #redis.call('ZRANGEBYLEX', ready, low, high, 'LIMIT', 0, 1) > 0
end
local function set_free(member)
  if redis.call('HEXISTS', jobs, member) == 1 then
    redis.call('ZADD', ready, 0, member)
    redis.call('ZADD', lanes, 'NX', text_of(now), target_of(member))
    return 1
  end
  return 0
end
local function disown(target, ms)
  if has_ready(target) then
    redis.call('ZADD', lanes, text_of(now + ms), target)
  else
    redis.call('ZREM', lanes, target)
  end
end
local function forget(member)
  local bytes = redis.call('HSTRLEN', jobs, member)
  if bytes == 0 then return end
  redis.call('HDEL', jobs, member)
  redis.call('HDEL', failed, member)
  redis.call('ZREM', ready, member)
  redis.call('ZREM', later, member)
  redis.call('HINCRBY', state, 'bytes', -bytes)
  local target = target_of(member)
  if tonumber(redis.call('ZINCRBY', sizes, -bytes, target)) <= 0 then
    redis.call('ZREM', sizes, target)
  end
end

-- Who is alive.
local was_dead = 0
if not redis.call('ZSCORE', nodes, node) and was_there == '1' then was_dead = 1 end
redis.call('ZADD', nodes, text_of(now + lease_ms), node)
redis.call('HSETNX', state, 'born', text_of(now))
local recovered = 0
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', nodes, '-inf', text_of(now), 'LIMIT', 0, 4)) do
  local low, high = '[' .. gone .. '/', '(' .. gone .. '0'
  local theirs = redis.call('ZRANGEBYLEX', held, low, high, 'LIMIT', 0, 1000)
  for _, entry in ipairs(theirs) do
    redis.call('ZREM', held, entry)
    recovered = recovered + set_free(string.sub(entry, #gone + 2))
  end
  local targets = redis.call('ZRANGEBYLEX', owned, low, high, 'LIMIT', 0, 1000)
  for _, entry in ipairs(targets) do
    redis.call('ZREM', owned, entry)
    disown(string.sub(entry, #gone + 2), 0)
  end
  if #theirs < 1000 and #targets < 1000 then redis.call('ZREM', nodes, gone) end
end

-- What became of jobs.
for _ = 1, next_number() do
  local member = next_word()
  redis.call('ZREM', held, node .. '/' .. member)
  forget(member)
end
for _ = 1, next_number() do
  local member, ms = next_word(), next_number()
  if redis.call('ZREM', held, node .. '/' .. member) == 1 and redis.call('HEXISTS', jobs, member) == 1 then
    redis.call('HINCRBY', failed, member, 1)
    redis.call('ZADD', later, text_of(now + ms), member)
  end
end
for _ = 1, next_number() do
  local member = next_word()
  if redis.call('ZREM', held, node .. '/' .. member) == 1 then set_free(member) end
end
local dropped = 0
for _ = 1, next_number() do
  local member, letter = next_word(), next_word()
  local is_known = true
  if member ~= '' then
    redis.call('ZREM', held, node .. '/' .. member)
    is_known = redis.call('HEXISTS', jobs, member) == 1
    forget(member)
  end
  if is_known then
    local id = redis.call('HINCRBY', state, 'dead_seq', 1)
    redis.call('HSET', dead, id, letter)
    redis.call('ZADD', dead_order, id, id)
    local bytes = redis.call('HINCRBY', state, 'dead_bytes', #letter)
    while redis.call('ZCARD', dead_order) > letters_max or bytes > letter_bytes_max do
      local oldest = redis.call('ZRANGE', dead_order, 0, 0)[1]
      if not oldest then break end
      bytes = redis.call('HINCRBY', state, 'dead_bytes', -redis.call('HSTRLEN', dead, oldest))
      redis.call('HDEL', dead, oldest)
      redis.call('ZREM', dead_order, oldest)
      dropped = dropped + 1
    end
  end
end
local holds = next_number()
if holds >= 0 then
  local is_held = {}
  for _ = 1, holds do is_held[next_word()] = true end
  for _, entry in ipairs(redis.call('ZRANGEBYLEX', held, '[' .. node .. '/', '(' .. node .. '0')) do
    local member = string.sub(entry, #node + 2)
    if not is_held[member] then
      redis.call('ZREM', held, entry)
      set_free(member)
    end
  end
  -- Nor does it know all targets that it was given: it gets them anew.
  for _, entry in ipairs(redis.call('ZRANGEBYLEX', owned, '[' .. node .. '/', '(' .. node .. '0')) do
    redis.call('ZREM', owned, entry)
    disown(string.sub(entry, #node + 2), 0)
  end
end
for _, member in ipairs(redis.call('ZRANGEBYSCORE', later, '-inf', text_of(now), 'LIMIT', 0, 200)) do
  redis.call('ZREM', later, member)
  set_free(member)
end
for _ = 1, next_number() do
  local target, ms = next_word(), next_number()
  if redis.call('ZREM', owned, node .. '/' .. target) == 1 then disown(target, ms) end
end

-- What the node gets: of its targets first, then of targets that are nobody's.
local room, reserve, room_per_target, targets_max = next_number(), next_number(), next_number(), next_number()
local taken, released = {}, {}
local function take(target, count)
  local low, high = '[' .. target .. '/', '(' .. target .. '0'
  local given = 0
  for _, member in ipairs(redis.call('ZRANGEBYLEX', ready, low, high, 'LIMIT', 0, count)) do
    redis.call('ZREM', ready, member)
    local job = redis.call('HGET', jobs, member)
    if job then
      redis.call('ZADD', held, 0, node .. '/' .. member)
      taken[#taken + 1] = member
      taken[#taken + 1] = redis.call('HGET', failed, member) or '0'
      taken[#taken + 1] = job
      given = given + 1
    end
  end
  room = room - given
  return given
end
for _ = 1, next_number() do
  local target, wanted = next_word(), next_number()
  local entry = node .. '/' .. target
  if not redis.call('ZSCORE', owned, entry) then
    released[#released + 1] = target
  else
    local count = math.min(wanted, room - reserve)
    if count > 0 and take(target, count) < count and not has_ready(target)
      and redis.call('ZLEXCOUNT', held, '[' .. entry .. '/', '(' .. entry .. '0') == 0 then
      redis.call('ZREM', owned, entry)
      redis.call('ZREM', lanes, target)
      released[#released + 1] = target
    end
  end
end
if room > 0 then
  for _, target in ipairs(redis.call('ZRANGEBYSCORE', lanes, '-inf', text_of(now), 'LIMIT', 0, targets_max)) do
    if room <= 0 then break end
    if take(target, math.min(room, room_per_target)) > 0 then
      redis.call('ZADD', lanes, OWNED, target)
      redis.call('ZADD', owned, 0, node .. '/' .. target)
    elseif not has_ready(target) then
      redis.call('ZREM', lanes, target)
    end
  end
end
return {
  was_dead, redis.call('HGET', state, 'born'), recovered, dropped, redis.call('HLEN', jobs),
  redis.call('HGET', state, 'bytes') or '0', redis.call('HLEN', dead), released, taken,
}
