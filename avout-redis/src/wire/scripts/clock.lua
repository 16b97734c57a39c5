local call, sub, pack, unpacked = redis.call, string.sub, struct.pack, struct.unpack

-- The two halves of the clock's point. Nothing, and the reply to give, if this is not the history that the client knows.
local function now(clock, era, high, low)
  if not clock or #clock ~= 16 or sub(clock, 1, 8) ~= era then
    return nil, 0
  end
  local h, l = unpacked('>I4I4', clock, 9)
  if h < high or (h == high and l < low) then
    return nil, 1
  end
  return h, l
end

-- The next point. Nothing when all have been used.
local function tick(h, l)
  l = l + 1
  if l == 4294967296 then
    h, l = h + 1, 0
    if h % 4096 == 0 then
      return nil
    end
  end
  return pack('>I4I4', h, l)
end

-- The least number of commits with which one of the eras from `known` to the one before `number` ended: up to there the client's
-- history, of the era `known`, is a part of the present one. That era must have ended.
local function shortest(meta, known, number)
  local least
  for era = known, number - 1 do
    local ended = call('HGET', meta, 'era:' .. era)
    if ended then
      local h, l = unpacked('>I4I4', ended, 9)
      local count = h % 4096 * 4294967296 + l
      least = math.min(least or count, count)
    end
  end
  return string.format('%.0f', least)
end

