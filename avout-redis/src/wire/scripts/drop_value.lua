-- Deletes a value of a ref, or all if no version is given. Answers 3.
--
-- KEYS: cells, names, the ref's values. ARGV: head, name, version.
local era, high, low = unpacked('>c8I4I4', ARGV[1])
local h, reply = now(call('HGET', KEYS[1], ''), era, high, low)
if not h then
  return reply
end
if ARGV[3] then
  call('HDEL', KEYS[3], ARGV[3])
else
  call('UNLINK', KEYS[3])
end
if call('EXISTS', KEYS[3]) == 0 then
  call('ZREM', KEYS[2], ARGV[2])
end
return 3
