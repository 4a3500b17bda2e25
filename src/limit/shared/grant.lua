-- One quota for a whole fleet: grants permits of several limits in one atomic step.
--
-- A limit is one number, `tat`, as in the generic cell rate algorithm: when its bucket will be full again. Times are
-- microseconds of this server's clock, counted from 2026. `born` is when the key was made. An instance that remembers
-- another time sees that the server has lost its data.
--
-- KEYS: for each limit a hash and the sorted set of the instances that share it, scored by when each is removed.
-- ARGV: the member's name, then for each limit fifteen numbers, named below. Answers eight numbers for each limit.

local time = redis.call('TIME')
local now = (time[1] - 1767225600) * 1000000 + time[2]
local member = ARGV[1]
-- How long a member is kept, how long it counts as active, how far ahead a lease reaches, the farthest that permits
-- are reserved, the silence that shows an outage, how long all instances take to return (microseconds); how long a
-- key outlives its use (milliseconds).
local LIFE, ACTIVE, LEASE, FARTHEST = 90000000, 3000000, 1000000, 10000000
local SILENCE, RETURN, KEEP = 500000, 2500000, 600000
local answer = {}

for limit = 1, #KEYS / 2 do
  local key, members = KEYS[2 * limit - 1], KEYS[2 * limit]
  local arg = {}
  for i = 1, 15 do arg[i] = tonumber(ARGV[1 + (limit - 1) * 15 + i]) end
  local period, tolerance, grace, need, soon, demand = arg[1], arg[2], arg[3], arg[4], arg[5], arg[6]
  local patience, held, spent, left, seen, reserved = arg[7], arg[8], arg[9], arg[10], arg[11], arg[12]
  local presence, returned, spare = arg[13], arg[14], arg[15]

  local state = redis.call('HMGET', key, 'born', 'tat', 'live', 'active', 'lost', 'opens', 'asked')
  local born, tat = tonumber(state[1]), tonumber(state[2])
  local live, active, lost = tonumber(state[3]), tonumber(state[4]), tonumber(state[5]) or 0
  local opens, asked = tonumber(state[6]) or 0, tonumber(state[7]) or 0
  if not (born and tat) then
    -- The limit was not used for long; or the server has lost it, which the next lines find out.
    born, tat = now, now
  end
  -- Not below: a bucket holds no more than its burst. Not above: this server's clock may have been set back.
  tat = math.min(math.max(tat, now), now + tolerance + period + FARTHEST)
  if seen ~= 0 and seen ~= born and lost == 0 then
    -- The data is lost: assume the worst, an empty bucket.
    lost, asked = 1, 0
    tat = math.max(tat, now + tolerance + period + reserved)
  end
  opens = math.min(opens, now + RETURN)
  if returned > 0 and opens <= now and asked + SILENCE < now then
    -- The first instance that returns after an outage. Until all are back, each keeps to its share, so that no permit
    -- is granted twice.
    opens = now + RETURN
    if lost > 0 then tat = math.max(tat, opens + tolerance + period) end
  end
  asked = now
  local is_open = opens <= now
  if not is_open then
    need, soon, demand = 0, 0, 0
  elseif seen ~= 0 and seen ~= born then
    -- Each instance brings back what it has not used of its share.
    tat = math.max(tat - left * period, now)
  elseif spent > 0 then
    -- What it has used of its share while this server could not be asked.
    tat = math.max(tat, math.min(tat + spent * period, now + tolerance + period))
  end

  if presence > 0 or not (live and active) then
    local forgotten = now + LIFE
    if presence == 2 then forgotten = forgotten - ACTIVE end
    redis.call('ZADD', members, forgotten, member)
    redis.call('ZREMRANGEBYSCORE', members, '-inf', now)
    redis.call('PEXPIRE', members, 2 * LIFE / 1000)
    live = redis.call('ZCARD', members)
    active = redis.call('ZCOUNT', members, '(' .. string.format('%.0f', now + LIFE - ACTIVE), '+inf')
  end

  -- Waiting requests go at once, as far as the burst reaches.
  local at_once, later, first = 0, 0, 0
  if tat <= now + tolerance then
    at_once = math.min(need, math.floor((now + tolerance - tat) / period) + 1)
    tat = tat + at_once * period
    -- Permits that are only likely to be used count as if they were used at the end of their grace.
    local late = math.max(tat, now + grace)
    if at_once < soon and at_once == need and late <= now + tolerance then
      local more = math.min(soon - need, math.floor((now + tolerance - late) / period) + 1)
      at_once, tat = at_once + more, late + more * period
    end
  end
  -- Of later permits each instance may reserve its part of a lease, so that they take turns.
  local moment = tat - tolerance
  if (at_once < need or demand > 0) and moment > now then
    local function within(horizon)
      if moment > now + horizon then return 0 end
      return math.floor((now + horizon - moment) / period) + 1
    end
    local most = math.max(1, math.floor(LEASE / (math.max(active, 1) * period))) - held
    local missing = math.max(0, need - at_once)
    local needed = math.min(missing, within(math.min(patience, FARTHEST)))
    -- The requests that will come before the first of these permits can be used, as far as they would wait for it,
    -- and while it lasts. Less a standard deviation, because an unused permit is lost for all.
    local span = math.min(moment - now, patience) + math.min(tolerance, LEASE)
    local likely = demand * span / 1000000
    likely = math.max(0, math.floor(likely - math.sqrt(likely)) - spare)
    local wanted = math.min(missing + likely, within(LEASE))
    later = math.max(0, math.min(math.max(needed, wanted), most))
    if later > 0 then
      first = math.ceil(moment - now)
      tat = tat + later * period
    end
  end

  redis.call('HSET', key, 'born', string.format('%.0f', born), 'tat', string.format('%.3f', tat),
    'live', live, 'active', active, 'lost', lost, 'opens', string.format('%.0f', opens),
    'asked', string.format('%.0f', asked))
  redis.call('PEXPIRE', key, string.format('%.0f', math.ceil((tat - now) / 1000) + KEEP))
  local ahead, wait = math.ceil(tat - now), math.max(opens - now, 0)
  for _, number in ipairs({ at_once, later, first, ahead, born, live, active, wait }) do
    answer[#answer + 1] = number
  end
end
return answer
