-- Compares the revisions of all cells, and then writes, or answers with the cells that are not as expected.
--
-- KEYS: cells, names.
-- ARGV: head; then the clock's field and n fields, those of the puts first and of the deletes last; n revisions, where the empty
-- one expects absence; and the records of the puts. The last `quiet` puts are told to nobody, and none is if nobody has ever
-- watched anything.
local era, high, low, nonce, puts, checks, deletes, quiet = unpacked('>c8I4I4c8I4I4I4I4', ARGV[1])
local n = puts + checks + deletes

local found
if n < 4000 then
  found = call('HMGET', KEYS[1], 'watched', unpack(ARGV, 2, n + 2))
else
  found = call('HMGET', KEYS[1], 'watched')
  for first = 2, n + 2, 4000 do
    local part = call('HMGET', KEYS[1], unpack(ARGV, first, math.min(first + 3999, n + 2)))
    for i = 1, #part do
      found[first - 1 + i] = part[i]
    end
  end
end

local watched, clock = found[1], found[2]
local h, l = now(clock, era, high, low)
if not h then
  return l
end
local stale
for i = 1, n do
  local cell = found[i + 2]
  if (cell and sub(cell, 1, 16) or '') ~= ARGV[n + 2 + i] then
    stale = stale or { clock }
    stale[#stale + 1] = i
    stale[#stale + 1] = cell
  end
end
if stale then
  return stale
end
if puts + deletes == 0 then
  return sub(clock, 9)
end

local point = tick(h, l)
if not point then
  return 2
end
-- Only the last writes are to what counts: whatever is refused before them, for want of a right or of a type, leaves a hint or
-- a name too many and nothing else. Hints are sent when the script has ended.
if watched then
  for i = 1, puts - quiet do
    call('SPUBLISH', KEYS[1] .. ARGV[2 + i], '')
  end
  for i = n - deletes + 1, n do
    call('SPUBLISH', KEYS[1] .. ARGV[2 + i], '')
  end
end
for i = 1, puts do
  if ARGV[n + 2 + i] == '' then
    call('ZADD', KEYS[2], 0, ARGV[2 + i])
  end
end
local revision, records = point .. nonce, 2 * n + 2
local fields, count = { '', era .. point }, 2
for i = 1, puts do
  fields[count + 1], fields[count + 2] = ARGV[2 + i], revision .. ARGV[records + i]
  count = count + 2
  if count >= 4000 then
    call('HSET', KEYS[1], unpack(fields, 1, count))
    count = 0
  end
end
if count > 0 then
  call('HSET', KEYS[1], unpack(fields, 1, count))
end
for i = n - deletes + 1, n do
  call('HDEL', KEYS[1], ARGV[2 + i])
  call('ZREM', KEYS[2], ARGV[2 + i])
end
return point
