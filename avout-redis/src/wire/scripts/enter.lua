-- Begins a connection: makes the namespace if there is none, begins another era if this is not the server, or not the
-- history, of the one before, and tells how much of what the client knows has survived.
--
-- KEYS: meta, cells, names.
-- ARGV: 1 format, 2 the server's identity, 3 the realm that the client knows or nothing, 4 the era (number, id) and point that it
-- knows, 5 a new realm, 6 a new era's id, 7 the floor's field, 8 the first floor, 9 a nonce.
local meta, cells, names = KEYS[1], KEYS[2], KEYS[3]
local needed = {
  { 'HGET', cells, '' }, { 'HMGET', cells, '' }, { 'HSET', cells, '', '' }, { 'HDEL', cells, '' }, { 'HSETNX', cells, '', '' },
  { 'HKEYS', cells }, { 'EXISTS', cells }, { 'UNLINK', cells }, { 'ZADD', names, '0', '' }, { 'ZREM', names, '' },
  { 'ZRANGE', names, '-', '+', 'BYLEX' }, { 'PEXPIRE', cells, '1' }, { 'SPUBLISH', cells, '' }, { 'SSUBSCRIBE', cells },
}
for _, command in ipairs(needed) do
  if not redis.acl_check_cmd(unpack(command)) then
    return { 'denied', command[1] }
  end
end

local m = call('HMGET', meta, 'format', 'realm', 'server', 'era')
if not m[1] and ARGV[3] ~= '' then
  -- Evicted, or deleted by mistake: what it says is known while the clock is the one that the client knows.
  local clock = call('HGET', cells, '')
  if clock and #clock == 16 and sub(clock, 1, 8) == sub(ARGV[4], 5, 12) then
    local h = unpacked('>I4', clock, 9)
    m = { ARGV[1], ARGV[3], '', tostring(math.floor(h / 4096)) }
    call('HSET', meta, 'format', m[1], 'realm', m[2], 'server', m[3], 'era', m[4])
    call('HSETNX', cells, 'watched', '')
  end
end
if not m[1] then
  if ARGV[3] ~= '' then
    return { 'lost' }
  end
  if call('EXISTS', meta, cells, names) > 0 then
    return { 'foreign' }
  end
  m = { ARGV[1], ARGV[5], ARGV[2], '1' }
  call('HSET', cells, '', ARGV[6] .. pack('>I4I4', 4096, 0))
  call('HSET', meta, 'format', m[1], 'realm', m[2], 'server', m[3], 'era', m[4])
end
if m[1] ~= ARGV[1] and m[1] ~= '1' then
  return { 'format', m[1] }
end
local clock = call('HGET', cells, '')
if (ARGV[3] ~= '' and ARGV[3] ~= m[2]) or not clock or #clock ~= 16 then
  return { 'lost' }
end
if m[1] == '1' then
  -- Older clients, which may share it, do not say that they watch.
  call('HSETNX', cells, 'watched', '')
end

local number = tonumber(m[4])
local id, h, l = unpacked('>c8I4I4', clock)
local known, known_id, high, low = unpacked('>I4c8I4I4', ARGV[4])
local behind = known == number and (id ~= known_id or h < high or (h == high and l < low))
if m[3] ~= ARGV[2] or known > number or behind then
  local next_number = math.max(number, known) + 1
  if next_number >= 1048576 then
    return { 'eras' }
  end
  -- The floor gets another revision: what began in an earlier era, and wrote values to stores, begins anew.
  local floor = call('HGET', cells, ARGV[7])
  local point = tick(next_number * 4096 + h % 4096, l)
  if not point then
    return { 'points' }
  end
  if not floor then
    call('ZADD', names, 0, ARGV[7])
  end
  call('HSET', meta, 'era:' .. number, clock, 'server', ARGV[2], 'era', next_number)
  clock = ARGV[6] .. point
  call('HSET', cells, '', clock, ARGV[7], point .. ARGV[9] .. (floor and sub(floor, 17) or ARGV[8]))
  number = next_number
end

-- Up to which commit of its era the client's history is a part of this one.
local survived = ''
if known > 0 and known < number then
  local ended = call('HGET', meta, 'era:' .. known)
  if ended and sub(ended, 1, 8) == known_id then
    survived = shortest(meta, known, number)
  else
    survived = 'nothing'
  end
end
return { 'ok', m[2], number, clock, survived }
