-- Begins a connection of a client that only reads: finds the namespace, and tells how much of what the client knows has survived. It
-- changes nothing, so the era stays what it is until somebody enters who writes.
--
-- KEYS: meta, cells, names.
-- ARGV: 1 format, 2 the realm that the client knows or nothing, 3 the era (number, id) and point that it knows.
local meta, cells, names = KEYS[1], KEYS[2], KEYS[3]
local needed = {
  { 'HGET', cells, '' }, { 'HMGET', cells, '' }, { 'EXISTS', cells }, { 'ZRANGE', names, '-', '+', 'BYLEX' },
  { 'SSUBSCRIBE', cells },
}
for _, command in ipairs(needed) do
  if not redis.acl_check_cmd(unpack(command)) then
    return { 'denied', command[1] }
  end
end

local m = call('HMGET', meta, 'format', 'realm', 'era')
local clock = call('HGET', cells, '')
if not m[1] and ARGV[2] ~= '' and clock and #clock == 16 and sub(clock, 1, 8) == sub(ARGV[3], 5, 12) then
  -- Evicted, or deleted by mistake. A client that writes makes it anew.
  local h = unpacked('>I4', clock, 9)
  m = { ARGV[1], ARGV[2], tostring(math.floor(h / 4096)) }
end
if not m[1] then
  if ARGV[2] ~= '' then
    return { 'lost' }
  end
  return { call('EXISTS', meta, cells, names) > 0 and 'foreign' or 'missing' }
end
if m[1] ~= ARGV[1] and m[1] ~= '1' then
  return { 'format', m[1] }
end
if (ARGV[2] ~= '' and ARGV[2] ~= m[2]) or not clock or #clock ~= 16 then
  return { 'lost' }
end

-- Up to which commit of its era the client's history is a part of this one.
local number = tonumber(m[3])
local known, known_id = unpacked('>I4c8', ARGV[3])
local survived = ''
if known > 0 and (known ~= number or known_id ~= sub(clock, 1, 8)) then
  survived = 'nothing'
  local ended = known < number and call('HGET', meta, 'era:' .. known)
  if ended and sub(ended, 1, 8) == known_id then
    survived = shortest(meta, known, number)
  end
end
return { 'ok', m[2], number, clock, survived }
