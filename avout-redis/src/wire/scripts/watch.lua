-- Has what is committed from now on told to who listens. Answers 3.
--
-- KEYS: cells. ARGV: head.
local era, high, low = unpacked('>c8I4I4', ARGV[1])
local h, reply = now(call('HGET', KEYS[1], ''), era, high, low)
if not h then
  return reply
end
call('HSETNX', KEYS[1], 'watched', '')
return 3
