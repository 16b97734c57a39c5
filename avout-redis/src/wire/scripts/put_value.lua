-- Writes a value of a ref, once. Answers 3: it is there now; 4: there is another one under this version.
--
-- KEYS: cells, names, the ref's values. ARGV: head, name, version, value.
local era, high, low = unpacked('>c8I4I4', ARGV[1])
local h, reply = now(call('HGET', KEYS[1], ''), era, high, low)
if not h then
  return reply
end
if call('EXISTS', KEYS[3]) == 0 then
  call('ZADD', KEYS[2], 0, ARGV[2])
end
if call('HSETNX', KEYS[3], ARGV[3], ARGV[4]) == 1 or call('HGET', KEYS[3], ARGV[3]) == ARGV[4] then
  return 3
end
return 4
