-- What became of a node's jobs, and the jobs that it gets.
-- ARGV: node, number of its turn, its lease in ms, whether it was there before, dead letters, bytes of them, then lists with
-- their lengths before them: done; again (job, ms, what its attempt met); back; dead (job or '', letter); holds (-1: not said);
-- left targets (target, ms); then room, room per new target, apps to look at, whether new targets come first, apps of which
-- the node has something (app, jobs), wanted targets (target, jobs, place of its app; 0: it fails).
-- `apps` has the targets that are nobody's once more, by app. It is made here, of `lanes` and of the jobs' texts, so that nodes
-- of builds before need not know it: an entry may be of a target that has an owner by now, and is dropped when that is seen.
local jobs, ready, lanes, later, failed, state, sizes, dead, dead_order =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local held, owned, nodes, last, apps = KEYS[10], KEYS[11], KEYS[12], KEYS[13], KEYS[14]
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

-- Notes in a job's text what its last attempt met, instead of what the one before did. No quote in it is bare, so what is
-- looked for cannot stand in it.
local function note(member, error)
  local text = redis.call('HGET', jobs, member)
  local head, rest = string.match(text, '^({"v":%d+,)(.*)$')
  if not head then return end
  rest = string.match(rest, '^"error":".-",("app":".*)$') or rest
  local new = head .. '"error":"' .. error .. '",' .. rest
  redis.call('HSET', jobs, member, new)
  redis.call('HINCRBY', state, 'bytes', #new - #text)
  redis.call('ZINCRBY', sizes, #new - #text, target_of(member))
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
  local member, ms, error = next_word(), next_number(), next_word()
  if redis.call('ZREM', held, node .. '/' .. member) == 1 and redis.call('HEXISTS', jobs, member) == 1 then
    redis.call('HINCRBY', failed, member, 1)
    if error ~= '' then note(member, error) end
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

-- Which targets are nobody's, by app: those that came to be so since this was looked at last, and the oldest, in case one
-- was overlooked. A put has 512 jobs at most.
local SWEEP_MAX = 600
local function entry_of(target)
  local member = redis.call('ZRANGEBYLEX', ready, '[' .. target .. '/', '(' .. target .. '0', 'LIMIT', 0, 1)[1]
  local job = member and redis.call('HGET', jobs, member)
  -- What is no job of ours is an app of its own.
  local app = job and (string.match(job, '^{"v":%d+,"app":"(.-)","target":"')
    or string.match(job, '^{"v":%d+,"error":".-","app":"(.-)","target":"') or target)
  return app and app .. '\1' .. target
end
local function sweep(low, count)
  local found = redis.call('ZRANGEBYSCORE', lanes, low, text_of(now), 'LIMIT', 0, count)
  for _, target in ipairs(found) do
    local entry = entry_of(target)
    if entry then redis.call('ZADD', apps, 0, entry) else redis.call('ZREM', lanes, target) end
  end
  return found
end
local swept = tonumber(redis.call('HGET', state, 'swept') or '0')
if now < swept then swept = 0 end
local found = sweep(text_of(swept), SWEEP_MAX)
if #found < SWEEP_MAX then
  swept = now
else
  local reached = tonumber(redis.call('ZSCORE', lanes, found[#found]) or swept)
  swept = math.max(reached, swept + 1)
end
redis.call('HSET', state, 'swept', text_of(swept))
sweep('-inf', 2)

-- What the node gets. An app that has some leaves a third of the room; who has none has one.
local room, room_per_target, apps_max, new_first = next_number(), next_number(), next_number(), next_word()
local has, known = {}, {}
for i = 1, next_number() do
  local app = next_word()
  known[i] = app
  has[app] = next_number()
end
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
  return given
end
local function share(app)
  if room <= 0 then return 0 end
  local jobs_of_app = has[app] or 0
  local count = math.ceil((2 * room - jobs_of_app - 1) / 3)
  if jobs_of_app == 0 then return math.max(count, 1) end
  return math.max(count, 0)
end
local function take_of(app, target, count)
  count = math.min(count, share(app))
  if count <= 0 then return 0 end
  local given = take(target, count)
  has[app] = (has[app] or 0) + given
  room = room - given
  return given
end
-- The next target of an app that is nobody's, and its first jobs. False if there is none.
local looks = 256
local function adopt(app)
  while looks > 0 and share(app) > 0 do
    looks = looks - 1
    local entry = redis.call('ZRANGEBYLEX', apps, '[' .. app .. '\1', '(' .. app .. '\2', 'LIMIT', 0, 1)[1]
    if not entry then return false end
    redis.call('ZREM', apps, entry)
    local target = string.sub(entry, #app + 2)
    local since = tonumber(redis.call('ZSCORE', lanes, target) or OWNED)
    if since <= now then
      if take_of(app, target, room_per_target) > 0 then
        redis.call('ZADD', lanes, OWNED, target)
        redis.call('ZADD', owned, 0, node .. '/' .. target)
        return true
      elseif has_ready(target) then
        redis.call('ZADD', lanes, text_of(now), target)
      else
        redis.call('ZREM', lanes, target)
      end
    end
  end
  return false
end

-- Apps of which the node has nothing have one job each: of its own targets, and of the others in turn.
local wanted = {}
for i = 1, next_number() do
  local target, count, app = next_word(), next_number(), known[next_number()]
  local is_owned = redis.call('ZSCORE', owned, node .. '/' .. target)
  if not is_owned then
    released[#released + 1] = target
  else
    local given = 0
    if not app then
      given = take(target, count)
    elseif has[app] == 0 then
      given = take_of(app, target, 1)
    end
    wanted[#wanted + 1] = {target, count - given, app}
  end
end
local looked_at = redis.call('HGET', state, 'looked_at') or ''
local low, was_seen = '(' .. looked_at .. '\2', {}
for _ = 1, apps_max do
  if room <= 0 then break end
  local entry = redis.call('ZRANGEBYLEX', apps, low, '+', 'LIMIT', 0, 1)[1]
    or redis.call('ZRANGEBYLEX', apps, '-', '+', 'LIMIT', 0, 1)[1]
  local app = entry and string.match(entry, '^(.-)\1')
  if not app or was_seen[app] then break end
  was_seen[app] = true
  looked_at = app
  if (has[app] or 0) == 0 then adopt(app) end
  low = '(' .. app .. '\2'
end
redis.call('HSET', state, 'looked_at', looked_at)
-- Then all get more, who has the fewest first.
local function adopt_more()
  for _, app in ipairs(known) do
    while adopt(app) do end
  end
end
if new_first == '1' then adopt_more() end
for _, it in ipairs(wanted) do
  local target, count, app = it[1], it[2], it[3]
  if app and count > 0 then count = count - take_of(app, target, count) end
  if count > 0 and not has_ready(target) then
    local entry = node .. '/' .. target
    if redis.call('ZLEXCOUNT', held, '[' .. entry .. '/', '(' .. entry .. '0') == 0 then
      redis.call('ZREM', owned, entry)
      redis.call('ZREM', lanes, target)
      released[#released + 1] = target
    end
  end
end
if new_first ~= '1' then adopt_more() end
-- What a Redis that evicts took away without a word is not there any more.
if redis.call('HLEN', jobs) == 0 and (redis.call('HGET', state, 'bytes') or '0') ~= '0' then
  redis.call('HSET', state, 'bytes', 0)
  -- Of the rights that the queue needs DEL is none.
  redis.call('ZREMRANGEBYRANK', sizes, 0, -1)
end
return {
  was_dead, redis.call('HGET', state, 'born'), recovered, dropped, redis.call('HLEN', jobs),
  redis.call('HGET', state, 'bytes') or '0', redis.call('HLEN', dead), released, taken,
}
