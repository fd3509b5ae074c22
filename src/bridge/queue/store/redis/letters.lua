-- Takes dead letters away, and puts those for which a job is given back into the queue.
-- ARGV: number of each letter, target ('' = drop it), text of the job.
local jobs, ready, lanes, later, failed, state, sizes, dead, dead_order =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local count = 0
for i = 1, #ARGV, 3 do
  local id, target, text = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local bytes = redis.call('HSTRLEN', dead, id)
  if bytes > 0 then
    redis.call('HDEL', dead, id)
    redis.call('ZREM', dead_order, id)
    redis.call('HINCRBY', state, 'dead_bytes', -bytes)
    count = count + 1
    if target ~= '' then
      local seq = redis.call('HINCRBY', state, 'seq', 1)
      local member = target .. '/' .. string.format('%016.0f', seq)
      redis.call('HSET', jobs, member, text)
      redis.call('ZADD', ready, 0, member)
      redis.call('ZADD', lanes, 'NX', now, target)
      redis.call('ZINCRBY', sizes, #text, target)
      redis.call('HINCRBY', state, 'bytes', #text)
    end
  end
end
return count
