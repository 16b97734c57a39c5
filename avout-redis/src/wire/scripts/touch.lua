-- Writes something, so that the connection can wait until replicas have all that was written before. Answers the clock.
--
-- KEYS: cells. ARGV: head, what to write.
local era, high, low = unpacked('>c8I4I4', ARGV[1])
local clock = call('HGET', KEYS[1], '')
local h, reply = now(clock, era, high, low)
if not h then
  return reply
end
call('HSET', KEYS[1], 'confirmed', ARGV[2])
return clock
