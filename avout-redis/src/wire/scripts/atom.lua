-- Writes or destroys the state of an atom.
--
-- KEYS: cells, names. ARGV: head, field, mode, the revision that mode `c` expects, the state.
local era, high, low, nonce = unpacked('>c8I4I4c8', ARGV[1])
local field, mode = ARGV[2], ARGV[3]
local found = call('HMGET', KEYS[1], '', field, 'watched')
local h, l = now(found[1], era, high, low)
if not h then
  return l
end
local cell = found[2]
if mode == 'c' and (cell and sub(cell, 1, 16) or '') ~= ARGV[4] then
  return { found[1], cell }
end
if mode == 'd' and not cell then
  return sub(found[1], 9)
end
local point = tick(h, l)
if not point then
  return 2
end
if found[3] then
  call('SPUBLISH', KEYS[1] .. field, '')
end
if mode == 'd' then
  call('HSET', KEYS[1], '', era .. point)
  call('HDEL', KEYS[1], field)
  call('ZREM', KEYS[2], field)
else
  if not cell then
    call('ZADD', KEYS[2], 0, field)
  end
  call('HSET', KEYS[1], '', era .. point, field, point .. nonce .. ARGV[5])
end
return point
